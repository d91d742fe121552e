"""XOR learned by spiking neurons, in full: the stored run of bursts/xor.

    python -m lib.runs run book/runs/xor.toml

A job is a block of one seed's examples, which goes on from the state that the block before it
left under _build/runs/xor (without it, the blocks before are simulated again). All seeds advance
together. Block 0 is the four patterns before learning and the first epoch; then 20 blocks of 25
epochs (24 in the first); after the last, the four patterns again.

Rows, by ``what``: "test" (a pattern without teaching: ``pattern``, er_*, bp_* over its last
half; ``example`` = examples seen), "train" (one example: see lib.spikes.networks.train_xor) and
"course" (0.4 s of an example of the epochs in COURSES: ``t``, s since the epoch began, er_*, bp_*,
and in ``teacher`` the mean teaching current, pA).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from lib.spikes import networks

SEEDS = range(1, 6)
BLOCKS = 21
COURSES = (1, 100, 500)  # epochs whose time course is kept
NAMES = ("in1", "in2", "hid1", "hid2", "out")
MANY, KEY = True, 2
COLUMNS = [
    "seed",
    "block",
    "what",
    "example",
    "pattern",
    "t",
    "rate",
    "cost",
    "teacher",
    *(f"{kind}_{name}" for name in NAMES for kind in ("er", "bp")),
    "bp_taught",
    *(f"w_{pre}_{post}" for pre, post in networks.FORWARD),
]
EMPTY = dict.fromkeys(COLUMNS[2:], "")
STATES = Path(__file__).resolve().parents[3] / "_build" / "runs" / "xor"


def last(block: int) -> int:
    """Examples seen when a block is over: 4, 100, 200, ... 2,000."""
    return 4 if block == 0 else 100 * block


def state(seed: int, block: int) -> Path:
    return STATES / f"seed{seed}-block{block}.npz"


def start(seed: int, block: int) -> networks.Xor:
    """The network as the block before this one left it."""
    net = networks.xor(seed)
    if block and state(seed, block - 1).is_file():
        with np.load(state(seed, block - 1)) as saved:
            net.restore(dict(saved))
    elif block:
        job(seed, block - 1, net)
    return net


def keep(net: networks.Xor, seed: int, block: int) -> None:
    """Store the state, whole or not at all, and drop the one before the last."""
    STATES.mkdir(parents=True, exist_ok=True)
    path = state(seed, block)
    with open(path.with_suffix(".tmp"), "wb") as file:
        np.savez(file, **net.save())
    os.replace(path.with_suffix(".tmp"), path)
    state(seed, block - 2).unlink(missing_ok=True)


def short(row: dict) -> dict:
    """Four digits are enough."""
    return {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}


def test(net: networks.Xor) -> list[dict]:
    rows = networks.test_xor(net)
    return [EMPTY | short({"what": "test", "example": net.seen, **row}) for row in rows]


def course(row: dict, seen: networks.Recording) -> list[dict]:
    """The recording of an example, row by row of 0.4 s."""
    out, begin = [], (row["example"] - 1) % 4 * len(seen.t)
    for k in range(len(seen.t)):
        found = {"what": "course", "example": row["example"], "pattern": row["pattern"]}
        found |= {"t": f"{(begin + k + 1) * seen.bin:.1f}"}
        found["teacher"] = 1e12 * row["teacher"] if k >= 0.9 * len(seen.t) else 0.0
        for name in NAMES:
            found[f"er_{name}"] = float(seen.event_rate(name)[k])
            found[f"bp_{name}"] = float(seen.burst_probability(name)[k])
        out.append(EMPTY | short(found))
    return out


def job(seed: int, block: int, net: networks.Xor | None = None) -> list[dict]:
    """The rows of one block of one seed."""
    if net is None:
        net = start(seed, block)
    elif block:
        job(seed, block - 1, net)
    rows = block_rows(net, block)
    keep(net, seed, block)
    return rows


def block_rows(net: networks.Xor, block: int) -> list[dict]:
    """Go through one block; its rows."""
    rows = test(net) if block == 0 else []
    for row, seen in networks.train_xor(net, last(block) - net.seen):
        row["teacher"] *= 1e12
        kept = {k: v for k, v in row.items() if k in EMPTY}
        rows.append(EMPTY | short({"what": "train", **kept}))
        if (row["example"] + 3) // 4 in COURSES:
            rows += course(row, seen)
    if block == BLOCKS - 1:
        rows += test(net)
    return rows


def first(seed: int, block: int) -> list[dict]:
    """For ``verify``: block 0 begins from nothing and takes seconds; the others go on from it."""
    if block:
        raise FileNotFoundError("only block 0 of a seed can be made again by itself")
    return block_rows(networks.xor(seed), 0)


def plan(get) -> None:
    for block in range(BLOCKS):
        for seed in SEEDS:
            get(seed, block)
