"""How fast a rule's step is beside autograd's and Backprop's: python -m tools.bench

Steps are timed in turn, one of each, so that a drift of the machine's speed hits all alike; the
median of the ratios is what to quote.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from lib import nets, rules


def seconds(steps: list[Callable[[], object]], repeats: int = 300) -> np.ndarray:
    """Wall time of each step in each repeat, shape (repeats, steps), after a warm-up."""
    out = np.zeros((repeats, len(steps)))
    for r in range(-20, repeats):
        for s, step in enumerate(steps):
            start = time.perf_counter()
            step()
            if r >= 0:
                out[r, s] = time.perf_counter() - start
    return out


def report(title: str, steps: dict[str, Callable[[], object]], base: str) -> None:
    """Print each step's median time, and the median of its ratio to the step ``base``."""
    took = seconds(list(steps.values()))
    reference = took[:, list(steps).index(base)]
    print(f"\n{title}\n{'whole step (forward + credit)':32} {'ms':>7}   ratio to {base}")
    for s, name in enumerate(steps):
        ms, ratio = 1e3 * np.median(took[:, s]), np.median(took[:, s] / reference)
        print(f"{name:32} {ms:7.2f}   {ratio:.2f}")


def twin(sizes: list[int], activation: type[nn.Module]) -> nn.Sequential:
    """The same net in torch.nn, for autograd."""
    return nn.Sequential(*(m for i, o in pairwise(sizes) for m in (nn.Linear(i, o), activation())))


def batch(sizes: list[int], n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Inputs N(0, 1) and targets, whole classes or one real number."""
    x = torch.from_numpy(rng.normal(size=(n, sizes[0]))).float()
    if sizes[-1] == 1:
        return x, torch.from_numpy(rng.normal(size=(n, 1))).float()
    return x, torch.from_numpy(rng.integers(0, sizes[-1], n))


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    sizes = [784, 500, 500, 500, 10]
    x, y = batch(sizes, 32, rng)
    net = nets.mlp(sizes, activation="sigmoid", output="sigmoid", rng=rng)
    rule, other, target = rules.Backprop(net), twin(sizes, nn.Sigmoid), torch.eye(10)[y]
    fixed, learned = rules.FeedbackAlignment(net, rng=rng), rules.KolenPollack(net, rng=rng)

    def autograd() -> None:
        other.zero_grad()
        (0.5 * (other(x) - target).square().sum(1).mean()).backward()

    steps = {
        "autograd": autograd,
        "Backprop": lambda: rule(net, x, y),
        "FeedbackAlignment": lambda: fixed(net, x, y),
        "KolenPollack": lambda: learned(net, x, y),
    }
    report("784-500-500-500-10 sigmoid, batch 32, one thread", steps, "autograd")

    sizes = [21, 200, 100, 10, 1]
    xs, ys = batch(sizes, 64, rng)
    arm = nets.mlp(sizes, rng=rng)
    backprop, kickback = rules.Backprop(arm), rules.Kickback(arm)
    steps = {"Backprop": lambda: backprop(arm, xs, ys), "Kickback": lambda: kickback(arm, xs, ys)}
    report("21-200-100-10-1 ReLU, batch 64, one thread", steps, "Backprop")


if __name__ == "__main__":
    main()
