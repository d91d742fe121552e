"""Doing an experiment: alone, with room to write, from where it stopped, to the stored result."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from lib.runs import file, jobs, training
from lib.runs.crew import crew
from lib.runs.file import Run
from lib.runs.store import Row, as_json, as_table, lib_sha256, load, same_settings, sha256, write

SPARE = 50_000_000  # bytes that must be free besides what a run writes


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
    it = file.read(path)
    with crew(device, spread) as c:
        if c.tell(_complete(it)):
            if c.rank == 0:
                load(it.path)  # refuses what does not belong to the file
                shutil.rmtree(it.work, ignore_errors=True)  # left by a kill at the very end
                print(f"{it.name} is complete, nothing to do: {it.shown_folder}/results.csv")
            return it.folder / "results.csv"
        with _writing(it) if c.rank == 0 else nullcontext({}) as begun:
            c.tell(None)  # the others wait until rank 0 knows that it may write
            off = True if c.rank else None if progress is None else not progress
            rows, about = (jobs.do if it.script else training.do)(it, c, off)
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
            net, rule, _ = training.build(it, arm, it.settings["seeds"][0])
            params = [*net.parameters(), *rule.parameters()]
            size = max(size, 6 * sum(p.numel() * p.element_size() for p in params))
    for folder in (it.folder, it.work):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / ".try", b"")
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
    path, settings = it.work / "begun.json", dict(it.settings)
    for name in ("seeds", "arms"):  # these may change: each state says what it depends on
        settings.pop(name, None)
    if it.script:
        settings = settings | {"script_sha256": sha256(it.script.read_bytes())}
    begun = {"settings": settings, "lib_sha256": []}
    if path.exists():
        try:
            begun = json.loads(path.read_bytes())
        except ValueError as e:
            words = f"{path} is damaged ({e}): delete it, and what is beside it is gone on with"
            raise ValueError(words) from e
        same_settings(begun["settings"], settings, f"the unfinished run of {it.name}", it.work)
    if lib_sha256() not in begun["lib_sha256"]:  # more than one if the library changed on the way
        begun["lib_sha256"].append(lib_sha256())
    write(path, as_json(begun))
    return {"settings": it.settings, "lib_sha256": begun["lib_sha256"]}


def _publish(it: Run, rows: list[Row], about: dict) -> None:
    """The result, then its provenance, then the unfinished work goes."""
    table = as_table(rows)
    seconds = about.pop("seconds", 0) or sum(float(row.get("seconds") or 0) for row in rows)
    packages = ("numpy", "torch", "scipy", "scikit-learn", "numba")
    versions = {name: importlib.metadata.version(name) for name in packages}
    made = {
        "command": f"python -m lib.runs run {it.shown}",
        "rows": len(rows),
        "seconds": round(seconds),
        "results_sha256": sha256(table),
        **about,
        "versions": {"python": platform.python_version(), **versions},
        "machine": {"cpu": platform.machine(), "threads": torch.get_num_threads()},
    }
    write(it.folder / "results.csv", table)
    write(it.folder / "provenance.json", as_json(made))
    shutil.rmtree(it.work, ignore_errors=True)
    print(f"{it.name} is complete: {len(rows)} rows in {it.shown_folder}/results.csv")
