"""Long experiments: run one, stop and continue it, store, show and verify its result.

    python -m lib.runs run book/runs/NAME.toml [--device cuda] [--spread seeds]
    python -m lib.runs list                 what is stored
    python -m lib.runs show NAME            measured beside published
    python -m lib.runs verify [NAME ...]    recompute a part, compare it with what is stored

A result is book/runs/NAME/results.csv with provenance.json beside it, written when all is done.
Until then what is done lies in _build/runs/NAME: stop at any moment, a kill included, and the
same command goes on with the same rows. Under ``torchrun`` batches are split over the processes,
or with ``--spread seeds`` the seeds.
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import runpy
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from lib import data, measure, nets, runfile, train
from lib.crew import SPLITS, Crew, Shards, crew
from lib.data import Data
from lib.rules import Backprop, Rule
from lib.runfile import Run

Rng = np.random.Generator
Row = dict[str, str]
LONG = 40.0  # seconds that verifying one run may take, as its stored seconds let expect
SPARE = 50_000_000  # bytes that must be free besides what a run writes


# --- what is stored


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
    run = runfile.read(runfile.find(name))
    table, about = run.folder / "results.csv", run.folder / "provenance.json"
    if not (table.is_file() and about.is_file()):
        raise FileNotFoundError(
            f"{run.name} has no stored result: python -m lib.runs run {run.shown} makes it"
        )
    text, made = table.read_bytes(), json.loads(about.read_text(encoding="utf-8"))
    _same(made["settings"], run.settings, f"the stored result of {run.name}", run.folder)
    if _sha256(text) != made["results_sha256"]:
        raise ValueError(
            f"{table} is not the file that {about.name} describes: results are never edited; "
            "restore both, or move the folder's results away and run again"
        )
    return Result(tuple(csv.DictReader(io.StringIO(text.decode(), newline=""))), made)


def script(name: str | Path) -> SimpleNamespace:
    """What a run's script defines, by name. ValueError for a run without a script."""
    run = runfile.read(runfile.find(name))
    if run.script is None:
        raise ValueError(f"{run.name} has no script: {run.shown} says it all")
    return SimpleNamespace(**runpy.run_path(str(run.script)))


def _same(old: dict, new: dict, what: str, folder: Path) -> None:
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


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, also when the power fails: a temporary name, then renamed."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _table(rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    out = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    return text.getvalue().encode()


def _text(value: Any) -> str:
    """As it is stored: six digits, nothing for nan."""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lib_sha256() -> str:
    """The SHA-256 of the library's source."""
    digest, home = hashlib.sha256(), Path(__file__).parent
    for path in sorted(home.rglob("*.py")):
        digest.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def data_sha256(d: Data) -> str:
    """The SHA-256 of a data set, to four decimals: what rounding differs by does not count."""
    digest = hashlib.sha256()
    for t in (d.x_train, d.y_train, d.x_test, d.y_test):
        whole = np.rint(t.cpu().numpy() * 1e4) if t.is_floating_point() else t.cpu().numpy()
        digest.update(str(tuple(t.shape)).encode() + whole.astype(np.int64).tobytes())
    return digest.hexdigest()


# --- running


def run(
    path: str | Path,
    *,
    device: str = "cpu",
    spread: bool = False,
    progress: bool | None = None,
) -> Path:
    """Do what a run's file says, or go on with it; returns the path of results.csv.

    ``device``: cpu or cuda. ``spread``: under torchrun, seeds over processes instead of batches.
    ``progress``: True shows a bar, False none, None only at a terminal. A result that is complete
    is left as it is. Raises ValueError for a file that cannot be run, other settings than those
    of what is stored, or another process at work; OSError, before anything is trained, where
    there is no room or no leave to write.
    """
    it = runfile.read(path)
    with crew(device, spread) as c:
        if c.tell(_complete(it)):
            if c.rank == 0:
                load(it.path)  # refuses what does not belong to the file
                print(f"{it.name} is complete, nothing to do: {it.shown_folder}/results.csv")
            return it.folder / "results.csv"
        with _writing(it) if c.rank == 0 else nullcontext({}) as begun:
            c.tell(None)  # the others wait until rank 0 knows that it may write
            off = True if c.rank else None if progress is None else not progress
            rows, about = (_jobs if it.script else _train)(it, c, off)
            if c.rank == 0:
                more = {"processes": c.size, "spread": spread, "device": device}
                _publish(it, rows, {**begun, **about, **more})
    return it.folder / "results.csv"


def _complete(it: Run) -> bool:
    return all((it.folder / name).is_file() for name in ("results.csv", "provenance.json"))


@contextmanager
def _writing(it: Run) -> Iterator[dict]:
    """Alone at this result, with leave and room to write it; what is known before it begins."""
    import fcntl

    size = 0
    if not it.script:  # a checkpoint holds weights and an optimizer's two copies; old and new one
        for arm in it.settings["arms"]:
            net, rule, _ = runfile.build(it, arm, it.settings["seeds"][0])
            params = [*net.parameters(), *rule.parameters()]
            size = max(size, 6 * sum(p.numel() * p.element_size() for p in params))
    for folder in (it.folder, it.work):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / ".try", b"")
            (folder / ".try").unlink()
        except OSError as e:
            raise OSError(f"cannot write in {folder} ({e.strerror}); nothing was run") from e
        free = shutil.disk_usage(folder).free
        if free < size + SPARE:
            need = f"{(size + SPARE) / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB free"
            raise OSError(f"the disk of {folder} is full: {need}; nothing was run")
    with open(it.work.with_suffix(".lock"), "a+") as lock:
        try:  # the system lets go of it when its process ends, however it ends
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            who = f"process {lock.read()} is at work on {it.name}"
            raise ValueError(f"{who}: wait for it, or stop it") from None
        if _complete(it):
            raise ValueError(f"another process has just completed {it.name}")
        it.work.mkdir(exist_ok=True)
        lock.truncate(0)
        lock.write(f"{os.getpid()}")
        lock.flush()
        yield _begin(it)


def _begin(it: Run) -> dict:
    """Note in the work folder what is being run; refuse to go on with something else."""
    path, settings = it.work / "begun.json", it.settings
    if it.script:
        settings = settings | {"script_sha256": _sha256(it.script.read_bytes())}
    begun = {"settings": settings, "lib_sha256": []}
    if path.exists():
        begun = json.loads(path.read_text())
        _same(begun["settings"], settings, f"the unfinished run of {it.name}", it.work)
    if lib_sha256() not in begun["lib_sha256"]:  # more than one if the library changed on the way
        begun["lib_sha256"].append(lib_sha256())
    _write(path, _json(begun))
    return {"settings": it.settings, "lib_sha256": begun["lib_sha256"]}


def _publish(it: Run, rows: list[Row], about: dict) -> None:
    """The result, then its provenance, then the unfinished work goes."""
    table = _table(rows)
    seconds = sum(float(row.get("seconds") or 0) for row in rows)
    packages = ("numpy", "torch", "scipy", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in packages}
    made = {
        "command": f"python -m lib.runs run {it.shown}",
        "rows": len(rows),
        "seconds": round(seconds),
        "results_sha256": _sha256(table),
        **about,
        "versions": {"python": platform.python_version(), **versions},
        "machine": {"cpu": platform.machine(), "threads": torch.get_num_threads()},
    }
    _write(it.folder / "results.csv", table)
    _write(it.folder / "provenance.json", _json(made))
    shutil.rmtree(it.work)
    print(f"{it.name} is complete: {len(rows)} rows in {it.shown_folder}/results.csv")


# --- a run that trains nets


def _train(it: Run, c: Crew, off: bool | None) -> tuple[list[Row], dict]:
    s, d = it.settings, _ready(it, c)
    units = [(arm, seed) for arm in s["arms"] for seed in s["seeds"]]
    mine = [(a, z) for a, z in units if not c.spread or s["seeds"].index(z) % c.size == c.rank]
    bar = tqdm(total=len(mine) * (s["epochs"] + 1), unit="epoch", disable=off)
    rows: dict[tuple, list[Row]] = {}
    it.work.mkdir(parents=True, exist_ok=True)  # each machine has its own, unless they share disks
    for arm, seed in mine:
        keep = it.work / f"{arm} {seed}.pt"
        rows[arm, seed] = train_one(it, arm, seed, d, epochs=s["epochs"], c=c, keep=keep, bar=bar)
    bar.close()
    for part in c.gather(rows) if c.spread else [rows]:
        rows |= part
    about = {"data_sha256": {s["data"]["name"]: data_sha256(d)}}
    return [row for unit in units for row in rows[unit]], about


def _ready(it: Run, c: Crew) -> Data:
    """The data, on the device, after one step of every arm on two examples has shown it fits."""
    s, d = it.settings, runfile.load_data(it)
    if not 1 <= s["batch_size"] <= len(d.x_train):
        raise ValueError(f"{it.path.name}: batch_size must be at most {len(d.x_train)}")
    if c.size > s["batch_size"] and not c.spread:
        raise ValueError(f"a batch of {s['batch_size']} cannot be split over {c.size} processes")
    for arm, settings in s["arms"].items():
        if c.size > 1 and not c.spread and settings["rule"] not in SPLITS:
            raise ValueError(
                f"{it.path.name} [arms.{arm}]: batches cannot be split for {settings['rule']!r}, "
                f"only for {', '.join(SPLITS)}; give --spread seeds"
            )
        net, rule, _ = runfile.build(it, arm, s["seeds"][0])
        try:
            rule(net, d.x_train[:2], d.y_train[:2])
        except (ValueError, RuntimeError) as e:
            raise ValueError(f"{it.path.name} [net] does not fit [data]: {e}") from e
    parts = {n: getattr(d, n).to(c.device) for n in ("x_train", "y_train", "x_test", "y_test")}
    return replace(d, **parts)


def train_one(
    it: Run,
    arm: str,
    seed: int,
    d: Data,
    *,
    epochs: int,
    c: Crew,
    keep: Path | None = None,
    bar: tqdm | None = None,
) -> list[Row]:
    """Train one arm from one seed: a row before training and one after each epoch.

    Seeds: [seed, 0] draws the weights, [seed, 1] what the rule draws, [seed, 2] the order of the
    examples, so arms share weights and order. ``keep``: where the state after each epoch is
    written, and read from if it is there. A run that diverges ends with a row whose loss is inf.
    """
    s = it.settings
    net, rule, optimizer = runfile.build(it, arm, seed, c.device)
    split = c.size > 1 and not c.spread
    step = Shards(rule, c.rank, c.size) if split else rule
    order, rows = np.random.default_rng([seed, 2]), []
    writes = keep is not None and (c.rank == 0 or not split)
    state = _read(keep, s) if writes and keep.exists() else None
    state = c.tell(state) if split else state
    if state is not None:
        rows = state["rows"]
        if "net" in state:
            net.load_state_dict(state["net"])
            rule.load_state_dict(state["rule"])
            optimizer.load_state_dict(state["optimizer"])
            order.bit_generator.state = state["order"]
            for name, value in state["draws"].items():
                getattr(rule, name).bit_generator.state = value
            vars(rule).update(state["numbers"])
    if bar is not None:
        bar.set_description(f"{arm}, seed {seed}")
        bar.update(len(rows))
    some, columns = slice(s["angles"]), _columns(len(net.layers))
    while len(rows) <= epochs and not (rows and rows[-1]["train_loss"] == "inf"):
        epoch, began = len(rows), time.process_time()
        row = dict.fromkeys(columns, "") | {"arm": arm, "seed": seed, "epoch": epoch}
        try:
            past = train.fit(
                net,
                step,
                d,
                epochs=epoch,
                start=max(epoch - 1, 0),
                batch_size=s["batch_size"],
                optimizer=optimizer,
                rng=order,
                progress=False,
            )
            row |= past.rows[-1] | _angles(net, rule, d.x_train[some], d.y_train[some])
            row["weights"] = nets.fingerprint(net)
        except FloatingPointError:
            row["train_loss"] = np.inf
        row["seconds"] = round(time.process_time() - began, 3)
        rows.append({name: _text(value) for name, value in row.items()})
        if writes:
            state = {"settings": s, "rows": rows}
            if epoch < epochs:
                state |= _state(net, rule, optimizer, order)
            file = io.BytesIO()
            torch.save(state, file)
            _write(keep, file.getvalue())
        if bar is not None:
            bar.update()
            bar.set_postfix(error=rows[-1]["test_error"])
    return rows


def _columns(layers: int) -> list[str]:
    """A training run's columns; layers count from 0 as in lib.rules."""
    angles = [f"angle_{i}" for i in range(layers)] + [f"feedback_{i}" for i in range(1, layers)]
    scores = ["train_loss", "test_loss", "test_error"]
    return ["arm", "seed", "epoch", *scores, *angles, "weights", "seconds"]


def _angles(net: nets.Net, rule: Rule, x: Tensor, y: Tensor) -> dict[str, float]:
    """Per layer, in degrees: the rule's step to the gradient, and W to the feedback weights."""
    found = []
    for one in (copy.deepcopy(rule), Backprop(net, loss=rule.loss)):  # a copy: draws leave no mark
        one(net, x, y)
        found.append(measure.gradients(net))
    pairs = {f"angle_{i}": pair for i, pair in enumerate(zip(*found, strict=True))}
    for i, layer in enumerate(net.layers):
        back = rule.feedback(net, i) if i and hasattr(rule, "feedback") else None
        if back is not None and back.shape == layer.weight.shape:
            pairs[f"feedback_{i}"] = layer.weight, back
    out = {}
    for name, pair in pairs.items():
        try:
            out[name] = measure.angle(*pair)
        except ValueError:  # a vector of length 0 has no angle
            out[name] = np.nan
    return out


def _state(net: nets.Net, rule: Rule, optimizer: Optimizer, order: Rng) -> dict:
    """All that the next epoch depends on."""
    mine = {name: value for name, value in vars(rule).items() if not name.startswith("_")}
    return {
        "net": net.state_dict(),
        "rule": rule.state_dict(),
        "optimizer": optimizer.state_dict(),
        "order": order.bit_generator.state,
        "draws": {n: v.bit_generator.state for n, v in mine.items() if isinstance(v, Rng)},
        "numbers": {n: v for n, v in mine.items() if isinstance(v, int | float)},
    }


def _read(path: Path, settings: dict) -> dict:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise ValueError(f"{path} is damaged ({e}): delete it, and its epochs are redone") from e
    _same(state["settings"], settings, f"the state {path.name}", path.parent)
    return state


# --- a run with a script of its own


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
        self.asked: dict[tuple, tuple] = {}
        for row in rows:
            self.done.setdefault(self.name(row), []).append(row)
        if keep is not None and keep.exists():
            self.done |= {tuple(k): v for k, v in json.loads(keep.read_text())}
        self.bar = tqdm(unit="job", disable=off, desc=it.name, initial=len(self.done))

    def name(self, row: Row) -> tuple[str, ...]:
        return tuple(row[c] for c in self.columns[: self.module.KEY])

    def get(self, *key: object) -> Any:
        """The row of a job (its rows, if MANY), from the store or done now."""
        name = tuple(_text(k) for k in key)
        if len(name) != self.module.KEY:
            raise ValueError(f"{self.it.script}: a key has {self.module.KEY} parts, found {key}")
        self.asked[name] = key
        if name not in self.done:
            if self.keep is None:
                raise KeyError(name)
            self.done[name] = self.make(*key)
            _write(self.keep, _json(list(self.done.items())))
            self.bar.update()
            self.bar.set_postfix_str(" ".join(name))
        rows = self.done[name]
        return rows if self.many else rows[0]

    def make(self, *key: object) -> list[Row]:
        """Do a job; ValueError where its columns are not those announced."""
        began = time.process_time()
        made = self.module.job(*key)
        took = {"seconds": f"{time.process_time() - began:.2f}"}
        head, rows = dict(zip(self.columns, map(_text, key), strict=False)), []
        for row in made if self.many else [made]:
            row = took | head | {name: _text(value) for name, value in row.items()}
            if not set(self.columns) <= set(row) <= {*self.columns, "seconds"}:
                raise ValueError(f"{self.it.script}: job gave {list(row)}, COLUMNS {self.columns}")
            rows.append({name: row[name] for name in self.columns})
        return rows

    def rows(self) -> list[Row]:
        """Everything asked for, in the plan's order."""
        return [row for name in self.asked for row in self.done[name]]


def _jobs(it: Run, c: Crew, off: bool | None) -> tuple[list[Row], dict]:
    if c.size > 1 or c.device != "cpu":
        raise ValueError(f"{it.name} has a script: it runs as one process, on the CPU")
    jobs = Jobs(it, [], it.work / "rows.json", off)
    jobs.module.plan(jobs.get)
    jobs.bar.close()
    about = {"data_sha256": {n: data_sha256(data.load(n)) for n in it.settings.get("data", [])}}
    return jobs.rows(), about | {"script_sha256": _sha256(it.script.read_bytes())}


# --- comparing


def verify(name: str | Path) -> tuple[str, str]:
    """Recompute a part of a stored result: ("same", "differs" or "skipped", what was seen).

    A training run: the first epoch of the first seed, of as many arms as the stored seconds let
    expect within LONG; before training numbers agree to a thousandth, after it as one expects of
    another processor (see ``_near``). A script: a fixed sample of its cheap jobs. Skipped where
    data are neither on disk nor reachable.
    """
    it = runfile.read(runfile.find(name))
    try:
        stored = load(it.path)
        return (_verify_jobs if it.script else _verify_training)(it, stored)
    except FileNotFoundError as e:
        return "skipped", str(e).splitlines()[0]
    except ValueError as e:
        return "differs", str(e)


def _verify_training(it: Run, stored: Result) -> tuple[str, str]:
    s, d = it.settings, runfile.load_data(it)
    seed, spent, arms = s["seeds"][0], 0.0, []
    if data_sha256(d) != stored.provenance["data_sha256"][s["data"]["name"]]:
        return "differs", f"the data {s['data']['name']} are not those the result was made with"
    for arm, z in product(s["arms"], s["seeds"]):
        rows = stored.where(arm=arm, seed=z)
        if len(rows) != s["epochs"] + 1 and (not rows or rows[-1]["train_loss"] != "inf"):
            return "differs", f"{arm}, seed {z}: {len(rows)} rows, expected {s['epochs'] + 1}"
    for arm in s["arms"]:
        then = stored.where(arm=arm, seed=seed)[:2]
        cost = sum(float(row["seconds"]) for row in then)
        if arms and spent + cost > LONG:
            break
        spent += cost
        arms.append(arm)
        now = train_one(it, arm, seed, d, epochs=1, c=Crew())
        for one, other in zip(then, now, strict=True):
            for column, value in one.items():
                if not _near(column, int(one["epoch"]), value, other[column]):
                    at = f"{arm}, seed {seed}, epoch {one['epoch']}, {column}"
                    return "differs", f"{at}: stored {value}, recomputed {other[column]}"
    return "same", f"first epoch of {', '.join(arms)}, seed {seed}"


def _near(column: str, epoch: int, then: str, now: str) -> bool:
    """Rounding that differs between processors is amplified by an epoch of training."""
    if column in ("arm", "seed", "epoch"):
        return then == now
    if column in ("weights", "seconds") or then == now:
        return True
    if "" in (then, now):
        return False
    kind = column.split("_")[0]
    rel, limit = {"train": (0.02, 0), "angle": (0, 3), "feedback": (0, 3)}.get(kind, (0.1, 0.005))
    if epoch == 0:
        rel, limit = 1e-3, 0.5 if kind in ("angle", "feedback") else 0.002
    return abs(float(then) - float(now)) <= max(limit, rel * abs(float(then)))


def _verify_jobs(it: Run, stored: Result) -> tuple[str, str]:
    jobs, made = Jobs(it, stored.rows, None), stored.provenance
    try:
        jobs.module.plan(jobs.get)
    except KeyError as e:
        return "differs", f"the plan asks for {e}, which is not stored"
    left = set(jobs.done) - set(jobs.asked)
    if left:
        return "differs", f"{len(left)} stored jobs are not in the plan, such as {min(left)}"
    first = getattr(jobs.module, "first", None)
    each = made["seconds"] / len(jobs.done)
    cost = {k: sum(float(r.get("seconds", each / len(v))) for r in v) for k, v in jobs.done.items()}
    order = sorted(cost, key=lambda k: _sha256("|".join(k).encode()))  # fixed, and no one's choice
    cheap = [k for k in order if cost[k] <= max(LONG / 8, min(cost.values()))]
    if first is None and cost[cheap[0]] > 1.5 * LONG:
        return (
            "skipped",
            f"its cheapest job takes {cost[cheap[0]]:.0f} s, and it has no first(*key)",
        )
    same, seen, spent, missing = getattr(jobs.module, "same", _same_row), [], 0.0, ""
    for key in cheap:
        if len(seen) == (1 if first else 5) or (seen and spent + cost[key] > LONG / 2):
            break
        typed = jobs.asked[key]
        try:
            if first:
                again = [{n: _text(v) for n, v in first(*typed).items()}]
            else:
                again = jobs.make(*typed)
        except FileNotFoundError as e:
            missing = str(e).splitlines()[0]
            continue
        spent += cost[key]
        seen.append(" ".join(key))
        then = jobs.done[key]
        if not (same(then, again) if jobs.many else same(then[0], again[0])):
            return "differs", f"{' '.join(key)}: stored {then[:2]}, recomputed {again[:2]}"
    if not seen:
        return "skipped", missing
    return "same", f"{len(seen)} of {len(jobs.done)} jobs, such as {seen[0]}"


def _same_row(stored: Any, again: Any) -> bool:
    """Equal texts, and numbers within a thousandth; ``seconds`` does not count."""
    if isinstance(stored, list):
        pairs = zip(stored, again, strict=False)
        return len(stored) == len(again) and all(_same_row(a, b) for a, b in pairs)
    for name in set(again) - {"seconds"}:
        try:
            if not np.isclose(float(stored[name]), float(again[name]), rtol=1e-3, atol=0):
                return False
        except ValueError:
            if stored[name] != again[name]:
                return False
    return True


# --- looking


def show(name: str | Path) -> str:
    """What a run is, what it found (mean over seeds, 95 % interval), and what was published."""
    it = runfile.read(runfile.find(name))
    stored = load(it.path)
    made, about = stored.provenance, it.about
    seconds = f"{made['seconds']} s" if made.get("seconds") else "time not kept"
    lines = [about["title"], about.get("note", "").strip(), f"{len(stored.rows)} rows, {seconds}"]
    if not it.script:
        names = [n for n in stored.rows[0] if n.startswith(("test_error", "angle", "feedback"))]
        lines += ["", f"after epoch {it.settings['epochs']}, seeds {it.settings['seeds']}:"]
        for arm in it.settings["arms"]:
            last = {n: stored.column(n, arm=arm, epoch=it.settings["epochs"]) for n in names}
            lines.append(f"  {arm}")
            kept = {n: v for n, v in last.items() if len(v) and not np.isnan(v).all()}
            lines += [f"    {n:12} {_mean(v)}" for n, v in kept.items()] or ["    diverged"]
    for entry in about.get("published", []):
        lines += [
            "",
            entry["what"],
            f"  published {entry['value']}  ({entry['cite']}) [{entry['tag']}]",
        ]
        if "column" in entry:
            where = {} if it.script else {"epoch": it.settings["epochs"]}
            found = stored.column(entry["column"], **{**where, **entry.get("where", {})})
            lines.append(f"  measured  {_mean(found)}")
    return "\n".join(line for i, line in enumerate(lines) if line or i > 1)


def _mean(values: np.ndarray) -> str:
    v = values[np.isfinite(values)]
    if len(v) < 3:
        return f"{v.mean():.3g}, n = {len(v)}" if len(v) else "nothing"
    return str(measure.interval(v, rng=np.random.default_rng(0)))


def listing(folder: Path = runfile.HOME) -> str:
    """One line per run's file in a folder: name, rows stored (or why not), title."""
    lines = []
    for path in sorted(folder.glob("*.toml")):
        title = ""
        try:
            title = runfile.read(path).about["title"]
            state = f"{len(load(path).rows)} rows"
        except FileNotFoundError:
            begun = (runfile.read(path).work / "begun.json").exists()
            state = "unfinished" if begun else "not run"
        except ValueError as e:
            state = f"refused: {e}"
        lines.append(f"{path.stem:16} {state:12} {title}")
    return "\n".join(lines) or f"no runs in {folder}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all is well, 1 if a result differs, 2 for what cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m lib.runs", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="run a file, or go on with it")
    one.add_argument("file", help="book/runs/NAME.toml")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one.add_argument("--spread", choices=("seeds",), help="under torchrun: seeds, not batches")
    commands.add_parser("list", help="what is stored")
    commands.add_parser("show", help="measured beside published").add_argument("name")
    commands.add_parser("verify", help="recompute a part").add_argument("name", nargs="*")
    a = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    try:
        if a.command == "run":
            run(a.file, device=a.device, spread=bool(a.spread))
        elif a.command == "list":
            print(listing())
        elif a.command == "show":
            print(show(a.name))
        else:
            names = a.name or sorted(p.stem for p in runfile.HOME.glob("*.toml"))
            found = []
            for name in names:
                found.append(verify(name))
                print(f"{name}: {': '.join(found[-1])}", flush=True)
            return int(any(state == "differs" for state, _ in found))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
