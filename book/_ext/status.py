"""The directives ``status`` and ``mutants``: what the last build took and found. Nothing is typed.

They read what ``make book`` leaves in _build/budget.json, and what ``make bench``, ``make mutants``
and ``make reseed`` leave in book/appendix/*.csv, and say so where one of them has not been run.
"""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import json
import platform
import re
import tomllib
from pathlib import Path

from claims import compared
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WAITS = "not run yet"  # in place of what noticed a bug
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
    words = {
        "not available": r"not (available|found)",
        "not reproduced": "not reproduced",
        "not run": r"not (re)?run",
    }
    kinds = dict.fromkeys(words, 0)
    for line in lines:
        kind = next((k for k, word in words.items() if re.search(rf"\b{word}\b", line)), None)
        if kind:
            kinds[kind] += 1
    compared_with = len(lines) - sum(kinds.values())
    rows = [
        ["claims about our own experiments, all inside their bands", len(claims)],
        ["rows of published beside measured", len(lines)],
        ["… reproduced, or compared as far as the row says", compared_with],
        *([f"… {kind}", n] for kind, n in kinds.items()),
    ]
    return table(["the ledger", "number"], rows)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table of ours; none where it has not been written."""
    if not path.exists():
        return []
    with path.open(encoding="utf8") as file:
        return list(csv.DictReader(file))


def mutants(path: Path) -> str:
    """How many planted bugs some check noticed."""
    rows = read(path)
    if not rows:
        return "No bugs were planted yet (`make mutants` does that).\n"
    ran = [r for r in rows if r["noticed by"] != WAITS]
    killed, wait = sum(r["noticed by"] != "survived" for r in ran), len(rows) - len(ran)
    return (
        f"Of {len(ran)} planted bugs, {killed} ({100 * killed / max(len(ran), 1):.0f} %) were "
        f"noticed by a test or a claim; {wait} more are listed and not yet planted: "
        "{doc}`mutants`.\n"
    )


def planted(rows: list[dict[str, str]], bugs: list[dict]) -> str:
    """Every planted bug, where it was and what noticed it; then those that survived, and why."""
    if not rows:
        return "No bugs were planted yet (`make mutants` does that).\n"

    def short(check: str) -> str:
        file, _, test = check.partition("::")
        return f"`{Path(file).name}`: {test.replace('_', ' ')}" if test else check

    listed, rows = rows, [r for r in rows if r["noticed by"] != WAITS]
    lived = [r["planted bug"] for r in rows if r["noticed by"] == "survived"]
    why = {b["name"]: b.get("why", "not understood yet") for b in bugs}
    places = {"in the library": "lib/", "in a chapter": "book/_text/"}
    count = {k: sum(r["in"].startswith(at) for r in rows) for k, at in places.items()}
    count["in tools, pages and runs"] = len(rows) - sum(count.values())
    file = {r["in"]: f"`{r['in'].removeprefix(places['in a chapter'])}`" for r in rows}
    lines = [[r["planted bug"], file[r["in"]], short(r["noticed by"])] for r in rows]
    return "\n".join(
        [
            table(["planted", "bugs"], [[k, n] for k, n in count.items()]),
            f"**{len(rows) - len(lived)} of {len(rows)} were noticed.** "
            + f"The list has {len(listed) - len(rows)} more, not yet planted. " * (listed != rows)
            + ("None survived.\n" if not lived else "Not noticed:\n"),
            *(f"- {name}: {why.get(name)}" for name in lived),
            "",
            table(["planted bug", "in", "noticed by"], lines).replace("---:", "---"),
        ]
    )


def seeds(rows: list[dict[str, str]], why: dict[str, str], built: set[str]) -> str:
    """What held with other random numbers, chapter by chapter, and what cannot hold and why."""
    rows = [r for r in rows if f"book/{r['chapter']}" in built]
    if not rows:
        return "Not tried yet (`make reseed SEED=1` does that).\n"
    lines, known, lucky = [], {}, []
    for r in rows:
        failed = [item.partition(": ")[0] for item in r["not held"].split(" | ") if item]
        for f in failed:
            key = f if f in why else f"{r['chapter']} {f}"
            known |= {key: why[key]} if key in why else {}
            lucky += [] if key in why else [f"{f} (seed {r['seed']})"]
        lines.append([f"{{doc}}`/book/{r['chapter']}`", r["seed"], r["claims"], r["held"]])
    total = [sum(int(r[k]) for r in rows) for k in ("claims", "held")]
    lines.append(["**all**", "", *(f"**{n}**" for n in total)])
    out = [table(["chapter", "other seed", "claims", "held"], lines)]
    if known:
        out += ["Cannot hold, or holds at the chapter's own seeds only:\n"]
        out += [f"- {key}: {known[key]}" for key in sorted(known)]
    if lucky:
        out += ["", "Fails with other seeds: " + ", ".join(lucky) + "."]
    return "\n".join([*out, ""])


def bench(rows: list[dict[str, str]]) -> str:
    """Measured ratios beside the bars they are held to."""
    if not rows:
        return "Not run yet (`make bench` does that, in five minutes).\n"
    lines = [[r["benchmark"], r["ratio"], r["bar"], r["met"]] for r in rows]
    when = sorted({f"{r['date']}, {r['machine']}" for r in rows})
    return table(["ratio of processor times", "measured", "bar", "met"], lines) + (
        f"\nMeasured on {'; '.join(when)}.\n"
    )


class Status(SphinxDirective):
    """Run time and memory, versions, date, totals of the ledger, planted bugs, benchmarks."""

    def run(self):
        self.env.note_reread()
        root = Path(self.env.app.srcdir)
        home = root / "book" / "appendix"
        versions = [["Python", platform.python_version()]]
        versions += [[name, importlib.metadata.version(name)] for name in PACKAGES]
        built = {d for d in self.env.found_docs if d.startswith("book/")}
        own = {c: v for c, v in self.env.app.claims.items() if f"book/{v['chapter']}" in built}
        tables = {c: t for c, t in compared(root / "book").items() if f"book/{c}" in built}
        why = tomllib.loads((root / "tools/reseed.toml").read_text(encoding="utf8"))
        text = [
            f"Built on {datetime.date.today():%-d %B %Y}, {platform.machine()}.\n",
            "**Chapters**\n\n" + costs(root / "_build" / "budget.json", built),
            "**Claims and published numbers**\n\n" + ledger(own, tables),
            "**Planted bugs**\n\n" + mutants(home / "mutants.csv"),
            "**Other seeds**\n\n" + seeds(read(home / "reseed.csv"), why, built),
            "**Benchmarks**\n\n" + bench(read(home / "bench.csv")),
            "**Versions**\n\n" + table(["package", "version"], versions),
        ]
        return self.parse_text_to_nodes("\n".join(text))


class Mutants(SphinxDirective):
    """The table of planted bugs."""

    def run(self):
        self.env.note_reread()
        root = Path(self.env.app.srcdir)
        bugs = tomllib.loads((root / "tools/mutants.toml").read_text(encoding="utf8"))["bug"]
        rows = read(root / "book/appendix/mutants.csv")
        return self.parse_text_to_nodes(planted(rows, bugs))


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("status", Status)
    app.add_directive("mutants", Mutants)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
