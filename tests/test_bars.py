"""tools/bars.py: ratios of times beside their bars."""

from __future__ import annotations

import pytest

from tools import bars


@pytest.mark.parametrize(
    ("ratio", "bar", "kept"),
    [
        (2.0, "at most 2", True),
        (2.01, "at most 2", False),
        (1.0, "at least 1", True),
        (0.5, "at least 1", False),
    ],
)
def test_a_bar_includes_its_end(ratio, bar, kept):
    assert bars.met(ratio, bar) is kept


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="at most 2"):
        bars.met(1.0, "about 2")


def test_a_ratio_takes_the_place_of_the_older_one_and_misses_are_named(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(bars, "TABLE", tmp_path / "bench.csv")
    assert bars.stored() == {} and bars.main() == 0
    bars.record("a to b", 3.0, "at most 2")
    bars.record("c to d", 1.5, "at least 1")
    assert bars.main() == 1
    assert "misses its bar: a to b: 3.00, at most 2" in capsys.readouterr().out
    bars.record("a to b", 1.234, "at most 2")
    assert bars.main() == 0
    assert list(bars.stored()) == ["a to b", "c to d"]
    assert bars.stored()["a to b"]["ratio"] == "1.23"
