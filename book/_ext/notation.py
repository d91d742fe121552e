"""The directive ``arguments``: every argument of `lib`, what it means, and where it is used.

Meanings stand in arguments.txt, one line each: ``name | unit or range | meaning``, under a
heading. ``module:name`` is what the name means in that module, where it means something else.
Where a name is used is read off the library.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import NamedTuple

from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

MEANINGS = Path(__file__).with_name("arguments.txt")
SHOWN = 3  # uses named in a row; the others are counted


class Meaning(NamedTuple):
    """One line of arguments.txt: name as it stands in signatures, where, unit, meaning."""

    group: str
    module: str
    name: str
    unit: str
    text: str


def meanings(text: str) -> list[Meaning]:
    """The lines of arguments.txt. ValueError for one without three parts."""
    found, group = [], ""
    for line in filter(None, text.splitlines()):
        if line.startswith("# "):
            group = line[2:]
            continue
        key, *rest = (part.strip() for part in line.split("|", 2))
        if len(rest) != 2:
            raise ValueError(f"expected 'name | unit | meaning', found {line!r}")
        module, _, name = key.rpartition(":")
        found.append(Meaning(group, module, name, *rest))
    return found


def uses() -> list[tuple[str, str]]:
    """(argument, where) of every public function, method and class of lib, sorted."""
    import lib

    found = set()
    for info in pkgutil.walk_packages(lib.__path__, "lib."):
        module = importlib.import_module(info.name)
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != info.name:
                continue
            calls = {name: thing} if inspect.isfunction(thing) else {}
            if inspect.isclass(thing):
                methods = {k: f for k, f in vars(thing).items() if inspect.isfunction(f)}
                calls = {f"{name}.{k}": f for k, f in methods.items() if k[0] != "_"}
                calls[name] = thing.__init__
            for place, call in calls.items():
                for argument in list(inspect.signature(call).parameters):
                    if argument not in ("self", "cls", "args", "kwargs"):
                        found.add((argument, f"{info.name.removeprefix('lib.')}.{place}"))
    return sorted(found)


def meaning_of(argument: str, where: str, known: list[Meaning]) -> Meaning | None:
    """The line that says what an argument means there: that of the nearest module, or None."""
    fits = [
        m
        for m in known
        if m.name == argument and (not m.module or f"{where}.".startswith(f"{m.module}."))
    ]
    return max(fits, key=lambda m: len(m.module), default=None)


def table(group: str, known: list[Meaning], places: dict[Meaning, list[str]]) -> list[str]:
    """One group as a Markdown table."""
    lines = ["| argument | what it is | where |", "|---|---|---|"]
    for m in known:
        if m.group == group:
            where = [f"`{place}`" for place in places[m][:SHOWN]]
            more = len(places[m]) - SHOWN
            where += [f"{more} more"] if more > 0 else []
            unit = f" ({m.unit})" if m.unit else ""
            lines.append(f"| `{m.name}` | {m.text}{unit} | {', '.join(where)} |")
    return lines


class Arguments(SphinxDirective):
    """One table for each heading of arguments.txt."""

    def run(self):
        self.env.note_dependency(str(MEANINGS))
        self.env.note_reread()
        known = meanings(MEANINGS.read_text(encoding="utf8"))
        places: dict[Meaning, list[str]] = {m: [] for m in known}
        for argument, where in uses():
            if m := meaning_of(argument, where, known):
                places[m].append(where)
        lines: list[str] = []
        for group in dict.fromkeys(m.group for m in known):
            lines += ["", f"**{group}**", "", *table(group, known, places)]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("arguments", Arguments)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
