"""How fast a rule's step is beside autograd's: python -m tools.bench

Steps are timed in turn, one of each, so that a drift of the machine's speed hits all alike; the
median ratio is what to quote.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from lib import losses, nets, rules

SIZES, BATCH = [784, 500, 500, 500, 10], 32


def seconds(steps: list[Callable[[], None]], repeats: int = 300) -> np.ndarray:
    """Wall time of each step in each repeat, shape (repeats, steps), after a warm-up."""
    out = np.zeros((repeats, len(steps)))
    for r in range(-20, repeats):
        for s, step in enumerate(steps):
            start = time.perf_counter()
            step()
            if r >= 0:
                out[r, s] = time.perf_counter() - start
    return out


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    net = nets.mlp(SIZES, activation="sigmoid", output="sigmoid", rng=rng)
    x = torch.from_numpy(rng.normal(size=(BATCH, SIZES[0]))).float()
    y = torch.from_numpy(rng.integers(0, SIZES[-1], BATCH))
    modules = [
        m
        for w, b in pairwise(SIZES)
        for m in (torch.nn.Linear(w, b), torch.nn.Sigmoid())
    ]
    twin, target = torch.nn.Sequential(*modules), torch.eye(SIZES[-1])[y]

    def autograd() -> None:
        twin.zero_grad()
        (0.5 * (twin(x) - target).square().sum(1).mean()).backward()

    def autograd_same_net() -> None:
        net.zero_grad()
        losses.value(net, net.trace(x), y, "mse").backward()

    made = {name: rules.get(name)(net) for name in rules.names()}
    steps = {"autograd, torch.nn": autograd, "autograd, our forward": autograd_same_net}
    steps |= {name: lambda rule=rule: rule(net, x, y) for name, rule in made.items()}
    took = seconds(list(steps.values()))
    print(f"{'-'.join(map(str, SIZES))}, batch {BATCH}, one thread, whole steps (forward + credit)")
    print(f"{'step':24} {'ms':>7} {'ratio to autograd':>18}")
    for s, name in enumerate(steps):
        ratio = np.median(took[:, s] / took[:, 0])
        print(f"{name:24} {1e3 * np.median(took[:, s]):7.2f} {ratio:18.2f}")


if __name__ == "__main__":
    main()
