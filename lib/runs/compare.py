"""What is stored, beside what comes out now, and beside what was published."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lib import measure
from lib.runs import file
from lib.runs.crew import Crew
from lib.runs.file import Run
from lib.runs.jobs import Jobs
from lib.runs.store import Result, Row, data_sha256, load, sha256
from lib.runs.training import load_data, train_one

LONG = 20.0  # seconds that verifying one run may take, as its stored seconds let expect
LONGEST = 40.0  # an epoch that took longer, or a script's cheapest job, is not repeated


def verify(name: str | Path) -> tuple[str, str]:
    """Recompute a part of a stored result: ("same", "differs" or "skipped", what was seen).

    A training run: the first epoch of the first seed, of as many arms as the stored seconds let
    expect within LONG; where an epoch takes over LONGEST, the net before training. The limits are
    in ``_farthest``; where rounding alone, tried by moving the initial weights in their last
    digit, moves an epoch's numbers by more, five times that. A script: a fixed sample of its cheap
    jobs. Skipped where data are neither on disk nor reachable.
    """
    it = file.read(file.find(name))
    try:
        stored = load(it.path)
        return (_verify_jobs if it.script else _verify_training)(it, stored)
    except FileNotFoundError as e:
        return "skipped", str(e).splitlines()[0]
    except ValueError as e:
        return "differs", str(e)


def _verify_training(it: Run, stored: Result) -> tuple[str, str]:
    s, d = it.settings, load_data(it)
    seed, spent, arms = s["seeds"][0], 0.0, []
    if data_sha256(d) != stored.provenance["data_sha256"][s["data"]["name"]]:
        return "differs", f"the data {s['data']['name']} are not those the result was made with"
    for arm, z in product(s["arms"], s["seeds"]):
        rows = stored.where(arm=arm, seed=z)
        if len(rows) != s["epochs"] + 1 and (not rows or rows[-1]["train_loss"] != "inf"):
            return "differs", f"{arm}, seed {z}: {len(rows)} rows, expected {s['epochs'] + 1}"
    for arm in s["arms"]:
        then = stored.where(arm=arm, seed=seed)[:2]
        if float(then[-1]["seconds"]) > LONGEST:  # an epoch takes too long: the net as drawn
            then = then[:1]
        cost = sum(float(row["seconds"]) for row in then)
        if arms and spent + cost > LONG:
            break
        spent += cost
        arms.append(arm if len(then) > 1 else f"{arm} (before training)")
        now = train_one(it, arm, seed, d, epochs=len(then) - 1, c=Crew())
        for epoch in range(len(then)):
            column, off = _farthest(then[epoch], now[epoch])
            if 1 < off < np.inf and epoch:  # how far does a last digit move this epoch?
                moved = train_one(it, arm, seed, d, epochs=1, c=Crew(), jolt=1e-7)
                off /= max(1.0, 5 * _farthest(now[epoch], moved[epoch], then[epoch])[1])
            if off > 1:
                at = f"{arm}, seed {seed}, epoch {epoch}, {column}"
                both = f"stored {then[epoch][column]}, recomputed {now[epoch][column]}"
                return "differs", f"{at}: {both}"
    return "same", f"first epoch of {', '.join(arms)}, seed {seed}"


def _farthest(then: Row, now: Row, of: Row | None = None) -> tuple[str, float]:
    """The column in which two rows differ most, and by how many times what is allowed ``of`` it.

    Allowed: before training a thousandth (0.002 of an error, 0.5 degrees); after an epoch 2 % of
    the training loss, 10 % of the test's, 0.005 of an error if that is more, 3 degrees.
    """
    start, found = then["epoch"] == "0", {"epoch": 0.0}
    for column in set(then) - {"arm", "seed", "epoch", "weights", "seconds"}:
        kind, a, b = column.split("_")[0], then[column], now[column]
        if a == b:
            continue
        if not (a and b and np.isfinite([float(a), float(b)]).all()):
            found[column] = np.inf
            continue
        if kind in ("angle", "feedback"):
            limit = 0.5 if start else 3.0
        else:
            share, least = (1e-3, 0.002) if start else {"train": (0.02, 0)}.get(kind, (0.1, 0.005))
            limit = max(least, share * abs(float((of or then)[column])))
        found[column] = abs(float(a) - float(b)) / limit
    column = max(sorted(found), key=found.get)
    return column, found[column]


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
    order = sorted(cost, key=lambda k: sha256("|".join(k).encode()))  # fixed, and no one's choice
    cheap = [k for k in order if cost[k] <= max(LONG / 4, min(cost.values()))]
    if first is None and cost[cheap[0]] > LONGEST:
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
            again = jobs.make(*typed) if first is None else jobs.begin(*typed)
        except FileNotFoundError as e:
            missing = str(e).splitlines()[0]
            continue
        spent += cost[key]
        seen.append(" ".join(key))
        then = jobs.done[key][: len(again)] if first else jobs.done[key]
        if not (same(then, again) if jobs.many else same(then[0], again[0])):
            return "differs", f"{' '.join(key)}: stored {then[0]}, recomputed {again[0]}"
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
            if not np.isclose(
                float(stored[name]), float(again[name]), rtol=1e-3, atol=0, equal_nan=True
            ):
                return False
        except ValueError:
            if stored[name] != again[name]:
                return False
    return True


def show(name: str | Path) -> str:
    """What a run is, what it found (mean over seeds, 95 % interval), and what was published."""
    it = file.read(file.find(name))
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


def listing(folder: Path = file.HOME) -> str:
    """One line per run's file in a folder: name, rows stored (or why not), title."""
    lines = []
    for path in sorted(folder.glob("*.toml")):
        title = ""
        try:
            title = file.read(path).about["title"]
            state = f"{len(load(path).rows)} rows"
        except FileNotFoundError:
            begun = (file.read(path).work / "begun.json").exists()
            state = "unfinished" if begun else "not run"
        except ValueError as e:
            state = f"refused: {e}"
        lines.append(f"{path.stem:16} {state:12} {title}")
    return "\n".join(lines) or f"no runs in {folder}"
