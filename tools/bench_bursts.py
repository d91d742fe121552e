"""How fast Burstprop's step is: python -m tools.bench_bursts

Beside autograd's, and beside the same rule written plainly, one phase after the other. Steps are
timed in turn, one of each, in processor time, so that other work on the machine hits all alike;
then one pass over 60,000 images, step and optimizer. All on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lib import nets, rules
from lib.nets import Net
from tools.bars import record
from tools.bench import twin

SIZES = [784, 500, 500, 500, 10]


def seconds(steps: list[Callable[[], object]], repeats: int) -> np.ndarray:
    """Processor time of each step in each repeat, shape (repeats, steps), after a warm-up."""
    out = np.zeros((repeats, len(steps)))
    for r in range(-repeats // 10, repeats):
        for s, step in enumerate(steps):
            start = time.process_time()
            step()
            if r >= 0:
                out[r, s] = time.process_time() - start
    return out


def report(title: str, steps: dict[str, Callable[[], object]], repeats: int) -> np.ndarray:
    """Print each step's median time and its ratio to the first step's (median, quartiles)."""
    took = seconds(list(steps.values()), repeats)
    print(f"\n{title}\n{'whole step (forward + credit)':42} {'ms':>7}   ratio to autograd")
    for s, name in enumerate(steps):
        ratios = took[:, s] / took[:, 0]
        ms, (low, mid, high) = 1e3 * np.median(took[:, s]), np.percentile(ratios, [25, 50, 75])
        print(f"{name:42} {ms:7.2f}   {mid:.2f} [{low:.2f}, {high:.2f}]")
    return took


@torch.no_grad()
def two_phases(net: Net, rule: rules.Burstprop, x: Tensor, y: Tensor) -> None:
    """Burstprop as the paper tells it: a pass without the teacher, a pass with it, the updates.

    Each pass runs the net and brings its own bursts down. Same ``.grad`` as the rule's.
    """
    target, layers, top = torch.eye(10)[y], net.layers, len(net.layers) - 1
    phases = []
    for taught in (False, True):
        e = [x]
        for layer in layers:
            e.append(torch.sigmoid(torch.nn.functional.linear(e[-1], layer.weight, layer.bias)))
        p = torch.full_like(e[-1], rule.p0)
        if taught:
            p = p * (1 + (target - e[-1]) * (1 - e[-1]))
        bursts, inside = [p * e[-1]], []
        for index in range(top, 0, -1):
            f = bursts[0] @ rule.feedback(net, index)
            still = torch.sigmoid(phases[0][3][index - 1] if taught else f) * e[index]
            u = f * (1 - e[index]) - still @ rule.get_parameter(f"Z{index - 1}").t()
            bursts.insert(0, torch.sigmoid(u) * e[index])
            inside.insert(0, (u, still, f))
        phases.append((e, bursts, inside, [f for _, _, f in inside]))
    (e, quiet, inside, _), (_, loud, _, _) = phases
    for index, layer in enumerate(layers):
        scale = (len(x) * rule.p0) * 0.25 ** (top - index)
        delta = (quiet[index] - loud[index]) / scale
        layer.weight.grad, layer.bias.grad = delta.t() @ e[index], delta.sum(0)
        if index:
            rule.feedback(net, index).grad = delta.t() @ e[index]
        if index < top:
            u, still, _ = inside[index]
            grad = -rule.recurrent_rate * (u.t() @ still) / len(x)
            rule.get_parameter(f"Z{index}").grad = grad


def images(sizes: tuple[int, ...], n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Inputs N(0, 1) and classes 0 to 9."""
    x = torch.from_numpy(rng.normal(size=(n, *sizes)).astype(np.float32))
    return x, torch.from_numpy(rng.integers(0, 10, n))


def autograd(twin: nn.Module, x: Tensor, y: Tensor) -> None:
    """What Backprop does, by PyTorch: half the squared error, its gradients."""
    twin.zero_grad()
    (0.5 * (twin(x) - torch.eye(10)[y]).square().sum(1).mean()).backward()


def dense(rng: np.random.Generator) -> None:
    """The paper's MNIST net."""
    net = nets.mlp(SIZES, activation="sigmoid", output="sigmoid", rng=rng)
    fixed = rules.Burstprop(net, recurrent=False, rng=rng)
    full = rules.Burstprop(net, feedback="kolen-pollack", rng=rng)
    single = rules.BurstCCN(net, rng=rng)
    other, (x, y) = twin(SIZES, nn.Sigmoid), images((784,), 32, rng)
    steps = {
        "autograd": lambda: autograd(other, x, y),
        "Burstprop, learned Y, recurrent": lambda: full(net, x, y),
        "the same, one phase after the other": lambda: two_phases(net, full, x, y),
        "Burstprop, fixed Y, not recurrent": lambda: fixed(net, x, y),
        "BurstCCN, fixed Y, Q = Y/2": lambda: single(net, x, y),
    }
    took = report("784-500-500-500-10 sigmoid, batch 32, one thread", steps, 300)
    print(f"one phase after the other / stacked: {np.median(took[:, 2] / took[:, 1]):.2f}")
    whole, plain, single = np.median(took[:, [1, 2, 4]] / took[:, [0, 1, 0]], axis=0)
    record("Burstprop to autograd, 784–500–500–500–10", whole, "at most 1.9")
    record("its phases one after the other to both at once", plain, "at least 2.3")
    record("BurstCCN to autograd, the same net", single, "at most 1.9")


def conv(rng: np.random.Generator) -> None:
    """The paper's CIFAR-10 net."""
    plan, shape = [(64, 5, 2), (128, 5, 2), (256, 3, 1)], (3, 32, 32)
    net = nets.convnet(
        shape, conv=plan, dense_sizes=[1024, 10], activation="sigmoid", output="sigmoid", rng=rng
    )
    rule = rules.Burstprop(net, feedback="kolen-pollack", rng=rng)
    parts, c_in = [], 3
    for c_out, kernel, stride in plan:
        parts += [nn.Conv2d(c_in, c_out, kernel, stride), nn.Sigmoid()]
        c_in = c_out
    parts += [nn.Flatten(), nn.Linear(2304, 1024), nn.Sigmoid(), nn.Linear(1024, 10), nn.Sigmoid()]
    other, (x, y) = nn.Sequential(*parts), images(shape, 32, rng)
    steps = {
        "autograd": lambda: autograd(other, x, y),
        "Burstprop, learned Y, recurrent": lambda: rule(net, x, y),
    }
    took = report("3 convolutions, 1024, 10 on 3 x 32 x 32, batch 32, one thread", steps, 30)
    ratio = float(np.median(took[:, 1] / took[:, 0]))
    record("Burstprop to autograd, convolutions on 3 × 32 × 32", ratio, "at most 2.2")


def epoch(rng: np.random.Generator) -> None:
    """60,000 images in batches of 32, the rule's step and the optimizer's."""
    net = nets.mlp(SIZES, activation="sigmoid", output="sigmoid", rng=rng)
    rule = rules.Burstprop(net, feedback="kolen-pollack", units="released", rng=rng)
    optimizer = rules.released_sgd(
        net, rule, lr=0.1, output_lr=0.01, inner_lr=1e-4, momentum=0.8, decay=1e-6
    )
    x, y = images((784,), 60_000, rng)
    wall, used = time.perf_counter(), time.process_time()
    for picked in torch.from_numpy(rng.permutation(60_000)).split(32):
        rule(net, x[picked], y[picked])
        optimizer.step()
    wall, used = time.perf_counter() - wall, time.process_time() - used
    print("\nBurstprop, 784-500-500-500-10, learned Y, recurrent, and released_sgd: 60,000 images")
    print(f"{wall:.1f} s by the clock, {used:.1f} s of processor time")


def main() -> None:
    rng = np.random.default_rng(0)
    torch.set_num_threads(1)
    dense(rng)
    conv(rng)
    epoch(rng)


if __name__ == "__main__":
    main()
