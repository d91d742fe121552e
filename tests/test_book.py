"""The book as a whole: claims, exercises, contents, pins, and where `lib` is found."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import version

import nbformat
import pytest
import yaml
from conftest import ROOT
from nbval.plugin import get_sanitize_patterns

from tools import notebooks

ROLE = re.compile(r"\{claim\}`([^`]+)`")
CHAPTERS = notebooks.chapters()


def chapter(name: str) -> tuple[str, str]:
    """A chapter's prose (captions included) and its code."""
    nb = notebooks.from_text(notebooks.text_of(name))
    prose = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    captions = "\n".join(str(c.metadata.get("mystnb", "")) for c in nb.cells)
    return prose + captions, "\n".join(c.source for c in nb.cells if c.cell_type == "code")


def claimed(name: str) -> list[str]:
    """The claim ids written out in a chapter's code, each as often as it stands there."""
    prefix = re.escape(name.split("/")[1])
    return re.findall(rf"""["']({prefix}\.[A-Za-z0-9-]+)["']""", chapter(name)[1])


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_claim_in_the_text_is_checked_and_every_check_is_in_the_text(name):
    said = {id for id in ROLE.findall(chapter(name)[0]) if id.startswith(name.split("/")[1] + ".")}
    checked = set(claimed(name))
    assert checked, "a chapter without a claim"
    assert said - checked == set(), "in the text, but nothing checks it"
    assert checked - said == set(), "checked, but the text does not say it"


def test_no_claim_id_is_used_twice():
    ids = Counter(id for name in CHAPTERS for id in claimed(name))
    assert [id for id, n in ids.items() if n > 1] == []


@pytest.mark.book
@pytest.mark.parametrize("name", CHAPTERS)
def test_the_claims_printed_when_the_chapter_ran_are_those_of_the_text(name):
    nb = nbformat.read(notebooks.notebook_of(name), as_version=4)
    out = "".join(o.get("text", "") for c in nb.cells for o in c.get("outputs", []))
    assert sorted(re.findall(r"^claim (\S+): .* holds$", out, re.M)) == sorted(claimed(name))


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_keeps_the_contract(name):
    prose, code = chapter(name)
    for part in ("What we measured", "Departures", "What this does not show", "Further reading"):
        assert re.search(rf"^##+ .*{part}", prose, re.M), f"no section {part!r}"
    for part in ("will be able to", "Read first", "Run time"):
        assert re.search(part, prose[:2500], re.I), f"the opening does not say {part!r}"
    exercises = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n:label: (\S+)", prose)
    solutions = set(re.findall(r"\{solution(?:-start)?\} (\S+)", prose))
    assert 3 <= len(exercises) <= 5
    assert solutions == set(exercises)
    assert prose.count(":class: dropdown") >= len(exercises)
    assert code.count("ledger.exercise(") >= 1


GRADES = ("Recall", "Compute", "Research")


def exercises(name: str) -> list[tuple[str, str, str]]:
    """Title, label and solution (code included) of each exercise of a chapter."""
    text = notebooks.text_of(name).read_text(encoding="utf8")
    found = re.findall(r"^```\{exercise-start\} *(.*)\n:label: (\S+)", text, re.M)
    solved = r"\{solution-start\} %s\n.*?\{solution-end\}"
    return [
        (title, label, re.search(solved % re.escape(label), text, re.S)[0])
        for title, label in found
    ]


@pytest.mark.parametrize("name", CHAPTERS)
def test_exercises_are_graded_from_recall_to_research(name):
    grades = [title.split(":")[0] for title, _, _ in exercises(name)]
    assert set(grades) == set(GRADES), "each title begins with Recall, Compute or Research"
    assert grades == sorted(grades, key=GRADES.index)


@pytest.mark.parametrize("name", CHAPTERS)
def test_an_exercise_to_compute_has_a_check_that_can_fail(name):
    checked = [title for title, _, solution in exercises(name) if "ledger.exercise(" in solution]
    assert checked and all(title.startswith("Compute") for title in checked)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_ends_by_leading_on(name):
    last = notebooks.text_of(name).read_text(encoding="utf8").rstrip().splitlines()[-1]
    assert last.startswith("**Next:** ") and "{doc}" in last, "the last line says what comes next"


def test_every_chapter_is_in_the_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = {c["file"] for part in toc["parts"] for c in part["chapters"]}
    assert {f"book/{name}" for name in CHAPTERS} <= files


def test_every_requirement_is_pinned_and_says_why():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#") and line != "-e .":
            assert re.fullmatch(r"[a-z0-9-]+==\S+ +# \S.{9,}", line), line


def test_constraints_agree_with_requirements():
    def pins(file):
        lines = (ROOT / file).read_text().lower().replace("_", "-").splitlines()
        return dict(line.split()[0].split("==") for line in lines if re.match(r"[\w-]+==", line))

    exact, direct = pins("constraints.txt"), pins("requirements.txt")
    assert {k: v for k, v in direct.items() if exact.get(k) != v} == {}


def test_jupyter_book_is_the_first():
    assert version("jupyter-book").startswith("1.")


def test_git_keeps_lib():
    ignored = subprocess.run(["git", "check-ignore", "lib", "lib/nets.py"], cwd=ROOT)
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.returncode == 1


@pytest.mark.parametrize("decoy", [False, True])
def test_lib_is_importable_from_any_folder(tmp_path, decoy):
    """Also where a folder called lib lies about, as in / and /usr."""
    if decoy:
        (tmp_path / "lib").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "import lib.nets; print(lib.__file__)"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(ROOT / "lib" / "__init__.py")


def test_the_sanitizer_file_says_what_it_seems_to():
    text = (ROOT / "tests" / "nbval.cfg").read_text()
    assert len(get_sanitize_patterns(text)) == text.count("[") - text.count("[0-9")


def test_the_notation_page_names_what_the_library_has():
    """Every word of the column "in lib" is a word of the library's source."""
    source = "\n".join(p.read_text(encoding="utf8") for p in (ROOT / "lib").rglob("*.py"))
    page = (ROOT / "book/appendix/notation.md").read_text(encoding="utf8")
    page = page.split("(notation-twice)=")[0]  # the tables that have this column
    rows = [r.strip("|").split("|")[-1] for r in page.splitlines() if r.startswith("| ")]
    words = {w for cell in rows for code in re.findall(r"`([^`]+)`", cell) for w in
             re.findall(r"[A-Za-z_]\w+", code) if not re.fullmatch(r"[YZQ]\d", w)}  # fmt: skip
    assert len(words) > 40
    missing = {w for w in words if not re.search(rf"\b{w}\b", source)}
    assert missing <= {"lib", "rule", "net", "spikes", "plasticity", "stp"}, missing
