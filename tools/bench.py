"""How fast each rule's step is beside Backprop's and autograd's: python -m tools.bench

Steps are timed in turn, one of each, so that a drift of the machine's speed hits all alike, in
processor time; the median of the ratios is what to quote. The ratios that have a bar go into
book/appendix/bench.csv (see tools/bars.py).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from lib import losses, nets, rules
from tools.bars import record


def seconds(steps: list[Callable[[], object]], repeats: int) -> np.ndarray:
    """Processor time of each step in each repeat, shape (repeats, steps), after a warm-up."""
    out = np.zeros((repeats, len(steps)))
    for r in range(-5, repeats):
        for s, step in enumerate(steps):
            step()  # so that each starts with its own weights in the cache, not its neighbour's
            start = time.process_time()
            step()
            if r >= 0:
                out[r, s] = time.process_time() - start
    return out


def report(
    title: str,
    steps: dict[str, Callable[[], object]],
    base: str,
    *,
    n: int | None = None,
    repeats: int,
) -> dict[str, float]:
    """Print each step's median time, samples/s, and the median of its ratio to ``base``."""
    took = seconds(list(steps.values()), repeats)
    reference = took[:, list(steps).index(base)]
    print(f"\n{title}\n{'':22} {'ms':>8} {'samples/s':>10}   ratio to {base}")
    for s, name in enumerate(steps):
        ms, ratio = 1e3 * np.median(took[:, s]), np.median(took[:, s] / reference)
        rate = f"{1e3 * n / ms:10.0f}" if n else " " * 10
        print(f"{name:22} {ms:8.2f} {rate}   {ratio:.2f}")
    ratios = np.median(took / reference[:, None], axis=0)
    return dict(zip(steps, map(float, ratios), strict=True))


def twin(sizes: list[int], activation: type[nn.Module]) -> nn.Sequential:
    """The same net in torch.nn, for autograd."""
    return nn.Sequential(*(m for i, o in pairwise(sizes) for m in (nn.Linear(i, o), activation())))


def batch(sizes: list[int], n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Inputs N(0, 1) and targets, whole classes or one real number."""
    x = torch.from_numpy(rng.normal(size=(n, sizes[0]))).float()
    if sizes[-1] == 1:
        return x, torch.from_numpy(rng.normal(size=(n, 1))).float()
    return x, torch.from_numpy(rng.integers(0, sizes[-1], n))


def made(name: str, net: nets.Net, rng: np.random.Generator) -> rules.Rule:
    """A registered rule with the least it asks for: one draw, or one pair."""
    least = {"rng": rng, "sigma": 0.01, "samples": 1, "population": 2}
    wanted = inspect.signature(rules.get(name)).parameters
    if name == "reinforce":  # passes its options on
        wanted = least.keys() - {"population"}
    return rules.get(name)(net, **{key: least[key] for key in wanted if key in least})


def every_rule(rng: np.random.Generator) -> None:
    """Each rule's step on the 784-500-500-500-10 net, beside Backprop's."""
    sizes = [784, 500, 500, 500, 10]
    x, y = batch(sizes, 32, rng)
    net = nets.mlp(sizes, activation="sigmoid", output="sigmoid", rng=rng)
    other, target = twin(sizes, nn.Sigmoid), torch.eye(10)[y]

    def autograd() -> None:
        other.zero_grad()
        (0.5 * (other(x) - target).square().sum(1).mean()).backward()

    steps = {"backprop": None, "autograd": autograd}
    for name in rules.names():
        try:
            rule = made(name, net, rng)
            rule(net, x, y)
        except (TypeError, ValueError) as error:  # a rule for other nets, such as Kickback
            print(f"{name}: not on this net ({str(error)[:60]}...)")
            continue
        steps[name] = partial(rule, net, x, y)
    title = "784-500-500-500-10 sigmoid, batch 32, one thread"
    found = report(title, steps, "backprop", n=32, repeats=40)
    record("Backprop to autograd, 784–500–500–500–10", 1 / found["autograd"], "at most 1.15")
    for name in ("feedback alignment", "direct feedback", "kolen-pollack"):
        bar = "at most 1.35" if name == "kolen-pollack" else "at most 1.2"
        record(f"{name} to Backprop, the same net", found[name], bar)


def population(rng: np.random.Generator, activation: str) -> None:
    """An evolution strategy's 64 pairs on a digits net: one batched pass, and a loop over them."""
    sizes = [64, 32, 32, 10]
    x, y = batch(sizes, 50, rng)
    net = nets.mlp(sizes, activation=activation, output="softmax", rng=rng)
    rule = rules.EvolutionStrategy(net, rng=rng, sigma=0.1, population=128)
    params = list(net.parameters())
    start = [p.detach().clone() for p in params]
    parts = [p.numel() for p in params]
    w = nn.utils.parameters_to_vector(params).detach()

    def draw() -> Tensor:
        return 0.1 * torch.from_numpy(rng.standard_normal((64, len(w)))).to(w)

    def loop(steps: Tensor) -> Tensor:
        out = []
        for member in torch.cat([w + steps, w - steps]):
            for p, part in zip(params, member.split(parts), strict=True):
                p.copy_(part.view_as(p))
            out.append(losses.value(net, net.trace(x), y, "cross_entropy"))
        for p, was in zip(params, start, strict=True):
            p.copy_(was)
        return torch.stack(out).view(2, 64)

    def whole() -> None:
        steps = draw()
        up, down = loop(steps)
        (up - down) / 2 @ steps
        losses.value(net, net.trace(x), y, "cross_entropy")

    fixed = draw()
    with torch.no_grad():
        assert torch.allclose(loop(fixed), rule._losses(net, x, y, fixed, (1, -1)), rtol=1e-4)
        once = {"one pass": lambda: rule._losses(net, x, y, fixed, (1, -1))}
        step = {"EvolutionStrategy": lambda: rule(net, x, y), "with a loop": whole}
        title = f"64-32-32-10 {activation}, batch 50, 64 pairs"
        both = {**once, "loop": lambda: loop(fixed)}
        found = report(f"{title}: the losses", both, "one pass", repeats=60)
        what = f"64 pairs of an evolution strategy in a loop to one pass, {activation}"
        record(what, found["loop"], "at least 5")
        report(f"{title}: the whole step, draws too", step, "EvolutionStrategy", repeats=60)


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    every_rule(rng)
    for activation in ("relu", "tanh"):
        population(rng, activation)

    sizes = [21, 200, 100, 10, 1]
    xs, ys = batch(sizes, 64, rng)
    arm = nets.mlp(sizes, rng=rng)
    backprop, kickback = rules.Backprop(arm), rules.Kickback(arm)
    steps = {"backprop": lambda: backprop(arm, xs, ys), "kickback": lambda: kickback(arm, xs, ys)}
    title = "21-200-100-10-1 ReLU, batch 64, one thread"
    found = report(title, steps, "backprop", n=64, repeats=300)
    record("Kickback to Backprop, 21–200–100–10–1", found["kickback"], "at most 1.2")


if __name__ == "__main__":
    main()
