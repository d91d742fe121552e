"""The tool that turns texts into notebooks, and the form of every stored notebook."""

from __future__ import annotations

import nbformat
import pytest

from tools import notebooks

HEAD = """---
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---

# A chapter

```{code-cell} ipython3
---
mystnb:
  image: {alt: A line.}
---
"""
STORED = sorted(notebooks.BOOK.rglob("*.ipynb"))


@pytest.mark.book
@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_stored_notebook_is_in_normal_form(path):
    assert notebooks.problems(path) == []


@pytest.mark.book
def test_every_text_has_a_notebook_and_every_notebook_a_text():
    stored = [p.relative_to(notebooks.BOOK).with_suffix("").as_posix() for p in STORED]
    assert stored == notebooks.chapters()


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A book of one small chapter in a folder of its own."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "BOOK", tmp_path / "book")
    monkeypatch.setattr(notebooks, "TEXT", tmp_path / "book" / "_text")
    (tmp_path / "book" / "_text" / "part").mkdir(parents=True)

    def write(code: str):
        path = notebooks.text_of("part/one")
        path.write_text(HEAD + code + "\n```\n")
        return path

    return write


def stored() -> nbformat.NotebookNode:
    return nbformat.read(notebooks.notebook_of("part/one"), as_version=4)


def test_same_text_gives_the_same_bytes(house):
    house("import random\nprint(6 * 7)")
    path = notebooks.notebook_of("part/one")
    notebooks.build_one("part/one")
    first = path.read_bytes()
    notebooks.build_one("part/one")
    assert path.read_bytes() == first
    assert notebooks.problems(path) == []
    assert stored().cells[1].outputs[0].text == "42\n"


@pytest.mark.parametrize(
    "code, says",
    [("raise RuntimeError('planted')", "planted"), ("import os\nos._exit(1)", "Dead")],
)
def test_a_failing_cell_leaves_the_stored_notebook_alone(house, capsys, code, says):
    house("print(1)")
    notebooks.build_one("part/one")
    before = notebooks.notebook_of("part/one").read_bytes()
    house(code)
    assert notebooks.build(["part/one"], jobs=1) == 1
    assert says in capsys.readouterr().out
    assert notebooks.notebook_of("part/one").read_bytes() == before
    assert not list(notebooks.BOOK.rglob("*.part"))


def test_a_chapter_runs_in_its_own_folder_and_without_a_network(house):
    house(
        "import pathlib, urllib.request\nprint(pathlib.Path.cwd().name)\n"
        "try:\n    urllib.request.urlopen('http://192.0.2.1', timeout=2)\n"
        "except OSError as e:\n    print(e)"
    )
    notebooks.build_one("part/one")
    text = stored().cells[1].outputs[0].text
    assert text.startswith("part\n") and "network blocked" in text


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda nb: nb.cells[1].update(source="print(2)"), "differs from its text twin"),
        (lambda nb: nb.cells[1].update(execution_count=3), "not run once from top to bottom"),
        (lambda nb: nb.cells[1].metadata.update(scrolled=True), "stray metadata"),
        (lambda nb: nb.metadata.update(author="me"), "notebook metadata"),
        (lambda nb: nb.cells[1].outputs[0].update(text="/home/me/x"), "machine-dependent"),
        (lambda nb: nb.cells[1].outputs[0].update(name="stderr"), "stderr"),
    ],
)
def test_a_dirty_notebook_is_named_with_its_cure(house, spoil, message):
    house("print(1)")
    notebooks.build_one("part/one")
    nb = stored()
    spoil(nb)
    path = notebooks.notebook_of("part/one")
    nbformat.write(nb, path)
    found = notebooks.problems(path)
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    "code, message",
    [
        ("x = 1;", "trailing ';'"),
        ('x = "$\\delta$"', "invalid escape sequence"),
        ("\n".join(f"x{i} = {i}" for i in range(30)), "longer than 25 lines"),
        ("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()", "without alt text"),
        ("import warnings\nwarnings.warn('oh')", "stderr"),
    ],
)
def test_a_cell_out_of_form_is_named(house, code, message):
    house(code)
    notebooks.build_one("part/one")
    assert any(message in p for p in notebooks.problems(notebooks.notebook_of("part/one")))


def test_an_exempt_cell_needs_a_reason():
    cell = nbformat.v4.new_code_cell("import time", metadata={"tags": ["nbval-skip"]})
    assert "without a '# why" in notebooks.cell_problems(cell, "")[0]
    cell.source = "# why: prints the date\nimport time"
    assert notebooks.cell_problems(cell, "") == []
