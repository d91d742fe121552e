"""lib.ledger: claims, how they are printed and read back, and checks of exercises."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from lib import ledger

PATH = Path(__file__).resolve().parents[1] / "book" / "_ext" / "claims.py"
spec = importlib.util.spec_from_file_location("claims", PATH)
claims = importlib.util.module_from_spec(spec)
spec.loader.exec_module(claims)


# --- what is printed


def test_a_claim_prints_one_line(capsys):
    ledger.claim("credit.local-rule-wins", 0.9537, 0.9, 1)
    line = "claim credit.local-rule-wins: 0.95 (band 0.9 to 1) holds\n"
    assert capsys.readouterr() == (line, "")


@pytest.mark.parametrize(
    ("value", "low", "high", "digits", "expected"),
    [
        (0.123, 0, 1, 2, ("0.12", "0", "1")),
        (12.3, 0, math.inf, 2, ("12", "0", "inf")),
        (-0.05, -math.inf, 0, 2, ("-0.050", "-inf", "0")),
        (3e-13, 0, 1e-12, 2, ("below 1e-12", "0", "1e-12")),
        (math.inf, 5, math.inf, 2, ("inf", "5", "inf")),
        (7, 7, 7, 2, ("7", "7", "7")),
        (0, 0, 0, 2, ("0", "0", "0")),
        (np.float32(0.25), 0.1, 0.5, 1, ("0.2", "0.1", "0.5")),
        (torch.tensor(2.5), 0, 3, 3, ("2.50", "0", "3")),
    ],
)
def test_the_book_reads_back_what_a_claim_printed(capsys, value, low, high, digits, expected):
    ledger.claim("robot-arm.error-4", value, low, high, digits=digits)
    found = claims.LINE.match(capsys.readouterr().out.rstrip("\n"))
    assert found["id"] == "robot-arm.error-4"
    assert (found["value"], found["low"], found["high"]) == expected


def test_the_book_finds_claims_among_other_output(capsys, tmp_path):
    print("before")
    ledger.claim("credit.one", 0.5, 0, 1)
    ledger.claim("credit.two", 20, 10, math.inf)
    print("claim credit.three: nothing")
    output = nbformat.v4.new_output("stream", text=capsys.readouterr().out)
    cell = nbformat.v4.new_code_cell("", outputs=[output])
    (tmp_path / "part").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "part" / "credit.ipynb")
    found = claims.printed(tmp_path)
    assert {id: (c["value"], c["chapter"]) for id, c in found.items()} == {
        "credit.one": ("0.50", "part/credit"),
        "credit.two": ("20", "part/credit"),
    }


# --- the band


@pytest.mark.parametrize("value", [0.9, 1.0, 0.95])
def test_the_band_includes_its_ends(value):
    ledger.claim("credit.ends", value, 0.9, 1.0)


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (0.89999, 0.9, 1, r"claim credit\.band fails: measured 0\.89999, band \[0\.9, 1\]"),
        (1.00001, 0.9, 1, r"measured 1\.00001, band \[0\.9, 1\]"),
        (-5, 0, math.inf, r"measured -5, band \[0, inf\]"),
        (math.inf, 0, 10, r"measured inf, band \[0, 10\]"),
        (8, 7, 7, "measured 8"),
    ],
)
def test_outside_its_band_a_claim_fails_and_prints_nothing(capsys, value, low, high, words):
    with pytest.raises(AssertionError, match=words):
        ledger.claim("credit.band", value, low, high)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (math.nan, -math.inf, math.inf, "claim credit.odd: the value is nan"),
        (0.5, 1, 0, "claim credit.odd: expected low <= high, found 1.0 and 0.0"),
        (0.5, math.nan, 1, "expected low <= high, found nan and 1.0"),
        (0.5, 0, math.nan, "expected low <= high, found 0.0 and nan"),
    ],
)
def test_what_is_no_number_or_no_band_is_refused(value, low, high, words):
    with pytest.raises(ValueError, match=words):
        ledger.claim("credit.odd", value, low, high)


@pytest.mark.parametrize(
    "id",
    [
        "",
        "credit",
        "credit.",
        ".wins",
        "credit.a.b",
        "credit.local rule",
        "credit.local_rule",
        "credit.-wins",
        "credit.wins-",
        "credit.wins!",
        "crédit.wins",
        "credit.wins\n",
    ],
)
def test_a_bad_id_is_refused(id):
    with pytest.raises(ValueError, match=r"expected an id such as credit\.local-rule-wins"):
        ledger.claim(id, 0.5, 0, 1)


@pytest.mark.parametrize("id", ["credit.wins", "robot-arm.k-hop-2", "xor.XOR-solved"])
def test_a_good_id_is_taken(id):
    ledger.claim(id, 0.5, 0, 1)


# --- digits


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.123, 2, "0.12"),
        (0.1, 2, "0.10"),
        (0.0996, 2, "0.10"),  # rounds up into another decade: still two digits
        (0.996, 2, "1.0"),
        (9.96, 2, "10"),
        (99.6, 2, "100"),
        (12.3, 2, "12"),
        (12.3, 3, "12.3"),
        (1234.5, 2, "1200"),
        (1250.1, 2, "1300"),
        (1234.5, 6, "1234.50"),
        (999_999.0, 2, "1.0e+06"),
        (1_234_567.0, 3, "1.23e+06"),
        (0.00012, 2, "0.00012"),
        (0.000012, 2, "1.2e-05"),
        (-0.123, 2, "-0.12"),
        (-1234.5, 2, "-1200"),
        (-9.96, 1, "-10"),
        (0.0, 2, "0"),
        (-0.0, 2, "0"),
        (math.inf, 2, "inf"),
        (-math.inf, 2, "-inf"),
        (5.0, 2, "5.0"),
        (5, 2, "5"),
        (np.int64(12), 4, "12"),
        (1234, 2, "1200"),
        (1234, 4, "1234"),
        (True, 2, "1"),
    ],
)
def test_values_are_shown_with_their_significant_digits(value, digits, expected):
    assert ledger.shown(value, math.inf, digits) == expected


@pytest.mark.parametrize(
    ("value", "high", "expected"),
    [
        (3.2e-17, 1e-12, "below 1e-12"),
        (0.0, 1e-12, "below 1e-12"),
        (0.0, 0.0, "0"),
        (9e-7, 1e-6, "below 1e-06"),
        (3.2e-17, 1e-5, "3.2e-17"),
        (-3.2e-17, 1e-12, "-3.2e-17"),
    ],
)
def test_a_value_whose_digits_are_rounding_is_shown_as_its_bound(value, high, expected):
    assert ledger.shown(value, high, 2) == expected


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_what_is_shown_is_the_value_within_half_a_digit(digits):
    """By the definition, over twelve decades and both signs."""
    r = np.random.default_rng(0)
    for value in r.choice([-1, 1], 500) * 10 ** r.uniform(-6, 6, 500):
        shown = ledger.shown(value, math.inf, digits)
        size = 10.0 ** math.floor(math.log10(abs(value)))
        assert abs(float(shown) - value) <= 0.5001 * size * 10.0 ** (1 - digits)
        figures = shown.lstrip("-").split("e")[0].replace(".", "").lstrip("0")
        assert len(figures.rstrip("0")) <= digits


# --- exercises


def check(answer) -> None:
    assert answer(3) == 9, "3 squared"


def square(x: int) -> int:
    return x * x


def double(x: int) -> int:
    return 2 * x


def unwritten(x: int) -> int:
    raise NotImplementedError("your turn")


@pytest.mark.parametrize("blank", [double, unwritten, lambda x: ..., lambda: None])
def test_a_check_that_tells_the_blank_from_the_solution(capsys, blank):
    ledger.exercise(check, blank=blank, solution=square)
    line = "square: the check passes on the solution and fails on the blank\n"
    assert capsys.readouterr().out == line


def test_a_check_that_passes_on_the_blank_checks_nothing(capsys):
    with pytest.raises(AssertionError, match="the check of square passes on the blank"):
        ledger.exercise(lambda answer: answer(2) == 4, blank=double, solution=square)
    assert capsys.readouterr().out == ""


def test_a_solution_that_is_wrong_fails_as_itself():
    with pytest.raises(AssertionError, match="3 squared"):
        ledger.exercise(check, blank=unwritten, solution=double)
    with pytest.raises(NotImplementedError, match="your turn"):
        ledger.exercise(check, blank=double, solution=unwritten)


def test_the_book_finds_tables_with_a_published_column_alone(tmp_path):
    table = "| task | published | here |\n|---|--:|---|\n| XOR | 1 % | {claim}`a.b` |\n"
    other = "| choice | reason |\n|---|---|\n| as published | time |\n"
    cells = [
        {"cell_type": "markdown", "source": [f"Text.\n\n{table}\n", other]},
        {
            "cell_type": "code",
            "source": "| not | a published table |",
            "outputs": [{"data": {"text/markdown": table.replace("XOR", "computed").rstrip()}}],
        },
    ]
    (tmp_path / "bursts").mkdir()
    (tmp_path / "bursts" / "xor.ipynb").write_text(json.dumps({"cells": cells}))
    assert claims.compared(tmp_path) == {"bursts/xor": [table, table.replace("XOR", "computed")]}
