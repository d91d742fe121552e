"""Influence: how one unit moves the next layer's total (tau), and how it moves the answer (pi)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lib.nets import Net, Trace


def cuts(net: Net) -> list[int]:
    """The places in ``trace.values`` that every path crosses: data, ..., answer.

    Between two neighbours lies one *hop*: one layer of a plain net, one block of a residual net.
    """
    over: set[int] = set()
    for end, layer in enumerate(net.layers, start=1):
        over.update(range(end - layer.skip + 1, end) if layer.skip else ())
    return [at for at in range(len(net.layers) + 1) if at not in over]


def walk(
    net: Net, trace: Trace, signal: Tensor, high: int, low: int
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Carry a signal at ``trace.values[high]`` down by the exact derivatives between.

    Returns delta of each layer low, ..., high - 1 and the signal at each value low + 1, ..., high.
    At the answer (high = number of layers) the signal is one at the output layer's drive.
    """
    signals, deltas = {high: signal}, {}
    for index in reversed(range(low, high)):
        layer, here = net.layers[index], signals[index + 1]
        if layer.skip:
            start = index + 1 - layer.skip
            signals[start] = signals.get(start, 0) + here
            here = layer.gain * here
        if index + 1 < len(net.layers):
            here = layer.pull(here, trace.drives[index], trace.fired[index])
        deltas[index] = here
        if index > low:
            below = layer.transpose(here).reshape(trace.values[index].shape)
            signals[index] = signals.get(index, 0) + below
    return deltas, signals


@dataclass(frozen=True)
class Influence:
    """Per hidden layer, lowest first, one tensor (n, units): tau, pi, and whether units fire."""

    tau: tuple[Tensor, ...]
    pi: tuple[Tensor, ...]
    active: tuple[Tensor, ...]


@torch.no_grad()
def influence(net: Net, x: Tensor, *, output: int | Tensor | None = None) -> Influence:
    """Every hidden unit's effect on the next layer and on the answer, for each example of x.

    tau_j = sum over units k one hop up of dx_k/dx_j = sum_k s_k 1_k w_kj in a plain ReLU net;
    pi_j = da/dx_j, a the drive of the output (the answer itself where the output is linear). In
    the last hidden layer tau = pi = the output weights. ``output``: which output, one for all
    examples or one each (n,); may be left out where there is only one.
    Raises ValueError where it is left out and there are several.
    Source: the factorisation of Balduzzi et al. 2015; residual blocks are our extension.
    """
    trace, top = net.trace(x), len(net.layers)
    n, k = trace.values[-1].shape
    if output is None and k != 1:
        raise ValueError(f"this net has {k} outputs: say output=..., whose influence is meant")
    answer = torch.zeros_like(trace.values[-1])
    answer[torch.arange(n), 0 if output is None else output] = 1
    _, pi = walk(net, trace, answer, top, 0)
    tau: dict[int, Tensor] = {}
    for low, high in pairwise(cuts(net)):
        start = answer if high == top else torch.ones_like(trace.values[high])
        _, found = walk(net, trace, start, high, max(low - 1, 0))
        tau.update({at: found[at] for at in range(max(low, 1), high)})
    hidden = range(1, top)
    active = (
        (trace.drives[i - 1] > 0) | (net.layers[i - 1].activation.name != "relu") for i in hidden
    )
    return Influence(tuple(tau[i] for i in hidden), tuple(pi[i] for i in hidden), tuple(active))


@dataclass(frozen=True)
class Coherence:
    """Per hidden layer, lowest first, over active (unit, example) pairs; nan where none counts.

    ``positive``: the share with pi > 0 among those with pi not 0. ``agreement``: the share with
    sign(tau) = sign(pi) among those where neither is 0. tau > 0 alone says nothing.
    """

    positive: np.ndarray
    agreement: np.ndarray


def _share(what: Tensor, among: Tensor) -> float:
    return float(what[among].double().mean()) if among.any() else float("nan")


def coherence(net: Net, x: Tensor, *, output: int | Tensor | None = None) -> Coherence:
    """How far a net is from coherent on a batch; ``output`` and errors as in ``influence``."""
    found = influence(net, x, output=output)
    layers = list(zip(found.tau, found.pi, found.active, strict=True))
    positive = [_share(pi > 0, on & (pi != 0)) for _, pi, on in layers]
    agreement = [_share(tau * pi > 0, on & (tau * pi != 0)) for tau, pi, on in layers]
    return Coherence(np.array(positive), np.array(agreement))


def sign_flips(
    net: Net,
    x: Tensor,
    *,
    other: Net | None = None,
    group: Tensor | None = None,
    output: int | Tensor | None = None,
) -> np.ndarray:
    """How often the sign of a unit's effect pi_j differs, per hidden layer, lowest first.

    Without ``other``: the probability that it differs between two different examples of x, over
    all pairs (counted, not sampled) and units; with ``group`` (n,), class numbers say, only pairs
    within one group. With ``other``, the same net at another time: the share of (unit, example)
    whose sign differs between the two. Where pi is 0 there is no sign and no pair; nan where
    none is left. 0 = never, 0.5 = as by chance. Errors as in ``influence``.
    """
    pis = influence(net, x, output=output).pi
    if other is not None:
        others = influence(other, x, output=output).pi
        return np.array([_share(p * q < 0, p * q != 0) for p, q in zip(pis, others, strict=True)])
    shares, everyone = [], [torch.ones(len(x), dtype=torch.bool)]
    groups = everyone if group is None else [group == one for one in group.unique()]
    for pi in pis:
        differ = pairs = 0.0
        for rows in groups:
            up, down = (pi[rows] > 0).double().sum(0), (pi[rows] < 0).double().sum(0)
            differ += float((up * down).sum())
            pairs += float(((up + down) * (up + down - 1) / 2).sum())
        shares.append(differ / pairs if pairs else float("nan"))
    return np.array(shares)
