"""tools/mutants.py and its list: every bug can be planted, and the table is that of the list."""

from __future__ import annotations

import nbformat
import pytest
from conftest import ROOT

from tools import mutants, notebooks

BUGS = mutants.bugs()  # raises where a bug does not fit the code any more


def test_there_are_bugs_of_every_part_of_the_book():
    assert len(BUGS) >= 60
    assert len({bug["name"] for bug in BUGS}) == len(BUGS)
    for at, least in (("lib/", 60), ("lib/runs/", 5), ("book/_text/", 10), ("tools/", 2)):
        assert sum(bug["at"].startswith(at) for bug in BUGS) >= least, at


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug["name"])
def test_its_checks_exist(bug):
    assert bug["check"]
    for check in bug["check"]:
        place, _, name = check.partition("::")
        if place.startswith("tests/"):
            assert f"def {name.split('[')[0]}" in (ROOT / place).read_text()
        else:
            assert f'"{name}"' in notebooks.text_of(place).read_text()


def test_the_table_is_that_of_the_list():
    rows = mutants.table()
    assert list(rows) == [bug["name"] for bug in BUGS], "run: make mutants"
    assert [row["in"] for row in rows.values()] == [bug["at"] for bug in BUGS]


def test_nine_of_ten_are_noticed_and_the_rest_is_understood():
    """Of those that were planted: a bug new in the list is "not run yet" in the table."""
    by = {name: row["noticed by"] for name, row in mutants.table().items()}
    planted = {name for name in by if by[name] != "not run yet"}
    lived = {name for name in planted if by[name] == "survived"}
    assert len(lived) <= 0.1 * len(planted)
    assert lived <= {bug["name"] for bug in BUGS if bug.get("why")}


@pytest.mark.parametrize(("find", "words"), [("no such text", "found it 0 times"), ("e", "times")])
def test_a_bug_that_does_not_fit_the_code_is_named(tmp_path, monkeypatch, find, words):
    file = tmp_path / "bugs.toml"
    file.write_text(
        f'[[bug]]\nname = "old"\nat = "lib/nets.py"\nfind = "{find}"\nput = ""\ncheck = []\n'
    )
    monkeypatch.setattr(mutants, "LIST", file)
    with pytest.raises(ValueError, match=f"'old'.*{words}.*tools/mutants.toml"):
        mutants.bugs()


@pytest.fixture
def house(tmp_path):
    """A repository of one function, one test of it and one chapter."""
    for folder in ("tests", "book/_text/part"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "code.txt").write_text("2")
    (tmp_path / "tests/nbval.cfg").write_text("")
    (tmp_path / "tests/test_code.py").write_text(
        "def test_it():\n    assert open('code.txt').read() == '2'\ndef test_nothing():\n    pass\n"
    )
    text = "# A chapter\n\n```{code-cell} ipython3\nprint(open('../../code.txt').read())\n"
    text += '"one.claim"\n```\n\n```{code-cell} ipython3\n1 / 0\n```\n'
    (tmp_path / "book/_text/part/one.md").write_text(text)
    nb = notebooks.from_text(tmp_path / "book/_text/part/one.md")
    nb.cells[1].execution_count = 1
    nb.cells[1].outputs = [
        nbformat.v4.new_output("stream", text="2\n"),
        nbformat.v4.new_output("execute_result", {"text/plain": "'one.claim'"}, execution_count=1),
    ]
    (tmp_path / "book/part").mkdir()
    nbformat.write(nb, tmp_path / "book/part/one.ipynb")
    return tmp_path


@pytest.mark.parametrize(
    ("code", "check", "found"),
    [
        ("2", "tests/test_code.py", None),
        ("3", "tests/test_code.py", "tests/test_code.py::test_it"),
        ("3", "tests/test_code.py::test_nothing", None),
        ("2", "part/one::one.claim", None),
        ("3", "part/one::one.claim", "book/part/one.ipynb, cell 1"),
    ],
)
def test_what_fails_is_named(house, code, check, found):
    """A chapter runs to the claim's cell: the cell after it, which would fail, does not count."""
    (house / "code.txt").write_text(code)
    assert mutants.run(house, [check]) == found


def test_checks_that_cannot_run_are_an_error_and_no_kill(house):
    with pytest.raises(RuntimeError, match="did not run"):
        mutants.run(house, ["tests/test_code.py::test_gone"])
