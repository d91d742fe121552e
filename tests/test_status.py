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
    for line in ("bands | 2 |", "measured | 3 |", "compared | 1 |", "not available | 1 |",
                 "not reproduced | 1 |", "not run | 0 |"):  # fmt: skip
        assert line in text, line


def test_planted_bugs_are_counted(tmp_path):
    file = tmp_path / "mutants.csv"
    assert "No bugs were planted yet" in status.mutants(file)
    file.write_text("planted bug,in,noticed by\nx,lib/a.py,tests/a.py::t\ny,lib/a.py,survived\n")
    assert "Of 2 planted bugs, 1 were noticed" in status.mutants(file)
