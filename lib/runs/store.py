"""What is stored of an experiment, and how it is written: all of it or nothing."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lib.data import Data
from lib.runs import file

Row = dict[str, str]


@dataclass(frozen=True)
class Result:
    """A stored result: its rows as written, all texts, and where they come from."""

    rows: tuple[Row, ...]
    provenance: dict[str, Any]

    def where(self, **wanted: object) -> list[Row]:
        """The rows whose columns hold these values, in order. ValueError for no such column."""
        odd = [name for name in wanted if name not in self.rows[0]]
        if odd:
            raise ValueError(f"no column {odd[0]!r}; there are {', '.join(self.rows[0])}")
        texts = {name: str(value) for name, value in wanted.items()}
        return [row for row in self.rows if all(row[n] == t for n, t in texts.items())]

    def column(self, name: str, **wanted: object) -> np.ndarray:
        """One column of ``where(**wanted)`` as float64; an empty cell is nan."""
        self.where(**{name: ""})
        return np.array([float(row[name] or "nan") for row in self.where(**wanted)])


def load(name: str | Path) -> Result:
    """The stored result of a run, by name (book/runs/NAME.toml) or by its file.

    Raises FileNotFoundError where there is none, ValueError where the run's file has changed
    since, or the result is not the one that was written.
    """
    run = file.read(file.find(name))
    table, about = run.folder / "results.csv", run.folder / "provenance.json"
    if not (table.is_file() and about.is_file()):
        raise FileNotFoundError(
            f"{run.name} has no stored result: python -m lib.runs run {run.shown} makes it"
        )
    text = table.read_bytes()
    try:
        made = json.loads(about.read_bytes())
    except ValueError as e:
        raise ValueError(
            f"{about} is damaged ({e}): restore it, or move the folder's results away and run again"
        ) from e
    same_settings(made["settings"], run.settings, f"the stored result of {run.name}", run.folder)
    if sha256(text) != made["results_sha256"]:
        raise ValueError(
            f"{table} is not the file that {about.name} describes: results are never edited; "
            "restore both, or move the folder's results away and run again"
        )
    return Result(tuple(csv.DictReader(io.StringIO(text.decode(), newline=""))), made)


def script(name: str | Path) -> SimpleNamespace:
    """What a run's script defines, by name. ValueError for a run without a script."""
    run = file.read(file.find(name))
    if run.script is None:
        raise ValueError(f"{run.name} has no script: {run.shown} says it all")
    return SimpleNamespace(**runpy.run_path(str(run.script)))


def same_settings(old: dict, new: dict, what: str, folder: Path) -> None:
    """Raise ValueError naming what differs between two settings."""

    def flat(d: Any, at: str = "") -> dict[str, Any]:
        if not isinstance(d, dict):
            return {at: d}
        return {k: v for key, x in d.items() for k, v in flat(x, f"{at}.{key}".strip(".")).items()}

    a, b = flat(old), flat(new)
    differ = [k for k in {**a, **b} if a.get(k) != b.get(k)]
    if differ:
        words = "; ".join(f"{k}: {a.get(k)} there, {b.get(k)} now" for k in differ[:4])
        raise ValueError(
            f"{what} was made with other settings ({words}): restore the file, or move away what "
            f"is in {folder}"
        )


def write(path: Path, content: bytes) -> None:
    """All of it or nothing, also when the power fails: a temporary name, then renamed."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    except BaseException as e:
        part.unlink(missing_ok=True)
        if isinstance(e, OSError):
            e.filename = str(path)  # a full disk does not say of what
        raise


def seal(content: bytes) -> bytes:
    """Content behind its own SHA-256: one changed bit of a kept state would change the result."""
    return f"sha256 {sha256(content)}\n".encode() + content


def unseal(path: Path) -> bytes:
    """What was sealed and written to a file. ValueError where that is not what it holds."""
    content = path.read_bytes()
    head, _, rest = content.partition(b"\n")
    if not head.startswith(b"sha256 "):  # written before states were sealed
        return content
    if head != f"sha256 {sha256(rest)}".encode():
        raise ValueError("its SHA-256 is not the one it was written with")
    return rest


def as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def as_table(rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    out = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    return text.getvalue().encode()


def as_text(value: Any) -> str:
    """As it is stored: six digits, nothing for nan."""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lib_sha256() -> str:
    """The SHA-256 of the library's source."""
    digest, home = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(home.rglob("*.py")):
        digest.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def data_sha256(d: Data) -> str:
    """The SHA-256 of a data set, to four decimals: what rounding differs by does not count."""
    digest = hashlib.sha256()
    for t in (d.x_train, d.y_train, d.x_test, d.y_test):
        whole = np.rint(t.cpu().numpy() * 1e4) if t.is_floating_point() else t.cpu().numpy()
        digest.update(str(tuple(t.shape)).encode())
        digest.update(np.ascontiguousarray(whole, dtype=np.int64))
    return digest.hexdigest()
