"""The robot-arm chapter's larger experiment: all seven joints, a simulated and a real arm.

    BOOK_DATA=FOLDER python -m lib.runs run book/runs/robot-arm.toml

One job trains one net. Without BOOK_DATA the SARCOS file is downloaded once. Its rules and its
training are the chapter's own, line by line; the chapter checks that they are.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import torch

from lib import data, measure, nets, rules, train

COLUMNS = "stage data split joint method optimizer lr seed epochs nmse seconds".split()
KEY = 9
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


def job(stage, what, split, joint, method, name, lr, seed, epochs):
    """The nMSE of one row; infinite where training diverged."""
    if what == "simulated":
        d = simulated(joint, seed)
    else:
        d = real(joint, seed, split, "validation" if stage == "tune" else "test")
    if method in ("linear", "nearest"):
        return {"nmse": (linear if method == "linear" else nearest)(d)}
    try:
        with np.errstate(over="ignore"):
            past = learn(method, d, (name, lr), seed, epochs)
    except FloatingPointError:
        return {"nmse": float("inf")}
    return {"nmse": float(past["test_error"][-1])}


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


def plan(get):
    """Tune every method on every arm, then test it."""
    torch.set_num_threads(1)

    def ask(stage, what, split, joint, method, choice=("", ""), seed=0, epochs=EPOCHS):
        return get(stage, what, split, joint, method, *choice, seed, epochs if choice[0] else "")

    best = {}
    for what, split in (("simulated", "motions"), ("sarcos", "block")):
        tried = [
            ask("tune", what, split, joint, method, choice, seed=100 + joint)
            for joint, method, choice in product(TUNED_ON, METHODS, GRID)
        ]
        best[what] = {method: chosen(tried, what, method) for method in METHODS}
        for seed, joint in product(SEEDS, JOINTS):
            for method in METHODS:
                ask("test", what, split, joint, method, best[what][method], seed)
            ask("test", what, split, joint, "linear", seed=seed)
            ask("test", what, split, joint, "nearest", seed=seed)
    method = "backprop, He"
    for split, seed, joint in product(("random", "leaked"), SEEDS, JOINTS):
        ask("test", "sarcos", split, joint, "linear", seed=seed)
        ask("test", "sarcos", split, joint, "nearest", seed=seed)
        ask("test", "sarcos", split, joint, method, best["sarcos"][method], seed)
    ask("test", "sarcos", "all", 1, "linear")
    for method, seed in product(LONGER, SEEDS):  # six times as long
        longer = {"seed": seed, "epochs": 6 * EPOCHS}
        ask("long", "simulated", "motions", 4, method, best["simulated"][method], **longer)


def same(stored, again):
    """An nMSE within 5 %."""
    then, now = float(stored["nmse"]), float(again["nmse"])
    return now == then or abs(now / then - 1) < 0.05
