"""Measured numbers in the prose: {claim}`id` becomes the value that its chapter printed.

Also the directives ``ledger``, a table of every claim of the book, and ``compared``, every table
with a published column. All read the stored notebooks; an unknown id is a warning, so it fails
the build.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

LINE = re.compile(
    r"^claim (?P<id>\S+): (?P<value>.+) \(band (?P<low>\S+) to (?P<high>\S+)\) holds$"
)
TABLE = re.compile(r"^\|.*\n\|[-:| ]+\n(?:\|.*\n)+", re.MULTILINE)


def printed(book: Path) -> dict[str, dict[str, str]]:
    """Every claim printed in a stored notebook: id -> value, low, high, chapter."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(book.rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
            for output in cell.get("outputs", []):
                for line in "".join(output.get("text", [])).splitlines():
                    if m := LINE.match(line):
                        chapter = path.relative_to(book).with_suffix("").as_posix()
                        found[m["id"]] = {**m.groupdict(), "chapter": chapter}
    return found


def compared(book: Path) -> dict[str, list[str]]:
    """The published-beside-measured tables of each chapter, as they stand there or were computed.

    They are those whose first row names a column "published".
    """
    found: dict[str, list[str]] = {}
    for path in sorted(book.glob("*/*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
            shown = [o.get("data", {}).get("text/markdown", "") for o in cell.get("outputs", [])]
            for text in [cell["source"] if cell["cell_type"] == "markdown" else "", *shown]:
                for table in TABLE.findall("".join(text) + "\n"):
                    if "published" in table.split("\n", 1)[0].lower():
                        chapter = path.relative_to(book).with_suffix("").as_posix()
                        found.setdefault(chapter, []).append(table)
    return found


class Claim(SphinxRole):
    """The measured value, with the claim's id and band as its tooltip."""

    def run(self):
        self.env.note_dependency(str(Path(self.env.doc2path(self.env.docname))))
        claim = self.env.app.claims.get(self.text)
        if claim is None:
            message = self.inliner.reporter.warning(f"no claim {self.text!r} in any stored chapter")
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        band = f"checked to lie between {claim['low']} and {claim['high']}"
        tip = f"measured in {claim['chapter']}; {band}"
        return [nodes.abbreviation(self.rawtext, claim["value"], explanation=tip)], []


class Ledger(SphinxDirective):
    """All claims as a table per chapter, for the chapters that are in the contents."""

    def run(self):
        self.env.note_reread()
        built = [c for c in self.env.app.claims.values() if self._is_built(c)]
        lines = [f"{len(built)} claims, all checked when their chapters were run."]
        app = self.env.app
        contents = (Path(app.srcdir) / app.config.external_toc_path).read_text(encoding="utf8")
        for chapter in sorted({c["chapter"] for c in built}, key=contents.find):
            lines += ["", f"**{{doc}}`/book/{chapter}`**", ""]
            lines += ["| claim | measured | must lie in |", "|---|---|---|"]
            lines += [
                f"| `{c['id'].split('.')[1]}` | {c['value']} | {c['low']} to {c['high']} |"
                for c in built
                if c["chapter"] == chapter
            ]
        return self.parse_text_to_nodes("\n".join(lines))

    def _is_built(self, claim: dict[str, str]) -> bool:
        return f"book/{claim['chapter']}" in self.env.found_docs


class Compared(Ledger):
    """All published-beside-measured tables, for the chapters that are in the contents."""

    def run(self):
        self.env.note_reread()
        app = self.env.app
        contents = (Path(app.srcdir) / app.config.external_toc_path).read_text(encoding="utf8")
        found = compared(Path(app.srcdir) / "book")
        lines: list[str] = []
        for chapter in sorted(found, key=contents.find):
            if self._is_built({"chapter": chapter}):
                lines += ["", f"**{{doc}}`/book/{chapter}`**"]
                lines += ["\n" + table for table in found[chapter]]
        return self.parse_text_to_nodes("\n".join(lines))


def _load(app: Sphinx) -> None:
    app.claims = printed(Path(app.srcdir) / "book")


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("builder-inited", _load)
    app.add_role("claim", Claim())
    app.add_directive("ledger", Ledger)
    app.add_directive("compared", Compared)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
