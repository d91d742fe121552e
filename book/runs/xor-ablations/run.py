"""The small XOR network with one constraint broken at a time: the stored run of bursts/xor.

    python -m lib.runs run book/runs/xor-ablations.toml

A job trains one network, of one variant and seed, from nothing: PLAN, EXAMPLES examples. The
variants of one seed have the same wiring, noise and order of patterns, and the same plan but for
the one option in VARIANTS; nothing else was tuned for any of them.

Rows, by ``what``: "test" (a pattern without teaching, before and after: er_*, bp_* over its last
half; ``example`` = examples seen) and "train" (an epoch: ``cost``, the sum over its four examples,
``teacher``, the mean size of the teaching current, pA, and the mean weights w_* after it).
"""

from __future__ import annotations

from lib.spikes import networks
from lib.spikes.networks import XorPlan

PLAN = {"n": 200, "dt": 2e-4, "example": 4.0, "average": 1.5, "teaching": 0.4}
PLAN |= {"rate": 2.2, "order": "alternating"}
EXAMPLES, SEEDS = 280, range(11, 16)
VARIANTS = {
    "whole": {},
    "unsigned teacher": {"teacher": "unsigned"},
    "spikes instead": {"transmit": "spikes"},
    "feedback reversed": {"feedback": "reversed"},
    "feedback random": {"feedback": "random"},
    "dendrites saturated": {"saturation": 1.5e-9},
}
NAMES = ("in1", "in2", "hid1", "hid2", "out")
MANY, KEY = True, 2
COLUMNS = [
    "variant",
    "seed",
    "what",
    "example",
    "pattern",
    "cost",
    "teacher",
    *(f"{kind}_{name}" for name in NAMES for kind in ("er", "bp")),
    *(f"w_{pre}_{post}" for pre, post in networks.FORWARD),
]
EMPTY = dict.fromkeys(COLUMNS[2:], "")


def short(row: dict) -> dict:
    """Four digits are enough."""
    return {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}


def test(net: networks.Xor) -> list[dict]:
    rows = networks.test_xor(net)
    return [EMPTY | short({"what": "test", "example": net.seen, **row}) for row in rows]


def train(net: networks.Xor, examples: int) -> list[dict]:
    """A row per epoch."""
    out, four = [], []
    for row, _ in networks.train_xor(net, examples):
        four.append(row)
        if len(four) == 4:
            found = {"what": "train", "example": net.seen, "cost": sum(r["cost"] for r in four)}
            found["teacher"] = sum(abs(r["teacher"]) for r in four) * 1e12 / 4
            found |= {k: v for k, v in row.items() if k.startswith("w_")}
            out.append(EMPTY | short(found))
            four = []
    return out


def build(variant: str, seed: int) -> networks.Xor:
    return networks.xor(seed, XorPlan(**PLAN, **VARIANTS[variant]))


def job(variant: str, seed: int) -> list[dict]:
    """The rows of one network."""
    net = build(variant, seed)
    return [*test(net), *train(net, EXAMPLES), *test(net)]


def first(variant: str, seed: int) -> list[dict]:
    """For ``verify``: the first tests and epochs, which take seconds."""
    net = build(variant, seed)
    return [*test(net), *train(net, 20)]


def plan(get) -> None:
    for seed in SEEDS:
        for variant in VARIANTS:
            get(variant, seed)
