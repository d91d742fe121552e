"""tools/reseed.py: other random numbers, claims that do not raise, and the table that results."""

from __future__ import annotations

import os
import subprocess
import sys

import nbformat
from conftest import ROOT
from test_book import CHAPTERS, claimed

from tools import reseed

CODE = """
import numpy as np
from tools import reseed
old = [np.random.default_rng(k).random() for k in (3, [3, 1])]
reseed.hook(7)
new = [np.random.default_rng(k).random() for k in (3, [3, 1], np.int64(3))]
rng = np.random.default_rng(np.random.SeedSequence(5))
assert new[0] == new[2] and not set(new) & set(old), "seeds are moved, alike for alike"
assert np.random.default_rng(rng) is rng, "a generator stays itself"
assert isinstance(rng, np.random.Generator)
from lib import ledger
ledger.claim("a.holds", 1, 0, 2)
ledger.claim("a.fails", 3, 0, 2)
ledger.claim("a.nan", float("nan"), 0, 2)
"""


def test_the_hook_moves_every_seed_and_lets_no_claim_raise():
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "claim a.holds: 1 (band 0 to 2) holds",
        "claim a.fails fails: measured 3, band [0, 2]",
        "claim a.nan fails: claim a.nan: the value is nan; find out what was not measured",
    ]


def test_a_chapter_is_read_back_claim_by_claim():
    text = "claim a.holds: 1 (band 0 to 2) holds\nclaim a.fails fails: measured 3, band [0, 2]\n"
    error = nbformat.v4.new_output("error", ename="KeyError", evalue="'x'", traceback=[])
    cells = [
        nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text=text)]),
        nbformat.v4.new_code_cell("first\nsecond", outputs=[error]),
        nbformat.v4.new_code_cell(
            "meant", outputs=[error], metadata={"tags": ["raises-exception"]}
        ),
    ]
    nb = nbformat.v4.new_notebook(cells=cells)
    found = reseed.outcome("p/a", nb, ["a.holds", "a.fails", "a.later"])
    assert found.held == ["a.holds"]
    assert found.failed == {
        "a.fails": "measured 3, band [0, 2]",
        "cell 2": "KeyError: 'x' (first)",
        "a.later": "not reached",
    }


def test_rows_take_the_place_of_older_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(reseed, "TABLE", tmp_path / "t.csv")
    reseed.store(reseed.Result("p/b", ["b.x"], {"b.y": "measured 3", "cell 2": "E: x"}), 1)
    reseed.store(reseed.Result("p/a", ["a.x"], {}), 1)
    reseed.store(reseed.Result("p/b", ["b.x", "b.y"], {}), 2)
    reseed.store(reseed.Result("p/a", ["a.x", "a.y"], {}), 1)
    assert [list(r.values()) for r in reseed.stored().values()] == [
        ["p/a", "1", "2", "2", ""],
        ["p/b", "1", "2", "1", "b.y: measured 3 | cell 2: E: x"],
        ["p/b", "2", "2", "2", ""],
    ]


def test_every_reason_belongs_to_a_claim_or_a_cell():
    ids = {id for name in CHAPTERS for id in claimed(name)}
    for key, why in reseed.reasons().items():
        assert len(why) > 10
        assert key in ids or key.split(" cell ")[0] in CHAPTERS, key
