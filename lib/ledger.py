"""The check behind every number in the prose, and behind every exercise."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from numbers import Integral

ID = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*\.[A-Za-z0-9]+(-[A-Za-z0-9]+)*")


def claim(id: str, value: float, low: float, high: float, *, digits: int = 2) -> None:
    """Check that a measured value lies in its band, and print one line that says so.

    ``id``: "chapter.what-is-claimed", written out where it is called and once or more in the
    text as {claim}`id`, which the built page replaces with the value. ``low`` and ``high``
    include their ends; math.inf leaves a side open. ``digits``: significant digits shown, of a
    whole number (an int) without decimals; a value from 0 to a bound of 1e-6 or less is shown as
    that bound, since its digits are rounding (claim a size: it must not be negative).
    Raises AssertionError outside the band, ValueError for a bad id or where the band or the
    value is no number.
    """
    low, high = float(low), float(high)
    value = value if isinstance(value, Integral) else float(value)
    if not ID.fullmatch(id):
        raise ValueError(f"claim {id!r}: expected an id such as credit.local-rule-wins")
    if math.isnan(low) or math.isnan(high) or low > high:
        raise ValueError(f"claim {id}: expected low <= high, found {low} and {high}")
    if math.isnan(value):
        raise ValueError(f"claim {id}: the value is nan; find out what was not measured")
    if not low <= value <= high:
        raise AssertionError(f"claim {id} fails: measured {value:.6g}, band [{low:g}, {high:g}]")
    print(f"claim {id}: {shown(value, high, digits)} (band {low:g} to {high:g}) holds")


def shown(value: float, high: float, digits: int) -> str:
    """The value as it is printed: few digits, so that one machine's rounding is another's.

    0.123 -> 0.12, 12.3 -> 12, 1234.5 -> 1200, 0.0996 -> 0.10 with two digits; 5 -> 5, 5.0 -> 5.0.
    From a million up, and below 1e-4: 1.2e+06, 1.2e-05.
    """
    if 0 < high <= 1e-6 and 0 <= value <= high:
        return f"below {high:g}"
    if value == 0 or math.isinf(value):
        return f"{value + 0.0:g}"
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])  # of the rounded value
    places = digits - 1 - exponent
    rounded = round(float(value), places)
    if 1e-4 <= abs(rounded) < 1e6:
        return f"{rounded:.{0 if isinstance(value, Integral) else max(places, 0)}f}"
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
