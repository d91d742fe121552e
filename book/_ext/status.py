"""The directive ``status``: what the last build took, found and was made with. Nothing is typed.

It reads what ``make book`` leaves in _build/budget.json, ``make bench`` in _build/bench.txt and
``make mutants`` in book/appendix/mutants.csv, and says so where one of them has not been run.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import json
import platform
import re
from pathlib import Path

from claims import compared
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "numba", "matplotlib", "jupyter-book")


def table(head: list[str], rows: list[list[object]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def costs(path: Path, built: set[str]) -> str:
    """Seconds and memory of each chapter, as its last execution on this machine found them."""
    if not path.exists():
        return "The chapters were not run in this build (`make book` does that).\n"
    rows = [
        [f"{{doc}}`/book/{name}`", f"{seconds:.0f}", megabytes]
        for name, (seconds, megabytes) in json.loads(path.read_text()).items()
        if f"book/{name}" in built
    ]
    rows.append(["**all, two at a time**", f"**{sum(float(r[1]) for r in rows) / 2:.0f}**", ""])
    return table(["chapter", "seconds", "MB"], rows)


def ledger(claims: dict, tables: dict[str, list[str]]) -> str:
    """How many claims hold, and what became of the published numbers."""
    lines = [row for found in tables.values() for t in found for row in t.splitlines()[2:]]
    kinds = {"not available": 0, "not reproduced": 0, "not run": 0}
    for line in lines:
        kind = next((k for k in kinds if re.search(rf"\b{k}\b", line)), None)
        if kind:
            kinds[kind] += 1
    compared_with = len(lines) - sum(kinds.values())
    rows = [
        ["claims about our own experiments, all inside their bands", len(claims)],
        ["rows of published beside measured", len(lines)],
        ["… compared", compared_with],
        *([f"… {kind}", n] for kind, n in kinds.items()),
    ]
    return table(["the ledger", "number"], rows)


def mutants(path: Path) -> str:
    """How many planted bugs some check noticed."""
    if not path.exists():
        return "No bugs were planted yet (`make mutants` does that).\n"
    with path.open(encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    killed = sum(r["noticed by"] != "survived" for r in rows)
    return f"Of {len(rows)} planted bugs, {killed} were noticed by a test: {{doc}}`mutants`.\n"


class Status(SphinxDirective):
    """Run time and memory, versions, date, totals of the ledger, planted bugs, benchmarks."""

    def run(self):
        self.env.note_reread()
        root = Path(self.env.app.srcdir)
        bench = root / "_build" / "bench.txt"
        versions = [["Python", platform.python_version()]]
        versions += [[name, importlib.metadata.version(name)] for name in PACKAGES]
        built = {d for d in self.env.found_docs if d.startswith("book/")}
        own = {c: v for c, v in self.env.app.claims.items() if f"book/{v['chapter']}" in built}
        tables = {c: t for c, t in compared(root / "book").items() if f"book/{c}" in built}
        text = [
            f"Built on {datetime.date.today():%-d %B %Y}, {platform.machine()}.\n",
            "**Chapters**\n\n" + costs(root / "_build" / "budget.json", built),
            "**Claims and published numbers**\n\n" + ledger(own, tables),
            "**Planted bugs**\n\n" + mutants(root / "book/appendix/mutants.csv"),
            "**Versions**\n\n" + table(["package", "version"], versions),
            "**Benchmarks**\n\n"
            + (
                f"```text\n{bench.read_text().strip()}\n```\n"
                if bench.exists()
                else "Not run in this build (`make bench` does that, in five minutes).\n"
            ),
        ]
        return self.parse_text_to_nodes("\n".join(text))


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("status", Status)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
