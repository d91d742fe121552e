"""The check behind every number in the prose, and behind every exercise."""

from __future__ import annotations

import math
from collections.abc import Callable


def claim(id: str, value: float, low: float, high: float, *, digits: int = 2) -> None:
    """Check that a measured value lies in its band, and print one line that says so.

    ``id``: "chapter.what-is-claimed", written out where it is called and once or more in the
    text as {claim}`id`, which the built page replaces with the value. ``low`` and ``high``
    include their ends; math.inf leaves a side open. ``digits``: significant digits shown; a
    value below a bound of 1e-6 or less is shown as that bound, since its digits are rounding.
    Raises AssertionError outside the band, ValueError where the band or the value is no number.
    """
    value, low, high = float(value), float(low), float(high)
    if math.isnan(low) or math.isnan(high) or low > high:
        raise ValueError(f"claim {id}: expected low <= high, found {low} and {high}")
    if not (id.count(".") == 1 and id.replace(".", "-").replace("-", "").isalnum()):
        raise ValueError(f"claim {id!r}: expected an id such as credit.local-rule-wins")
    if not low <= value <= high:
        raise AssertionError(f"claim {id} fails: measured {value:.6g}, band [{low:g}, {high:g}]")
    print(f"claim {id}: {shown(value, high, digits)} (band {low:g} to {high:g}) holds")


def shown(value: float, high: float, digits: int) -> str:
    """The value as it is printed: few digits, so that one machine's rounding is another's."""
    if 0 <= value <= high <= 1e-6:
        return f"below {high:g}"
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    if 1e-4 <= abs(rounded) < 1e6:
        return f"{rounded:.{max(places, 0)}f}"
    return f"{rounded:.{digits - 1}e}"


def exercise(check: Callable[[Callable], None], *, blank: Callable, solution: Callable) -> None:
    """Show that an exercise's check means something: it fails on the blank, not on the solution.

    ``check(answer)`` raises (an assertion, or whatever a blank raises) for a wrong answer.
    Raises AssertionError where the check passes on the blank; a failing solution raises its own.
    """
    check(solution)
    try:
        check(blank)
    except Exception:
        print(f"{solution.__name__}: the check passes on the solution and fails on the blank")
        return
    raise AssertionError(f"the check of {solution.__name__} passes on the blank: it checks nothing")
