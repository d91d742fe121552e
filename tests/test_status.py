"""book/_ext/status.py: what the status page says is what the files hold."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for name in ("claims", "status"):
    path = ROOT / "book" / "_ext" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
status = sys.modules["status"]


def test_costs_are_those_of_built_chapters_and_their_sum_is_halved(tmp_path):
    file = tmp_path / "budget.json"
    assert "not run in this build" in status.costs(file, set())
    file.write_text(json.dumps({"a/b": [30.0, 400], "a/c": [10.0, 500], "a/gone": [99, 1]}))
    text = status.costs(file, {"book/a/b", "book/a/c"})
    assert "| {doc}`/book/a/b` | 30 | 400 |" in text and "gone" not in text
    assert "**20**" in text


def test_rows_of_published_numbers_are_counted_once_each():
    rows = (
        "| x | published |\n|---|---|\n| a | 1 |\n| b | not available |\n| c | not reproduced |\n"
    )
    text = status.ledger({"a": {}, "b": {}}, {"part/chapter": [rows]})
    for line in ("bands | 2 |", "measured | 3 |", "row says | 1 |", "not available | 1 |",
                 "not reproduced | 1 |", "not run | 0 |"):  # fmt: skip
        assert line in text, line


def test_planted_bugs_are_counted(tmp_path):
    file = tmp_path / "mutants.csv"
    assert "No bugs were planted yet" in status.mutants(file)
    file.write_text("planted bug,in,noticed by\nx,lib/a.py,tests/a.py::t\ny,lib/a.py,survived\n"
                    "z,lib/a.py,not run yet\n")  # fmt: skip
    assert "Of 2 planted bugs, 1 (50 %) were noticed" in status.mutants(file)
    assert "1 more are listed and not yet planted" in status.mutants(file)


def test_survivors_are_listed_with_their_reason():
    rows = [
        {"planted bug": "x", "in": "lib/a.py", "noticed by": "tests/test_a.py::test_two_words"},
        {"planted bug": "y", "in": "book/_text/p/c.md", "noticed by": "survived"},
    ]
    text = status.planted(rows, [{"name": "y", "why": "it changes nothing"}])
    assert "**1 of 2 were noticed.**" in text and "- y: it changes nothing" in text
    assert "| x | `lib/a.py` | `test_a.py`: test two words |" in text
    assert "| y | `p/c.md` | survived |" in text  # the column is narrow
    assert "| in the library | 1 |" in text and "| in a chapter | 1 |" in text
    assert "None survived.\n" in status.planted(rows[:1], [])
    waits = {"planted bug": "z", "in": "lib/a.py", "noticed by": "not run yet"}
    text = status.planted([rows[0], waits], [])
    assert "**1 of 1 were noticed.** The list has 1 more, not yet planted. None survived.\n" in text
    assert "| z |" not in text
    assert "No bugs were planted yet" in status.planted([], [])


def test_other_seeds_are_summed_and_failures_explained():
    head = ("chapter", "seed", "claims", "held", "not held")
    rows = [
        dict(zip(head, row, strict=True))
        for row in (
            ("p/a", "1", "3", "1", "a.x: measured 3 | a.y: not reached | cell 4: KeyError: x"),
            ("p/b", "1", "2", "2", ""),
            ("p/gone", "1", "9", "9", ""),
        )
    ]
    why = {"a.x": "a stored run", "p/a cell 4": "the same"}
    text = status.seeds(rows, why, {"book/p/a", "book/p/b"})
    assert "| **all** |  | **5** | **3** |" in text and "gone" not in text
    assert "- a.x: a stored run" in text and "- p/a cell 4: the same" in text
    assert "Fails with other seeds: a.y (seed 1)." in text
    assert "Not tried yet" in status.seeds([], {}, set())


def test_ratios_stand_beside_their_bars():
    assert "Not run yet" in status.bench([])
    row = {"benchmark": "a to b", "ratio": "1.50", "bar": "at most 2", "met": "yes",
           "date": "2026-01-01", "machine": "x86_64"}  # fmt: skip
    text = status.bench([row])
    assert "| a to b | 1.50 | at most 2 | yes |" in text
    assert "Measured on 2026-01-01, x86_64." in text
