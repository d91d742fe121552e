"""The league: every registered rule on one net per task, with the same data and the same budget.

    python -m lib.runs run book/runs/league.toml

One job trains one net. Nobody is listed by hand: the plan asks ``rules.names()``. A rule that
refuses the common net gets the nearest one it takes, and backprop then trains that net too.
"""

from __future__ import annotations

import copy
import inspect
import time
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import torch

from lib import data, measure, nets, rules, train

COLUMNS = "stage task rule net lr seed held_out test angle times weights curve reason seconds"
COLUMNS = COLUMNS.split()
KEY = 6
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # the same for everybody
TUNING, SEEDS, BATCH, MOMENTUM, DECAY = (99,), range(5), 50, 0.9, 1e-3
TASKS = {  # sizes, output, passes over the data, and to tune (arm: some live for 6, not 12)
    "digits": ([64, 30, 30, 10], "softmax", 16, 8),
    "mnist1d": ([40, 50, 50, 10], "softmax", 12, 6),
    "robot_arm": (
        [21, 30, 30, 1],
        "linear",
        12,
        12,
    ),  # a net that lives for 6 passes may not live for 12
}
NETS = ("sigmoid", "relu")  # the common net first; then what a rule gets that refuses it
GAIN = {"sigmoid": 3.6, "relu": 1.0}
OPTIONS = {  # what a rule is told besides; a rule that is not here gets its own defaults
    "node perturbation": {"sigma": 1e-3},
    "weight perturbation": {"sigma": 1e-3},
    "evolution": {"sigma": 1e-2, "population": 20},
    "reinforce": {"sigma": 1.0},  # of 0.1, 0.5, 1 and 2, tried on held-out digits and arm
    "predictive": {"precision": 0.1, "steps": 5, "rate": 0.3},  # its defaults diverge on the arm
    "kickback, 10 outputs": {"above": "tags"},
}


class OutputOnly(rules.Rule):
    """The hidden layers are told nothing: what the way back has to beat."""

    def credit(self, net, trace, delta):
        return [*(torch.zeros_like(a) for a in trace.drives[:-1]), delta]


BENCH = {"output only": OutputOnly}  # not in the league, but measured beside it


@cache
def load(task):
    """A task's data in float64."""
    if task == "robot_arm":
        return data.robot_arm(3000, joint=4, rng=np.random.default_rng(0))
    return data.load(task, dtype=torch.float64)


@cache
def held_out(task):
    """The last fifth of the training set in the test set's place: nothing here is the test set."""
    d = load(task)
    n = len(d.x_train) * 4 // 5
    parts = {"x_test": d.x_train[n:], "y_test": d.y_train[n:]}
    return replace(d, x_train=d.x_train[:n], y_train=d.y_train[:n], **parts)


def build(task, name, kind, seed):
    """Net and rule: equal seeds give equal weights. ValueError where the rule refuses the net."""
    sizes, output, *_ = TASKS[task]
    rng = np.random.default_rng([seed, 0])
    how = {"activation": kind, "output": output, "weight_gain": GAIN[kind]}
    net = nets.mlp(sizes, **how, rng=rng, dtype=torch.float64)
    made = BENCH.get(name) or rules.get(name)
    options = OPTIONS.get(name, {}) | OPTIONS.get(f"{name}, {sizes[-1]} outputs", {})
    makers = [c.__init__ for c in made.__mro__ if "__init__" in vars(c)]  # one may pass on **rest
    if any("rng" in inspect.signature(maker).parameters for maker in makers):
        options["rng"] = np.random.default_rng([seed, 1])
    try:
        return net, made(net, **options)
    except TypeError as e:
        raise TypeError(f"{name!r}: {e}; say in OPTIONS what it needs") from e


def nearest(task, name):
    """The first kind of net a rule takes, and what it said of those it refused."""
    d, reasons = held_out(task), []
    for kind in NETS:
        try:
            net, rule = build(task, name, kind, 0)
            rule(net, d.x_train[:2], d.y_train[:2])
            return kind, "; ".join(reasons)
        except ValueError as e:
            reasons.append(str(e))
    return "", "; ".join(reasons)


def learn(task, name, kind, lr, seed, passes, watch=True):
    """Train one net: it, its rule, its start, and by pass held-out error and lowest angle."""
    net, rule = build(task, name, kind, seed)
    d, weights, angles = held_out(task), nets.fingerprint(net), []
    listen = np.random.default_rng([seed, 3])
    some = d.x_train[:BATCH], d.y_train[:BATCH]

    def probe(net, _):
        if hasattr(rule, "mirror"):  # feedback that has to listen for itself, once a pass
            rule.mirror(net, rng=listen, n=1000, rate=1, decay=1)
        found = []
        for one in (copy.deepcopy(rule), rules.Backprop(net, loss=rule.loss)) if watch else ():
            one(net, *some)
            found.append(measure.gradients(net)[0])
        try:
            angles.append(measure.angle(*found) if watch else np.nan)
        except ValueError:  # a vector of length 0 has no angle
            angles.append(np.nan)
        return {}

    sgd = torch.optim.SGD(
        [*net.parameters(), *rule.parameters()],
        lr=lr,
        momentum=MOMENTUM,
        weight_decay=DECAY,
        fused=True,
    )
    past = train.fit(
        net,
        rule,
        d,
        epochs=passes,
        batch_size=BATCH,
        optimizer=sgd,
        rng=np.random.default_rng([seed, 2]),
        probe=probe,
        progress=False,
    )
    return net, rule, weights, past["test_error"], angles


def speed(task, name, kind):
    """Process time of an update over backprop's, measured in turns: the median of 10."""
    d = held_out(task)
    x, y = d.x_train[:BATCH], d.y_train[:BATCH]
    net, rule = build(task, name, kind, 0)
    found = []
    for _ in range(11):
        took = []
        for one in (rules.Backprop(net, loss=rule.loss), rule):
            began = time.process_time()
            for _ in range(10):
                one(net, x, y)
            took.append(time.process_time() - began)
        found.append(took[1] / took[0])
    return float(np.median(found[1:]))


def job(stage, task, name, kind, lr, seed):
    """One row: a refusal, a timing, a net trained to tune, or a net trained to be tested."""
    row = dict.fromkeys(COLUMNS[KEY:-1], "")
    if stage == "refused":
        return row | {"reason": nearest(task, name)[1]}
    if stage == "time":
        return row | {"times": speed(task, name, kind), "reason": nearest(task, name)[1]}
    test = stage == "test"
    passes = TASKS[task][2 if test else 3]
    try:
        with np.errstate(all="ignore"):
            found = learn(task, name, kind, lr, seed, passes, watch=test)
            net, rule, weights, curve, angles = found
    except FloatingPointError:
        return row | {"held_out": np.inf, "test": np.inf if test else ""}
    row |= {"held_out": float(curve[-1]), "weights": weights}
    if test:
        row["test"] = train.evaluate(net, rule, load(task))["test_error"]
        row["angle"] = float(np.nanmean(angles)) if np.isfinite(angles).any() else ""
        row["curve"] = " ".join(f"{error:.4f}" for error in curve)
    return row


def plan(get):
    """Per task, every rule on the nearest net it takes: tune, test, time."""
    torch.set_num_threads(1)
    for task in TASKS:
        entries = []
        for name in [*rules.names(), *BENCH]:
            kind, _ = nearest(task, name)
            if not kind:
                get("refused", task, name, "", "", "")
                continue
            entries.append((name, kind))
            if kind != NETS[0]:  # a net of its own needs references of its own
                more = [(one, kind) for one in ("backprop", *BENCH)]
                entries += [entry for entry in more if entry not in entries]
        best = {}
        for entry, lr in product(entries, RATES):
            tried = [float(get("tune", task, *entry, lr, seed)["held_out"]) for seed in TUNING]
            if entry not in best or np.mean(tried) < best[entry][0]:
                best[entry] = np.mean(tried), lr
        for seed, entry in product(SEEDS, entries):
            get("test", task, *entry, best[entry][1], seed)
        for entry in entries if task == "digits" else ():
            get("time", task, *entry, "", "")


def same(stored, again):
    """The same start, and errors within 0.03 (rounding may move a few answers); times are free."""
    if (stored["weights"], stored["reason"]) != (again["weights"], again["reason"]):
        return False
    pairs = [(stored[c], again[c]) for c in ("held_out", "test") if stored[c] != again[c]]
    return all(a and b and abs(float(a) - float(b)) < 0.03 for a, b in pairs)
