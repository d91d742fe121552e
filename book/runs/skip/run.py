"""Nets trained with truncated credit, with and without skips: the stored run of kickback/skip.

    python -m lib.runs run book/runs/skip.toml

One job trains one net. Jobs of phase "tune" learn four fifths of the training set and are scored
on the last fifth; jobs of phase "test" learn the whole training set at the rate whose mean score
over the tuning seeds is best (the lowest of equals), and are scored once on the test set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from lib import data, measure, nets, rules, train

WIDTH, BATCH = 32, 50
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
TUNING_SEEDS, SEEDS = range(100, 102), range(6)
EPOCHS = {"digits": (15, 5), "odd or even": (15, 5), "MNIST-1D": (12, 4)}  # at lr, at lr/10
PLANS = (  # task, blocks, {net: what it is told}
    ("digits", (16,), {
        "residual": ("backprop", "skip", "hop", "frozen", "tags"),
        "plain": ("backprop", "skip", "hop"),
    }),
    ("MNIST-1D", (16,), {"residual": ("backprop", "hop", "frozen")}),
    ("odd or even", (16,), {
        "residual": ("backprop", "hop", "ones", "frozen"),
        "plain": ("backprop", "ones"),
    }),
    ("digits", (4, 8), {
        "residual": ("backprop", "skip", "hop", "frozen"),
        "plain": ("backprop", "skip", "hop"),
    }),
    ("digits", (16,), {"plain": ("frozen",)}),
)  # fmt: skip
COLUMNS = (
    "task blocks net credit phase lr seed accuracy train_loss cos_start cos_end fingerprint seconds"
).split()
KEY = 7


def load(task: str) -> data.Data:
    """The task's data in float64; "odd or even" is digits with one 0/1 target."""
    if task == "MNIST-1D":
        return data.mnist1d(dtype=torch.float64)
    d = data.digits(dtype=torch.float64)
    if task == "digits":
        return d
    odd = [(y % 2).double()[:, None] for y in (d.y_train, d.y_test)]
    return replace(d, y_train=odd[0], y_test=odd[1], n_classes=2)


def held_out(d: data.Data) -> data.Data:
    """The first fifth of the training set plays the test set."""
    n = len(d.x_train) // 5
    x, y = d.x_train, d.y_train
    return replace(d, x_train=x[n:], y_train=y[n:], x_test=x[:n], y_test=y[:n])


def build(d: data.Data, blocks: int, kind: str, *, rng: np.random.Generator) -> nets.Net:
    """A residual net, or the same layers with the same weights and without skips."""
    n_out, output = (1, "sigmoid") if d.n_classes == 2 else (10, "softmax")
    net = nets.residual_mlp(
        d.x_train.shape[1],
        WIDTH,
        n_out,
        blocks=blocks,
        output=output,
        rng=rng,
        dtype=torch.float64,
    )
    if kind == "plain":
        for layer in net.layers:
            layer.skip, layer.gain = 0, 1.0
    return net


def make_rule(net: nets.Net, kind: str, credit: str, rng: np.random.Generator) -> rules.Rule:
    """One block is one hop of a residual net and two of a plain one, whose hops are layers."""
    hop = 1 if kind == "residual" else 2
    if credit in ("backprop", "frozen"):
        return rules.Backprop(net, loss="cross_entropy")
    hops, above = {
        "skip": (0, "head"),
        "hop": (hop, "head"),
        "ones": (hop, "ones"),
        "tags": (hop, "tags"),
    }[credit]
    return rules.Kickback(net, hops=hops, above=above, loss="cross_entropy", rng=rng)


def cosine(net: nets.Net, rule: rules.Rule, d: data.Data) -> float:
    """Cosine of what the rule writes with the gradient, over the embedding and all blocks but
    the last two, whose credit is exact after one hop; 512 training examples."""
    below, found = len(net.layers) - 5, []
    for r in (rule, rules.Backprop(net, loss="cross_entropy")):
        r(net, d.x_train[:512], d.y_train[:512])
        found.append(np.concatenate([g.ravel() for g in measure.gradients(net)[:below]]))
    return float(np.cos(np.radians(measure.angle(*found))))


def job(task: str, blocks: int, kind: str, credit: str, phase: str, lr: float, seed: int) -> dict:
    """Train one net: what the row of results says of it."""
    d = held_out(load(task)) if phase == "tune" else load(task)
    net = build(d, blocks, kind, rng=np.random.default_rng(seed))
    print_ = nets.fingerprint(net)
    rule = make_rule(net, kind, credit, np.random.default_rng([seed, 1]))
    learning = net.parameters()
    if credit == "frozen":  # only the embedding and the head learn
        learning = [*net.layers[0].parameters(), *net.layers[-1].parameters()]
    optimizer = torch.optim.Adam(learning, lr=lr, fused=True)
    order, at_start, accuracy, loss = np.random.default_rng([seed, 2]), cosine(net, rule, d), 0, 0
    try:
        for epochs, rate in zip(EPOCHS[task], (lr, lr / 10), strict=True):
            optimizer.param_groups[0]["lr"] = rate
            past = train.fit(net, rule, d, epochs=epochs, batch_size=BATCH, optimizer=optimizer,
                             rng=order, progress=False)  # fmt: skip
        accuracy, loss, at_end = 1 - past["test_error"][-1], past["train_loss"][-1], None
        at_end = cosine(net, rule, d)
    except (FloatingPointError, ValueError):  # diverged, or no gradient is left to compare with
        at_end = float("nan")
    return {
        "accuracy": round(float(accuracy), 6),
        "train_loss": f"{loss:.4g}",
        "cos_start": f"{at_start:.4f}",
        "cos_end": f"{at_end:.4f}",
        "fingerprint": print_,
    }


def plan(get: Callable) -> None:
    """Tune every combination, then test it at its best rate."""
    torch.set_num_threads(1)
    for task, depths, kinds in PLANS:
        for blocks in depths:
            for kind, credits in kinds.items():
                for credit in credits:
                    what = task, blocks, kind, credit
                    tries = [[get(*what, "tune", lr, s) for s in TUNING_SEEDS] for lr in RATES]
                    scores = [np.mean([float(r["accuracy"]) for r in row]) for row in tries]
                    lr = RATES[int(np.argmax(scores))]
                    for seed in SEEDS:
                        get(*what, "test", lr, seed)


def same(stored: dict, again: dict) -> bool:
    """Equal initial weights, and an accuracy within two percentage points."""
    off = abs(float(stored["accuracy"]) - float(again["accuracy"]))
    return stored["fingerprint"] == again["fingerprint"] and off <= 0.02
