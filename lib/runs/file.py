"""What an experiment is: the file book/runs/NAME.toml, checked before anything runs."""

from __future__ import annotations

import difflib
import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lib import data, losses, nets, rules

Kind = tuple[str, Callable[[Any], bool]]
Table = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "book" / "runs"
NETS = {"mlp": nets.mlp, "convnet": nets.convnet, "residual_mlp": nets.residual_mlp}
OPTIMIZERS = {
    "SGD": (torch.optim.SGD, ("lr", "momentum", "weight_decay")),
    "Adam": (torch.optim.Adam, ("lr", "weight_decay")),
    "AdamW": (torch.optim.AdamW, ("lr", "weight_decay")),
}
TAGS = ("TEXT", "FIG", "CODE", "2nd", "none")


def _number(v: Any) -> bool:
    return type(v) in (int, float) and abs(v) < float("inf")


def _seeds(v: Any) -> bool:
    whole = isinstance(v, list) and all(type(s) is int and s >= 0 for s in v)
    return whole and len(v) == len(set(v)) > 0


def _one_of(names: Any) -> Kind:
    return f"one of {', '.join(names)}", lambda v: v in list(names)


TEXT: Kind = ("a text", lambda v: isinstance(v, str) and bool(v.strip()))
WHOLE: Kind = ("a whole number of 1 or more", lambda v: type(v) is int and v >= 1)
RATE: Kind = ("a number above 0", lambda v: _number(v) and v > 0)
DECAY: Kind = ("a number of 0 or more", lambda v: _number(v) and v >= 0)
MOMENTUM: Kind = ("a number from 0 to below 1", lambda v: _number(v) and 0 <= v < 1)
SEEDS: Kind = ("a list of different whole numbers of 0 or more", _seeds)
SEED: Kind = ("a whole number of 0 or more", lambda v: type(v) is int and v >= 0)
TABLE: Kind = ("a table", lambda v: isinstance(v, dict) and bool(v))
TABLES: Kind = ("a list of tables", lambda v: isinstance(v, list) and all(map(TABLE[1], v)))
NAMES: Kind = ("a list of texts", lambda v: isinstance(v, list) and all(map(TEXT[1], v)))
VALUE: Kind = ("a number or a text", lambda v: _number(v) or TEXT[1](v))

ABOUT = {"title": TEXT, "note": TEXT, "published": TABLES}  # changes no number of the result
SCRIPT = ABOUT | {"script": TEXT, "data": NAMES}
TRAINING = ABOUT | {
    "data": TABLE,
    "net": TABLE,
    "arms": TABLE,
    "seeds": SEEDS,
    "batch_size": WHOLE,
    "epochs": WHOLE,
    "angles": WHOLE,
    "loss": _one_of(losses.NAMES),
    "dtype": _one_of(("float32", "float64")),
}
PUBLISHED = {
    "what": TEXT,
    "value": VALUE,
    "cite": TEXT,
    "tag": _one_of(TAGS),
    "column": TEXT,
    "where": TABLE,
}
ARM = {
    "rule": _one_of(rules.names()),
    "optimizer": _one_of(OPTIMIZERS),
    "lr": RATE,
    "momentum": MOMENTUM,
    "weight_decay": DECAY,
    "options": TABLE,
    "source": TEXT,
}
DEFAULTS = {"angles": 500, "dtype": "float32"}


@dataclass(frozen=True)
class Run:
    """One experiment, as its file describes it.

    ``settings`` is what its numbers depend on (defaults filled in, texts left out); ``about`` the
    rest. ``folder`` holds the stored result, ``work`` what is unfinished (never tracked by git).
    """

    path: Path
    settings: Table
    about: Table

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def shown(self) -> str:
        """The file as a reader of the repository would write it."""
        inside = self.path.is_relative_to(ROOT)
        return self.path.relative_to(ROOT).as_posix() if inside else self.path.name

    @property
    def shown_folder(self) -> str:
        return self.shown.removesuffix(".toml")

    @property
    def folder(self) -> Path:
        return self.path.with_suffix("")

    @property
    def work(self) -> Path:
        top = self.path.parent
        return (top.parents[1] if top.parts[-2:] == ("book", "runs") else top) / (
            f"_build/runs/{self.name}"
        )

    @property
    def script(self) -> Path | None:
        file = self.settings.get("script")
        return self.folder / file if file else None


def find(name: str | Path) -> Path:
    """The file of a run by its name (book/runs/NAME.toml) or path; FileNotFoundError if none."""
    text = str(name)
    path = Path(text) if text.endswith(".toml") else HOME / f"{text}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in HOME.glob("*.toml")))
        raise FileNotFoundError(f"there is no {path}; stored runs: {known}")
    return path.resolve()


def _check(table: Mapping, kinds: Mapping[str, Kind], needed: str, where: str) -> None:
    """Raise one ValueError for a key that is not known, missing or of another kind."""
    for key, value in table.items():
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{where}: unknown key {key!r}; {hint}allowed: {', '.join(kinds)}")
        words, fits = kinds[key]
        if not fits(value):
            raise ValueError(f"{where}: {key} must be {words}, found {value!r}")
    missing = [key for key in needed.split() if key not in table]
    if missing:
        raise ValueError(f"{where}: the key {missing[0]!r} is missing")


def _named(table: Table, key: str, made: Mapping[str, Callable], where: str, **more: Kind) -> None:
    """``table[key]`` names one of ``made``; the other keys are its arguments, or in ``more``."""
    name = table.get(key)
    if name not in list(made):
        raise ValueError(f"{where}: {key} must be one of {', '.join(made)}, found {name!r}")
    kinds = _arguments(made[name]) | {key: TEXT} | more
    _check(table, kinds, "", where)


def _arguments(made: Callable) -> dict[str, Kind]:
    """The arguments a file may give; networks, generators and types are the runner's business."""
    names = [n for n in inspect.signature(made).parameters if n not in ("net", "rng", "dtype")]
    return dict.fromkeys(names, ("anything", lambda v: True))


def read(path: str | Path) -> Run:
    """Read and check a run's file.

    Raises FileNotFoundError for a file that is not there, ValueError (naming the file, the key
    and what is allowed) for anything in it that cannot be run.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: expected a run's file, book/runs/NAME.toml")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path.name} is not valid TOML: {e}") from None
    if "script" in table:
        _check(table, SCRIPT, "title script", path.name)
        if not (path.with_suffix("") / table["script"]).is_file():
            raise ValueError(f"{path.name}: script: no {table['script']} in {path.stem}/")
    else:
        _training(table, path.name)
    for index, entry in enumerate(table.get("published", [])):
        _check(entry, PUBLISHED, "what value cite tag", f"{path.name} [[published]] {index + 1}")
    about = {key: table.pop(key) for key in ABOUT if key in table}
    if "script" not in table:
        table = DEFAULTS | table
        about["sources"] = {name: arm.pop("source") for name, arm in table["arms"].items()}
    return Run(path, table, about)


def _training(table: Table, file: str) -> None:
    """Check a run that trains nets."""
    _check(table, TRAINING, "title data net seeds batch_size epochs arms", file)
    made = data.MAKERS.get(str(table["data"].get("name")))
    more = {"seed": SEED} if made and "rng" in inspect.signature(made).parameters else {}
    _named(table["data"], "name", data.MAKERS, f"{file} [data]", held_out=WHOLE, **more)
    _named(table["net"], "kind", NETS, f"{file} [net]")
    for name, arm in table["arms"].items():
        where = f"{file} [arms.{name}]"
        if not re.fullmatch(r"[\w .-]+", name):
            raise ValueError(f"{where}: an arm's name has letters, digits, spaces, . and - only")
        if not isinstance(arm, dict):
            raise ValueError(f"{where}: expected a table, found {arm!r}")
        _check(arm, ARM, "rule lr source", where)
        taken = OPTIMIZERS[arm.setdefault("optimizer", "SGD")][1]
        known = {k: v for k, v in ARM.items() if k not in ("momentum", "lr", "weight_decay")}
        _check(arm, known | {k: ARM[k] for k in taken}, "", where)
        options = _arguments(rules.get(arm["rule"]))
        _check(arm.get("options", {}), options, "", f"{where} options")
