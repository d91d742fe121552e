"""Small nets with biases, and autograd's gradients: what the tests compare with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lib import nets

F64 = torch.float64
# downloads for machines without a network: BOOK_DATA, or a folder kept beside the checkout
DATA_FOLDER = Path(
    os.environ.get("BOOK_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)


def tensor(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers in float64."""
    return torch.from_numpy(rng.normal(scale=scale, size=shape))


def with_biases(net: nets.Net, rng: np.random.Generator) -> nets.Net:
    """The same net with biases that are not 0."""
    for layer in net.layers:
        layer.bias.data.copy_(tensor(rng, *layer.bias.shape, scale=0.3))
    return net


def _plain(act: str, out: str, rng: np.random.Generator) -> nets.Net:
    return nets.mlp([4, 6, 5, 3], activation=act, output=out, rng=rng, dtype=F64)


def _conv(act: str, out: str, rng: np.random.Generator) -> nets.Net:
    return nets.convnet(
        (2, 7, 6),
        conv=[(4, 3, 2), (3, 2, 1)],
        dense_sizes=[5, 3],
        activation=act,
        output=out,
        rng=rng,
        dtype=F64,
    )


def _residual(act: str, out: str, rng: np.random.Generator) -> nets.Net:
    return nets.residual_mlp(
        4, 5, 3, blocks=2, scale=0.7, activation=act, output=out, rng=rng, dtype=F64
    )


def _skips(act: str, out: str, rng: np.random.Generator) -> nets.Net:
    """Skips of 1, 2 and 3 layers: one from the data, two from one place, two that overlap."""
    plan = [(1, 0.5), (0, 1.0), (2, 1.3), (3, -0.8), (2, 0.6)]
    layers = [nets.dense(4, 4, act, rng=rng, dtype=F64, skip=k, gain=g) for k, g in plan]
    return nets.Net([*layers, nets.dense(4, 3, out, rng=rng, dtype=F64)])


def _from_data(act: str, out: str, rng: np.random.Generator) -> nets.Net:
    """Two skips that both start from the data, one of 2 layers."""
    plan = [(1, 0.9), (2, 1.1), (0, 1.0)]
    layers = [nets.dense(4, 4, act, rng=rng, dtype=F64, skip=k, gain=g) for k, g in plan]
    return nets.Net([*layers, nets.dense(4, 3, out, rng=rng, dtype=F64)])


BUILDERS = {
    "dense": _plain,
    "conv": _conv,
    "residual": _residual,
    "overlapping skips": _skips,
    "skips from the data": _from_data,
}


def build(kind: str, act: str, out: str, *, seed: int = 0, n: int = 6) -> tuple[nets.Net, Tensor]:
    """A net of that kind with biases, and a batch of n inputs for it."""
    rng = np.random.default_rng(seed)
    net = with_biases(BUILDERS[kind](act, out, rng), rng)
    return net, tensor(rng, n, net.layers[0].n_in)


def reference_loss(net: nets.Net, x: Tensor, y: Tensor, loss: str) -> Tensor:
    """The mean loss with PyTorch's own losses, on the net's own answer, for autograd."""
    out = net(x)
    if loss == "mse":
        t = F.one_hot(y, out.shape[1]).to(out.dtype) if y.dim() == 1 else y
        return F.mse_loss(out, t, reduction="sum") / (2 * len(x))
    if net.output == "softmax":
        return F.nll_loss(torch.log(out), y)
    t = F.one_hot(y, out.shape[1]).to(out.dtype) if y.dim() == 1 else y
    return F.binary_cross_entropy(out, t, reduction="sum") / len(x)


def autograd(net: nets.Net, x: Tensor, y: Tensor, loss: str) -> list[Tensor]:
    """d(mean loss)/d(parameter) for every parameter, by PyTorch; ``.grad`` stays as it is."""
    return list(torch.autograd.grad(reference_loss(net, x, y, loss), list(net.parameters())))


def grads(net: nets.Net) -> list[Tensor]:
    """A copy of every parameter's ``.grad``."""
    return [p.grad.clone() for p in net.parameters()]
