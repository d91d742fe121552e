"""Can a coherent net be trained? Width n and 2n, signs free or kept, backprop or Kickback.

    python -m lib.runs run book/runs/coherence.toml

trains every combination on three tasks. One job is one combination at one learning rate: its nets
(one per seed) train at once, as one stack. ``check`` compares a step of a stack with the library's
own rule, net by net.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from lib import data, nets, rules

COLUMNS = "part task factor rule signs rate seed nmse noise_gain".split()
KEY, MANY = 6, True
TASKS = {"saw": (8, 8, 8, 8), "parity": (16, 16, 16), "teacher": (16, 16, 16)}  # hidden, factor 1
RULES, SIGNS, FACTORS = ("backprop", "kickback"), ("free", "coherent"), (1, 2)
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TUNE, TEST = range(1000, 1010), range(30)
STEPS, BATCH, SOLVED = 4000, 32, 0.05  # solved: test nMSE below it


@dataclass(frozen=True)
class Run:
    """One net to train."""

    rule: str
    signs: str
    rate: float
    seed: int


def tent(x: np.ndarray) -> np.ndarray:
    """Up from 0 to 1 on the first half of [0, 1], down again on the second."""
    return 1 - np.abs(2 * x - 1)


def examples(task: str, seed: int) -> tuple[np.ndarray, ...]:
    """x, t to learn from, x, t to test on; inputs and targets standardised."""
    rng = np.random.default_rng([seed, 7])
    if task == "teacher":
        d = data.teacher([10, 8, 8, 8, 1], activation="relu", n_train=4000, n_test=1000, rng=rng)
        return tuple(a.numpy() for a in (d.x_train, d.y_train, d.x_test, d.y_test))
    if task == "parity":  # all 64 cases: is the function found, not does it generalise
        x = np.array(list(np.ndindex(*[2] * 6))) * 2.0 - 1
        t = np.prod(x, axis=1, keepdims=True)
        return x, t, x, t
    x, grid = rng.uniform(size=(512, 1)), np.linspace(0, 1, 1001)[:, None]
    pairs = [((u - 0.5) * 12**0.5, (tent(tent(tent(u))) - 0.5) * 12**0.5) for u in (x, grid)]
    return *pairs[0], *pairs[1]


def begin(task: str, factor: int, run: Run) -> tuple[nets.Net, tuple[np.ndarray, ...]]:
    """A net and its data. Both kinds start from the same draw; "coherent" then takes its signs."""
    sets = examples(task, run.seed)
    sizes = [sets[0].shape[1], *(factor * n for n in TASKS[task]), 1]
    net = nets.mlp(
        sizes,
        activation="signed_relu",
        rng=np.random.default_rng(run.seed),
        dtype=torch.float64,
        init="coherent" if run.signs == "coherent" else "default",
    )
    nets.calibrate(net, torch.from_numpy(sets[0]), rng=np.random.default_rng([run.seed, 1]))
    for p in net.layers[-1].parameters():
        p.data *= 0.3
    return net, sets


class Stack:
    """Many nets of one shape, each with its own data, rule, signs and learning rate (Adam)."""

    def __init__(self, task: str, factor: int, runs: Sequence[Run], dtype: torch.dtype) -> None:
        made = [begin(task, factor, run) for run in runs]
        columns = zip(*(sets for _, sets in made), strict=True)
        stacked = [torch.from_numpy(np.stack(part)).to(dtype) for part in columns]
        self.x, self.t, self.x_test, self.t_test = stacked
        layers = list(zip(*(net.layers for net, _ in made), strict=True))
        self.w = [torch.stack([la.weight.detach() for la in g]).to(dtype) for g in layers]
        self.b = [torch.stack([la.bias.detach() for la in g])[:, None].to(dtype) for g in layers]
        self.s = [layer.sign.to(dtype) for layer in made[0][0].layers[:-1]]
        self.kick = torch.tensor([r.rule == "kickback" for r in runs])[:, None, None]
        self.keep = torch.tensor([r.signs == "coherent" for r in runs])[:, None, None]
        self.rate = torch.tensor([r.rate for r in runs], dtype=dtype)[:, None, None]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.w + self.b]

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Every layer's input, then the answer; s 1[a > 0] of the hidden layers."""
        values, on = [x], []
        for layer, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            a = torch.baddbmm(b, values[-1], w.transpose(1, 2))
            if layer < len(self.s):
                on.append((a > 0) * self.s[layer])
                a = a * on[-1]
            values.append(a)
        return values, on

    def told(self, on: list[Tensor], kick: Tensor) -> list[Tensor]:
        """Per hidden layer what multiplies the global error: tau where ``kick``, else pi."""
        out = [self.w[-1].expand_as(on[-1])]
        for layer in range(len(on) - 1, 0, -1):
            above = on[layer] * torch.where(kick, 1.0, out[0])
            out.insert(0, above @ self.w[layer])
        return out

    def gradients(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """What each net's rule uses as gradient: all weights, then all biases."""
        values, on = self.forward(x)
        beta = (values[-1] - t) / x.shape[1]
        deltas = [beta * m * o for m, o in zip(self.told(on, self.kick), on, strict=True)] + [beta]
        dw = [d.transpose(1, 2) @ h for d, h in zip(deltas, values[:-1], strict=True)]
        return dw + [d.sum(1, keepdim=True) for d in deltas]

    def step(self, at: Tensor, number: int, decay: float) -> None:
        """One Adam step on the examples ``at``, then the projection where signs are kept."""
        grads = self.gradients(self.x[:, at], self.t[:, at])
        fix1, fix2 = 1 - 0.9**number, 1 - 0.999**number
        for p, g, (m, v) in zip(self.w + self.b, grads, self.moments, strict=True):
            m.lerp_(g, 0.1)
            v.lerp_(g * g, 0.001)
            p -= decay * self.rate * (m / fix1) / ((v / fix2).sqrt() + 1e-8)
        signs = [*self.s[1:], torch.ones(1, dtype=self.s[0].dtype)]
        for w, s in zip(self.w[1:], signs, strict=True):
            w[self.keep & (w * s[:, None] < 0)] = 0.0

    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """Test nMSE, and output noise per relative noise of every hidden unit (to first order)."""
        values, on = self.forward(self.x_test)
        error = (values[-1] - self.t_test).square().mean((1, 2)) / self.t_test.var((1, 2))
        pi = self.told(on, torch.tensor(False))
        noise = sum((p * h).square().sum(2).mean(1) for p, h in zip(pi, values[1:-1], strict=True))
        return error.numpy(), (noise / values[-1].var((1, 2))).sqrt().numpy()


def train(task: str, factor: int, runs: Sequence[Run], steps: int = STEPS) -> list[dict]:
    """Train all runs and return one row each."""
    stack = Stack(task, factor, runs, torch.float32)
    rng = np.random.default_rng(0)
    for i in range(steps):
        at = torch.from_numpy(rng.choice(stack.x.shape[1], BATCH, replace=False))
        stack.step(at, i + 1, 0.5 * (1 + np.cos(np.pi * i / steps)))
    error, noise = stack.scores()
    error = np.where(np.isfinite(error), error, np.inf)
    return [
        {"seed": r.seed, "nmse": f"{e:.3g}", "noise_gain": f"{g:.3g}"}
        for r, e, g in zip(runs, error, noise, strict=True)
    ]


def check(seed: int = 0) -> float:
    """The largest difference between a stack's gradients and the library's, in float64."""
    off = 0.0
    for task, factor in product(TASKS, FACTORS):
        runs = [Run(rule, signs, 0.0, seed) for rule, signs in product(RULES, SIGNS)]
        stack = Stack(task, factor, runs, torch.float64)
        found = stack.gradients(stack.x[:, :BATCH], stack.t[:, :BATCH])
        for i, run in enumerate(runs):
            net, sets = begin(task, factor, run)
            rule = rules.get(run.rule)(net)
            rule(net, *(torch.from_numpy(a[:BATCH]) for a in sets[:2]))
            theirs = [la.weight.grad for la in net.layers] + [la.bias.grad for la in net.layers]
            off = max(
                off, *(float((f[i] - g).abs().max()) for f, g in zip(found, theirs, strict=True))
            )
    return off


def job(part: str, task: str, factor: int, rule: str, signs: str, rate: float) -> list[dict]:
    """Train one combination on the seeds of its part."""
    seeds = TUNE if part == "tune" else TEST
    return train(task, factor, [Run(rule, signs, rate, seed) for seed in seeds])


def plan(get: Callable) -> None:
    """Tune on seeds of their own, then train the test seeds at each combination's best rate."""
    torch.set_num_threads(1)
    for task, factor in product(TASKS, FACTORS):
        best = {}
        for how in product(RULES, SIGNS):
            rank = {}
            for rate in RATES:
                tried = get("tune", task, factor, *how, rate)
                e = np.array([float(row["nmse"]) for row in tried])
                rank[rate] = -(e < SOLVED).sum(), np.median(e)
            best[how] = min(rank, key=rank.get)  # most solved, then the smallest median
        for how in product(RULES, SIGNS):
            get("test", task, factor, *how, best[how])


def same(stored: list[dict], again: list[dict]) -> bool:
    """The same nets: as many solved but for three, and a median nMSE within a factor of two.

    Single nets may end elsewhere on another kind of processor: thousands of steps amplify rounding.
    """
    then, now = (np.array([float(row["nmse"]) for row in rows]) for rows in (stored, again))
    solved = abs(int((then < SOLVED).sum()) - int((now < SOLVED).sum()))
    medians = [max(float(np.median(e)), 1e-4) for e in (then, now)]  # below it all is solved
    return len(then) == len(now) and solved <= 3 and 0.5 <= medians[0] / medians[1] <= 2
