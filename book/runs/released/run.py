"""The released rate code of Payeur et al. 2021, rebuilt from its description, on MNIST.

    python -m lib.runs run book/runs/released.toml

One job trains one net with one of the settings below and gives a row for the start, for the first
200 updates (what ``verify`` makes again) and for every epoch. "demo": the authors' notebook, the
last 10,000 training digits held out and scored. "defaults": their training script with learned
feedback, scored on the test set. The other settings change one thing, to see what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from lib import data, measure, nets, rules

BATCH, FIRST = 32, 200  # examples in a batch; updates before the first look
SEEDS = range(3)


@dataclass(frozen=True)
class Setting:
    """What the released code is told; its defaults are the demo notebook's."""

    hidden: int = 1  # layers of 500
    lr: float = 1.0
    output_lr: float = 0.01
    momentum: float = 0.9
    decay: float = 1e-4
    feedback_std: float = 0.1
    inner_lr: float = 1e-4  # of the recurrent weights Z
    held_out: bool = True  # score the last 10,000 training digits, not the test set
    mean: bool = False  # the mean over the batch instead of its sum
    epochs: int = 3


DEFAULTS = Setting(hidden=3, lr=0.1, momentum=0.8, decay=1e-6, feedback_std=1.0,
                   held_out=False, epochs=1)  # fmt: skip
SETTINGS = {
    "demo": Setting(epochs=10),
    "defaults": DEFAULTS,
    "demo, batch mean": Setting(mean=True),
    "demo, decay 1e-6": Setting(decay=1e-6),
    "defaults, one rate": replace(DEFAULTS, lr=0.015, output_lr=0.015, momentum=0.347,
                                  decay=7.59e-6, inner_lr=2.6e-4),
}  # fmt: skip
COLUMNS = (
    "setting seed epoch correct train_correct feedback_1 feedback_2 feedback_3 "
    "delta_1 delta_2 delta_3 seconds"
).split()
KEY, MANY = 2, True


@cache
def digits(held_out: bool) -> data.Data:
    """MNIST; with ``held_out``, the last 10,000 training digits play the test set."""
    d = data.mnist()
    if not held_out:
        return d
    x, y = d.x_train, d.y_train
    return replace(d, x_train=x[:-10000], y_train=y[:-10000], x_test=x[-10000:], y_test=y[-10000:])


def delta_angles(net: nets.Net, rule: rules.Rule, x: Tensor, y: Tensor) -> list[float]:
    """Mean over examples of the angle between a hidden layer's error and backprop's."""
    with torch.no_grad():
        trace = net.trace(x)
        ours, exact = (r.credit(net, trace, r.teach(net, trace, y))[:-1]
                       for r in (rule, rules.Backprop(net, loss="mse")))  # fmt: skip
    cosines = (torch.nn.functional.cosine_similarity(a.double(), b.double())
               for a, b in zip(ours, exact, strict=True))  # fmt: skip
    return [float(c.clamp(-1, 1).arccos().rad2deg().mean()) for c in cosines]


def look(net: nets.Net, rule: rules.Rule, d: data.Data, epoch: float, right: float) -> dict:
    """A row: answers right in percent, angles in degrees, layers counted from below."""
    tops = [getattr(rule, f"Y{i}") for i in range(1, len(net.layers))]
    ys = [measure.angle(y, layer.weight) for y, layer in zip(tops, net.layers[1:], strict=True)]
    deltas = delta_angles(net, rule, d.x_test[:1000], d.y_test[:1000])
    row = {"epoch": epoch, "train_correct": right, **{c: "" for c in COLUMNS[5:11]}}
    row |= {f"feedback_{i}": a for i, a in enumerate(ys, 1)}
    row |= {f"delta_{i}": a for i, a in enumerate(deltas, 1)}
    return row | {"correct": 100 * (1 - measure.error_rate(net, d.x_test, d.y_test))}


def rows(setting: str, seed: int) -> Iterator[dict]:
    """Train one net; a row at the start, after FIRST updates, and after each epoch."""
    s = SETTINGS[setting]
    d, (of_net, of_rule, order) = digits(s.held_out), np.random.default_rng(seed).spawn(3)
    sizes = [784, *[500] * s.hidden, 10]
    net = nets.mlp(sizes, activation="sigmoid", output="sigmoid", rng=of_net)
    rule = rules.Burstprop(net, feedback="kolen-pollack", units="released",
                           feedback_std=s.feedback_std, rng=of_rule)  # fmt: skip
    share = 1 / BATCH if s.mean else 1.0
    optimizer = rules.released_sgd(
        net, rule, lr=share * s.lr, output_lr=share * s.output_lr, inner_lr=share * s.inner_lr,
        momentum=s.momentum, decay=s.decay,
    )  # fmt: skip
    yield look(net, rule, d, 0, float("nan"))
    updates, n = 0, len(d.x_train)
    for epoch in range(1, s.epochs + 1):
        right = 0
        for picked in torch.from_numpy(order.permutation(n)).split(BATCH):
            rule(net, d.x_train[picked], d.y_train[picked])
            right += int((rule.seen[-1].e.argmax(1) == d.y_train[picked]).sum())
            optimizer.step()
            updates += 1
            if updates == FIRST:
                yield look(net, rule, d, 0.1, float("nan"))
        yield look(net, rule, d, epoch, 100 * right / n)


def job(setting: str, seed: int) -> list[dict]:
    """Train one net to the end."""
    return list(rows(setting, seed))


def first(setting: str, seed: int) -> list[dict]:
    """The rows before training and after the first updates."""
    made = rows(setting, seed)
    return [next(made), next(made)]


def same(stored: list[dict], again: list[dict]) -> bool:
    """Before training as by default; after 200 updates within 2 points and 2 degrees."""
    for a, b, limit in zip(stored, again, (0.1, 2.0), strict=True):
        for c in set(COLUMNS[3:11]):
            if (a[c] == "") != (b[c] == "") or (a[c] and abs(float(a[c]) - float(b[c])) > limit):
                return False
    return True


def plan(get: Callable) -> None:
    """Every setting with every seed."""
    torch.set_num_threads(1)
    for seed in SEEDS:
        for setting in SETTINGS:
            get(setting, seed)
