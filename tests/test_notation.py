"""book/appendix/notation.md: every argument of lib, every symbol of a numbered equation."""

from __future__ import annotations

import importlib.util
import re

import pytest
from conftest import ROOT

from tools import notebooks

spec = importlib.util.spec_from_file_location("notation", ROOT / "book" / "_ext" / "notation.py")
notation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notation)

PAGE = (ROOT / "book" / "appendix" / "notation.md").read_text(encoding="utf8")
KNOWN = notation.meanings(notation.MEANINGS.read_text(encoding="utf8"))
USES = notation.uses()
PARTS = {"backprop": "Part I", "kickback": "Part II", "feedback": "Part III",
         "bursts": "Part IV", "synthesis": "Part V"}  # fmt: skip
EQUATION = re.compile(
    r"^\$\$[ \n](.*?)[ \n]\$\$(?: \((eq-[\w-]+)\))?[ ]*$", re.MULTILINE | re.DOTALL
)
WORDS = r"\\(?:text|mathrm|operatorname\*?|rm)\b"
COMMANDS = """
    frac tfrac dfrac sqrt sum prod int min max ln log exp arccos cos sin tan tanh lim sup inf
    partial nabla infty le ge lt gt ne approx propto in cap cup to pm times cdot cdots dots ldots
    odot circ top mid angle langle rangle lVert rVert lvert rvert Vert vert left right big Big
    bigl bigr Bigl Bigr bigg Bigg binom quad qquad underbrace overbrace overline hat bar tilde dot
    ddot vec mathsf mathbf mathbb mathcal textstyle displaystyle leftarrow rightarrow Leftarrow
    Rightarrow mapsto gets equiv sim ast star forall exists Pr mathrm boldsymbol not
    """.split()


def numbered(text: str) -> dict[str, str]:
    """Label -> TeX of each numbered equation."""
    return {label: tex for tex, label in EQUATION.findall(text) if label}


def symbols(tex: str) -> set[str]:
    r"""The letters of a formula: a, \beta; and a letter with a word below it: \tau_avg."""
    tex = re.sub(r"\\(?:begin|end)\{[^}]*\}(?:\{[^}]*\})?|\\[,;:!|{}\\ ]", " ", tex)
    tex = re.sub(r"\\mathbb\s*\{?1\}?", r" \\mathbb ", tex)
    below = rf"(\\?[A-Za-z]+)_\{{?(?:{WORDS})?\s*\{{?([A-Za-z]{{2,}})\}}*"
    words = {
        f"{letter}_{word}"
        for letter, word in re.findall(below, tex)
        if not re.fullmatch("[i-n]+", word) and letter.removeprefix("\\") not in COMMANDS
    }
    tex = re.sub(rf"{WORDS}\s*(?:\{{[^}}]*\}}|\w+)", " ", tex)
    tex = re.sub(r"_\{?[a-z]{2,}\}?", " ", tex)
    found = set(re.findall(r"\\[A-Za-z]+|[A-Za-z]", tex))
    one = {r"\mathbb"} & found
    return {s for s in found if s.removeprefix("\\") not in COMMANDS} | words | one


def documented(heading: str) -> set[str]:
    """The symbols in the first column of the table under a heading of the page."""
    part = PAGE.split(f"\n### {heading}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| $")]
    return {s for row in rows for tex in re.findall(r"\$([^$]+)\$", row) for s in symbols(tex)}


def test_symbols_are_letters_and_words_below_them():
    assert symbols(r"\tau_\mathrm{avg}\,\dot V_s &= \tfrac{C_s}{\tau_{ws}} \\ e_{\text{max}}") == {
        r"\tau", r"\tau_avg", "V", "s", "C", r"\tau_ws", "e", "e_max"}  # fmt: skip
    assert symbols(r"\begin{aligned} s_j \mathbb 1_j w_{ji} \end{aligned} \text{told}") == {
        "s", "j", r"\mathbb", "w"}  # fmt: skip
    assert numbered("$$\na\n$$\n\nb\n\n$$\nc\n$$ (eq-c)\n") == {"eq-c": "c"}


@pytest.mark.parametrize("name", notebooks.chapters())
def test_every_symbol_of_a_numbered_equation_is_on_the_page(name):
    equations = numbered(notebooks.text_of(name).read_text(encoding="utf8"))
    known = documented("Everywhere") | documented(PARTS[name.split("/")[0]])
    missing = {label: sorted(symbols(tex) - known) for label, tex in equations.items()}
    assert {label: some for label, some in missing.items() if some} == {}, "add a row to the page"


def test_letters_with_two_meanings_are_said_to_have_them():
    twice = PAGE.split("## Letters that mean two things", 1)[1].split("\n## ", 1)[0]
    rows = {line.split("|")[1].strip() for line in twice.splitlines() if line.startswith("| $")}
    assert {r"$\beta$", "$E$", "$B$", "$P$, $p$", r"$\tau$"} <= rows


def test_every_argument_of_the_library_has_a_meaning():
    missing = sorted({use for use in USES if notation.meaning_of(*use, KNOWN) is None})
    assert missing == [], "add a line to book/_ext/arguments.txt"


def test_every_meaning_is_that_of_an_argument():
    used = {notation.meaning_of(*use, KNOWN) for use in USES}
    assert [m for m in KNOWN if m not in used] == [], "no argument of lib means this any more"


def test_the_nearest_module_says_what_an_argument_means():
    here = notation.meaning_of("rate", "rules.feedback.WeightMirror.mirror", KNOWN)
    there = notation.meaning_of("rate", "spikes.circuit.Source", KNOWN)
    assert (here.module, there.module, there.unit) == ("rules.feedback", "", "1/s")
    assert notation.meaning_of("nothing", "nets.mlp", KNOWN) is None


def test_a_line_without_three_parts_is_refused():
    with pytest.raises(ValueError, match=r"expected 'name \| unit \| meaning'"):
        notation.meanings("# Group\nrate | a meaning without a unit")


def test_the_arguments_are_a_table_with_their_places():
    known = notation.meanings("# One\nrate | Hz | how often\n# Two\nother || something else")
    lines = notation.table("One", known, {known[0]: ["a", "b", "c", "d"]})
    assert lines[2:] == ["| `rate` | how often (Hz) | `a`, `b`, `c`, 1 more |"]
