"""An experiment with a script of its own: jobs, and a plan that asks for them."""

from __future__ import annotations

import json
import runpy
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

from lib import data
from lib.runs.crew import Crew
from lib.runs.file import Run
from lib.runs.store import Row, as_json, as_text, data_sha256, seal, sha256, unseal, write


class Jobs:
    """The jobs of a script: what is done, and ``get``, which does what is not.

    The script defines COLUMNS (names), KEY (how many of them name a job), ``job(*key)`` (the other
    columns as a dict; a list of dicts if MANY is set) and ``plan(get)``, which asks for every job
    and may look at rows to decide what to ask next. Optional: ``same(stored, again)``, whether a
    recomputed row agrees (by default: every number within a thousandth), and ``first(*key)``, some
    columns of a long job's row from its beginning, for ``verify``. A column named seconds is
    filled in with the job's process time. Raises ValueError for a script that lacks something.
    """

    def __init__(self, it: Run, rows: Sequence[Row], keep: Path | None, off: bool | None = True):
        module = runpy.run_path(str(it.script))
        for name in ("COLUMNS", "KEY", "job", "plan"):
            if name not in module:
                raise ValueError(
                    f"{it.script}: a run's script defines COLUMNS, KEY, job and plan; "
                    f"{name} is missing"
                )
        self.it, self.module, self.keep = it, SimpleNamespace(**module), keep
        self.columns, self.many = list(self.module.COLUMNS), module.get("MANY", False)
        self.done: dict[tuple, list[Row]] = {}
        self.took: dict[tuple, float] = {}  # process time of the jobs done, in s
        self.asked: dict[tuple, tuple] = {}
        for row in rows:
            self.done.setdefault(self.name(row), []).append(row)
        if keep is not None and keep.exists():
            try:
                kept = json.loads(unseal(keep))
            except ValueError as e:
                words = f"{keep} is damaged ({e}): delete it, and its jobs are redone"
                raise ValueError(words) from e
            for k, v, took in kept:
                self.done[tuple(k)], self.took[tuple(k)] = v, took
        self.bar = tqdm(unit="job", disable=off, desc=it.name, initial=len(self.done))

    def name(self, row: Row) -> tuple[str, ...]:
        return tuple(row[c] for c in self.columns[: self.module.KEY])

    def get(self, *key: object) -> Any:
        """The row of a job (its rows, if MANY), from the store or done now."""
        name = tuple(as_text(k) for k in key)
        if len(name) != self.module.KEY:
            raise ValueError(f"{self.it.script}: a key has {self.module.KEY} parts, found {key}")
        self.asked[name] = key
        if name not in self.done:
            if self.keep is None:
                raise KeyError(name)
            began = time.process_time()
            self.done[name] = self.make(*key)
            self.took[name] = round(time.process_time() - began, 2)
            kept = [[k, v, self.took[k]] for k, v in self.done.items()]
            write(self.keep, seal(as_json(kept)))
            self.bar.update()
            self.bar.set_postfix_str(" ".join(name))
        rows = self.done[name]
        return rows if self.many else rows[0]

    def make(self, *key: object) -> list[Row]:
        """Do a job; ValueError where its columns are not those announced."""
        began = time.process_time()
        made = self.module.job(*key)
        took = {"seconds": f"{time.process_time() - began:.2f}"}
        head, rows = dict(zip(self.columns, map(as_text, key), strict=False)), []
        for row in made if self.many else [made]:
            row = took | head | {name: as_text(value) for name, value in row.items()}
            if not set(self.columns) <= set(row) <= {*self.columns, "seconds"}:
                raise ValueError(f"{self.it.script}: job gave {list(row)}, COLUMNS {self.columns}")
            rows.append({name: row[name] for name in self.columns})
        return rows

    def begin(self, *key: object) -> list[Row]:
        """What the script's ``first`` says of a job's first rows."""
        made = self.module.first(*key)
        return [{n: as_text(v) for n, v in r.items()} for r in (made if self.many else [made])]

    def rows(self) -> list[Row]:
        """Everything asked for, in the plan's order."""
        return [row for name in self.asked for row in self.done[name]]


def do(it: Run, c: Crew, off: bool | None) -> tuple[list[Row], dict]:
    """Carry out a script's plan: its rows in the plan's order, and what they depend on."""
    if c.size > 1 or c.device != "cpu":
        raise ValueError(f"{it.name} has a script: it runs as one process, on the CPU")
    jobs = Jobs(it, [], it.work / "rows.json", off)
    jobs.module.plan(jobs.get)
    jobs.bar.close()
    about = {"data_sha256": {n: data_sha256(data.load(n)) for n in it.settings.get("data", [])}}
    about["seconds"] = sum(jobs.took[name] for name in jobs.asked)
    return jobs.rows(), about | {"script_sha256": sha256(it.script.read_bytes())}
