"""The robot-arm chapter's larger experiment: all seven joints, a simulated and a real arm.

    BOOK_DATA=FOLDER python book/runs/robot-arm/run.py          run, or go on after a stop
    python book/runs/robot-arm/run.py verify                    recompute some stored rows

Writes results.csv (one row per trained net, kept after every row) and provenance.json beside
this file. Without BOOK_DATA the SARCOS file is downloaded once. Its rules and its training are
the chapter's own, line by line; the chapter checks that they are.
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import sys
import time
from importlib.metadata import version
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch

import lib
from lib import data, measure, nets, rules, train

HERE = Path(__file__).parent
COLUMNS = "stage data split joint method optimizer lr seed epochs nmse seconds".split()
JOINTS, SEEDS, TUNED_ON, EPOCHS, ROWS = range(1, 8), range(5), (1, 4, 7), 10, 3000
GRID = [("Adam", lr) for lr in (0.001, 0.003, 0.01, 0.03)]
GRID += [("SGD", lr) for lr in (0.003, 0.01, 0.03, 0.1)]


class LastLayer(rules.Rule):
    """The hidden layers are told nothing; the output layer learns by its gradient."""

    def credit(self, net, trace, delta):
        return [*(torch.zeros_like(a) for a in trace.drives[:-1]), delta]


class DirectFeedback(rules.Rule):
    """Each hidden unit is told the global error times a fixed random number."""

    def __init__(self, net, *, rng, std=0.03):
        super().__init__(net)
        sizes = [(1, layer.n_out) for layer in net.layers[:-1]]
        self.sent = [torch.from_numpy(rng.normal(0, std, size)) for size in sizes]

    def credit(self, net, trace, delta):
        told = enumerate(delta @ b for b in self.sent)
        return [*(self.gate(net, i, signal, trace) for i, signal in told), delta]


METHODS = {  # name: how to make the rule, the start, whether signs are kept at every step
    "backprop, He": (lambda net, rng: rules.Backprop(net), "default", False),
    "backprop, coherent start": (lambda net, rng: rules.Backprop(net), "coherent", False),
    "backprop, kept coherent": (lambda net, rng: rules.Backprop(net), "coherent", True),
    "Kickback, He": (lambda net, rng: rules.Kickback(net), "default", False),
    "Kickback, coherent start": (lambda net, rng: rules.Kickback(net), "coherent", False),
    "Kickback, kept coherent": (lambda net, rng: rules.Kickback(net), "coherent", True),
    "direct feedback, He": (lambda net, rng: DirectFeedback(net, rng=rng), "default", False),
    "last layer only, He": (lambda net, rng: LastLayer(net), "default", False),
}
LONGER = ("backprop, He", "backprop, kept coherent", "Kickback, He", "Kickback, kept coherent")


def start(init, seed):
    rng = np.random.default_rng([seed, 1])
    how = {"activation": "signed_relu", "init": "default" if init == "scaled" else init}
    net = nets.mlp([21, 200, 100, 10, 1], **how, rng=rng, dtype=torch.float64)
    if init == "scaled":  # what else the coherent start does, with the signs left at random
        nets.calibrate(net, torch.from_numpy(rng.normal(size=(512, 21))), rng=rng)
    return net


def optimizer(net, choice):
    name, lr = choice
    if name == "Adam":
        return torch.optim.Adam(net.parameters(), lr=lr, fused=True)
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)


def learn(method, d, choice, seed, epochs, probe=None):
    """Train one net with one rule; the history's test_error is the nMSE."""
    make, init, keep = METHODS[method]
    net = start(init, seed)
    rule, opt = make(net, np.random.default_rng([seed, 3])), optimizer(net, choice)
    if keep:  # after the step, so that the step cannot undo it
        opt.register_step_post_hook(lambda *_: nets.project_coherent(net))

    def slow_down(net, epoch):  # the learning rate falls to 0 in a straight line
        for group in opt.param_groups:
            group["lr"] = choice[1] * (1 - epoch / epochs)
        return probe(net, epoch) if probe else {}

    order = np.random.default_rng([seed, 2])
    return train.fit(
        net,
        rule,
        d,
        epochs=epochs,
        batch_size=64,
        optimizer=opt,
        rng=order,
        probe=slow_down,
        progress=False,
    )


def linear(d):
    """Test nMSE of least squares with a constant."""
    x, x_test = (np.insert(a.numpy(), 0, 1, axis=1) for a in (d.x_train, d.x_test))
    return measure.nmse(x_test @ np.linalg.lstsq(x, d.y_train.numpy())[0], d.y_test)


def nearest(d):
    """Test nMSE of answering what the nearest training row answered."""
    return measure.nmse(d.y_train[torch.cdist(d.x_test, d.x_train).argmin(1)], d.y_test)


def simulated(joint, seed):
    return data.robot_arm(ROWS, joint=joint, rng=np.random.default_rng([seed, 0]))


def real(joint, seed, split, held="test"):
    """SARCOS by blocks of time, rows at random, blocks whose test rows leaked, or all rows."""
    d = data.sarcos(seed=seed, held=held, joint=joint)
    if split == "block":
        return d
    v = data.sarcos(seed=seed, held="validation", joint=joint)
    x = torch.cat([d.x_train, v.x_test, d.x_test])  # every row, in this seed's scale
    y = torch.cat([d.y_train, v.y_test, d.y_test])
    train_rows = test_rows = slice(None)
    if split == "random":
        rows = np.random.default_rng([seed, 4]).permutation(len(x))
        train_rows, test_rows = rows[: len(d.x_train)], rows[-len(d.x_test) :]
    elif split == "leaked":
        test_rows = slice(-len(d.x_test), None)
    return data.Data(
        "sarcos", x[train_rows], y[train_rows], x[test_rows], y[test_rows], 0, d.licence, d.cite
    )


def score(row):
    """The nMSE that a row asks for; infinite where training diverged."""
    stage, joint, seed = row["stage"], int(row["joint"]), int(row["seed"])
    if row["data"] == "simulated":
        d = simulated(joint, seed)
    else:
        d = real(joint, seed, row["split"], "validation" if stage == "tune" else "test")
    if row["method"] in ("linear", "nearest"):
        return (linear if row["method"] == "linear" else nearest)(d)
    try:
        choice = row["optimizer"], float(row["lr"])
        with np.errstate(over="ignore"):
            past = learn(row["method"], d, choice, seed, int(row["epochs"]))
    except FloatingPointError:
        return float("inf")
    return float(past["test_error"][-1])


def chosen(rows, what, method):
    """The setting with the lowest mean log nMSE over the tuning rows, off the cliff.

    Off the cliff: with the next higher rate of the same optimizer nothing diverged.
    """
    mine = [r for r in rows if (r["stage"], r["data"], r["method"]) == ("tune", what, method)]

    def cost(choice):
        picked = [r for r in mine if (r["optimizer"], float(r["lr"])) == choice]
        return np.mean([np.log(float(r["nmse"])) for r in picked])

    above = dict(pairwise(GRID))  # a rate's next higher one; the other optimizer does not count
    safe = [c for c in GRID if c not in above or above[c][0] != c[0] or cost(above[c]) < np.inf]
    return min(safe, key=cost)


def plan(rows):
    """Every row there is to do, in order; what is tuned is looked up in ``rows``."""

    def ask(stage, what, split, joint, method, choice=("", ""), seed=0):
        name, lr = choice
        values = stage, what, split, joint, method, name, lr, seed, EPOCHS if name else ""
        return dict(zip(COLUMNS, map(str, values), strict=False))

    best = {}
    for what, split in (("simulated", "motions"), ("sarcos", "block")):
        for joint, method, choice in product(TUNED_ON, METHODS, GRID):
            yield ask("tune", what, split, joint, method, choice, seed=100 + joint)
        best[what] = {method: chosen(rows, what, method) for method in METHODS}
        for seed, joint in product(SEEDS, JOINTS):
            for method in METHODS:
                yield ask("test", what, split, joint, method, best[what][method], seed)
            yield ask("test", what, split, joint, "linear", seed=seed)
            yield ask("test", what, split, joint, "nearest", seed=seed)
    method = "backprop, He"
    for split, seed, joint in product(("random", "leaked"), SEEDS, JOINTS):
        yield ask("test", "sarcos", split, joint, "linear", seed=seed)
        yield ask("test", "sarcos", split, joint, "nearest", seed=seed)
        yield ask("test", "sarcos", split, joint, method, best["sarcos"][method], seed)
    yield ask("test", "sarcos", "all", 1, "linear")
    for method, seed in product(LONGER, SEEDS):  # six times as long
        row = ask("long", "simulated", "motions", 4, method, best["simulated"][method], seed)
        yield row | {"epochs": str(6 * EPOCHS)}


def key(row):
    return tuple(row[c] for c in COLUMNS[:-2])


def write(path, text):
    """All of it or nothing: to a temporary name, then renamed."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def keep(rows):
    lines = [
        ",".join(COLUMNS),
        *(",".join(f'"{r[c]}"' if "," in r[c] else r[c] for c in COLUMNS) for r in rows),
    ]
    write(HERE / "results.csv", "\n".join(lines) + "\n")


def load():
    path = HERE / "results.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


def provenance(rows):
    digest, root = hashlib.sha256(), Path(lib.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return {
        "command": "OMP_NUM_THREADS=1 BOOK_DATA=FOLDER python book/runs/robot-arm/run.py",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "torch", "scipy")},
        },
        "seeds": {"test": list(SEEDS), "tune": [100 + joint for joint in TUNED_ON]},
        "data": {"sarcos_inv_test.mat": data.SARCOS_FILES["test"][1]},
        "lib_sha256": digest.hexdigest(),
        "machine": f"{platform.system()} {platform.machine()}, one thread",
        "rows": len(rows),
        "seconds": round(sum(float(r["seconds"]) for r in rows)),
    }


def verify(rows, n=8):
    """Recompute rows spread over the file; raise if one is more than 5 % off."""
    for row in rows[:: max(len(rows) // n, 1)]:
        now, then = score(row), float(row["nmse"])
        print(*key(row), f"stored {then:.5f}, now {now:.5f}")
        if not (now == then or abs(now / then - 1) < 0.05):
            raise ValueError(f"the stored row {key(row)} is not what this code computes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = load()
    if "verify" in sys.argv:
        verify(rows)
        sys.exit()
    done = {key(row) for row in rows}
    for row in plan(rows):
        if key(row) in done:
            continue
        begin = time.time()
        row["nmse"] = f"{score(row):.6g}"
        row["seconds"] = f"{time.time() - begin:.2f}"
        rows.append(row)
        keep(rows)
        print(len(rows), *row.values(), flush=True)
    write(HERE / "provenance.json", json.dumps(provenance(rows), indent=1) + "\n")
