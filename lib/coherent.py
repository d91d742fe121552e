"""Coherent nets: every unit's effect on the answer is positive (or zero), by the weights' signs.

A net is coherent where, above its first layer, every weight into a unit of sign s has sign s (or
is 0), the output weights being positive; first-layer weights and all biases are free. Its public
functions are also found in ``lib.nets``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lib.nets import Dense, Layer, Net


def _signed(layer: Layer) -> Tensor:
    """The weights times their units' signs: what must not be negative."""
    w = layer.weight.detach()
    return w if layer.sign is None else w * layer.sign.reshape(-1, *[1] * (w.dim() - 1))


def require_coherent(net: Net) -> None:
    """Raise a ValueError saying where and why a net is not coherent; do nothing where it is."""
    for index, layer in enumerate(net.layers):
        name, gain = layer.activation.name, layer.gain if layer.skip else 1.0
        if gain < 0 or (name == "softmax" and index < len(net.layers) - 1):
            why = f"its gain is {gain:g}" if gain < 0 else "softmax units push each other down"
            raise ValueError(f"the net is not coherent: in layer {index}, {why}")
        signed = _signed(layer)
        if index and not (signed >= 0).all():
            flat = int((~(signed >= 0)).flatten().nonzero()[0, 0])
            k, j = divmod(flat, signed[0].numel())
            raise ValueError(
                f"the net is not coherent: in layer {index}, {int((~(signed >= 0)).sum())} of "
                f"{signed.numel()} weights have the wrong sign, first the one from {j} into unit "
                f"{k}, {float(layer.weight.detach().flatten()[flat]):.3g}; build it with "
                'init="coherent", or call nets.project_coherent(net)'
            )


def is_coherent(net: Net) -> bool:
    """Whether every weight above the first layer has its unit's sign, or is 0."""
    try:
        require_coherent(net)
    except ValueError:
        return False
    return True


@torch.no_grad()
def project_coherent(net: Net) -> None:
    """Set to 0, in place, every weight above the first layer that has not its unit's sign.

    w := s max(0, s w), the nearest coherent net. Call it after each step of the optimizer.
    """
    for layer in net.layers[1:]:
        layer.weight[_signed(layer) < 0] = 0.0


@torch.no_grad()
def calibrate(net: Net, x: Tensor, *, rng: np.random.Generator) -> None:
    """Scale a plain net's layers in place, lowest first, by what they do on a batch x.

    Every layer's weights are divided by one number, so that its drives vary with standard
    deviation 1 over examples; biases remove each unit's mean and, in hidden layers, add a random
    threshold from N(0, 1). Weights keep their signs. Without the scale absolute He weights grow
    by about sqrt(n/pi) a layer; without thresholds all units of a deep coherent layer follow one
    common mode. Raises ValueError for a net with skips.
    """
    for index, layer in enumerate(net.layers):
        if layer.skip:
            raise ValueError(f"layer {index} has a skip: calibrate is for plain nets")
        layer.bias.zero_()
        drive = net.trace(x).drives[index].transpose(0, 1).flatten(1)
        mean = drive.mean(1)
        scale = (drive - mean[:, None]).square().mean().sqrt()
        scale = scale if scale > 0 else torch.ones_like(scale)
        layer.weight /= scale
        layer.bias -= mean / scale
        if index < len(net.layers) - 1:
            layer.bias += torch.from_numpy(rng.normal(size=len(mean))).to(x.dtype)


@torch.no_grad()
def prepare(
    net: Net, *, signs: Sequence[Sequence[int] | None] | None, init: str, rng: np.random.Generator
) -> None:
    """What ``nets.mlp`` does with ``signs`` and ``init``, on a fresh plain net, in place.

    Coherent: weights s abs(w) above the first layer, then ``calibrate`` on 512 inputs from N(0, 1),
    so meant for standardised data; outputs vary with standard deviation 1, close to the default
    net's at 1 to 8 hidden layers. Raises ValueError for another ``init``, signs that do not fit,
    or hidden units other than ReLU.
    """
    if init not in ("default", "coherent"):
        raise ValueError(f'unknown init {init!r}; expected "default" or "coherent"')
    hidden = net.layers[:-1]
    for index, layer in enumerate(hidden):
        if layer.activation.name != "relu":
            raise ValueError(
                f'signs and init="coherent" are for relu and signed_relu: layer {index} is '
                f"{layer.activation.name}"
            )
    if signs is not None and len(signs) != len(hidden):
        raise ValueError(
            f"expected signs for {len(hidden)} hidden layers, found {len(signs)}; None stands for "
            "a layer's own"
        )
    for index, (layer, given) in enumerate(zip(hidden, signs or (), strict=False)):
        if given is None:
            continue
        sign, n = torch.as_tensor(given).to(layer.weight.dtype), layer.n_out
        if sign.shape != (n,) or not (sign.abs() == 1).all():
            raise ValueError(f"expected {n} signs +1 or -1 for layer {index}, found {given}")
        layer.sign = sign
    if init == "coherent":
        for layer in net.layers[1:]:
            layer.weight[_signed(layer) < 0] *= -1
        x = torch.from_numpy(rng.normal(size=(512, net.layers[0].n_in)))
        calibrate(net, x.to(net.layers[0].weight.dtype), rng=rng)


@torch.no_grad()
def dual_rail(net: Net) -> Net:
    """A coherent net that computes the same function, with every unit kept twice.

    Each unit h = relu(a) becomes p = h of sign +1 and q = -h of sign -1. With P = max(W, 0) and
    Q = max(-W, 0), a positive unit reads [P Q], a negative one -[Q P], so both get the drive
    P h - Q h = W h; the first layer is copied. The last hidden layer is not doubled where there
    is one output: a unit takes the sign of its output weight. Exact but for rounding, whose gain
    grows like sqrt(n/pi) a layer.
    Raises ValueError for convolutions, skips and hidden units other than ReLU.
    Source: the book's own (see kickback/coherence).
    """
    for index, layer in enumerate(net.layers):
        last = index == len(net.layers) - 1
        if type(layer) is not Dense or layer.skip or not (last or layer.activation.name == "relu"):
            raise ValueError(
                "dual_rail needs plain dense layers of ReLU units: layer "
                f"{index} is {type(layer).__name__}({layer.extra_repr()})"
            )
    layers: list[Layer] = []
    below = None  # the rails' signs in the layer below, and which unit each carries
    for index, layer in enumerate(net.layers):
        w, n = layer.weight, layer.n_out
        if index and net.layers[index - 1].sign is not None:
            w = w * net.layers[index - 1].sign
        unit, sign = torch.arange(n), torch.ones(n, dtype=w.dtype)
        above = net.layers[index + 1] if index < len(net.layers) - 1 else None
        if above is not None and (index < len(net.layers) - 2 or above.n_out > 1):
            unit, sign = unit.repeat(2), torch.cat([sign, -sign])
        elif above is not None:
            v = above.weight[0] if layer.sign is None else above.weight[0] * layer.sign
            sign = torch.where(v < 0, -sign, sign)
        w = w[unit]
        if below is not None:
            w = sign[:, None] * (sign[:, None] * w[:, below[1]] * below[0]).clamp(min=0)
        s = None if above is None else sign
        layers.append(Dense(w.clone(), layer.bias[unit], layer.activation.name, sign=s))
        below = sign, unit
    return Net(layers)


class Modules(Dense):
    """A dense layer of modules that do not see each other: weights stay 0 outside ``mask``.

    ``tag`` (n_out,): the output that each unit serves.
    """

    def __init__(self, *args: object, mask: Tensor, tag: Tensor, **options: object) -> None:
        super().__init__(*args, **options)
        self.register_buffer("mask", mask)
        self.register_buffer("tag", tag)

    def correlate(self, error: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        dw, db = super().correlate(error, x)
        return dw * self.mask, db


def modules(parts: Sequence[Net], *, output: str | None = None) -> Net:
    """One net out of scalar nets side by side: all read the same data, each gives one output.

    The parts' weights are copied; no weight joins two modules, then or later. ``output``: the
    joint output activation, "softmax" say, by default the parts' own. Under a softmax the sum of
    the output errors is 0, so one global error would teach nothing: ``Kickback(net,
    above="tags")`` tells each module its own, and what holds for one scalar net holds for each.
    Raises ValueError for parts with several outputs, skips, convolutions or different shapes.
    """
    kinds = {tuple((la.n_in, la.n_out, la.activation.name) for la in p.layers) for p in parts}
    plain = all(type(la) is Dense and not la.skip for p in parts for la in p.layers)
    if len(kinds) != 1 or not plain or parts[0].layers[-1].n_out != 1:
        raise ValueError(
            "expected one or more plain dense nets of equal sizes and activations, each with one "
            f"output, found {len(parts)} with (n_in, n_out, activation) {sorted(kinds)}"
        )
    layers: list[Layer] = []
    for index, group in enumerate(zip(*(p.layers for p in parts), strict=True)):
        join = torch.block_diag if index else lambda *w: torch.cat(w)
        ones = [torch.ones_like(layer.bias) for layer in group]
        sign = torch.cat(
            [o if la.sign is None else la.sign for o, la in zip(ones, group, strict=True)]
        )
        name = group[0].activation.name
        layers.append(
            Modules(
                join(*(layer.weight.detach() for layer in group)),
                torch.cat([layer.bias.detach() for layer in group]),
                output if output and index == len(parts[0].layers) - 1 else name,
                sign=None if (sign > 0).all() else sign,
                mask=join(*(torch.ones_like(layer.weight) for layer in group)),
                tag=torch.arange(len(parts)).repeat_interleave(group[0].n_out),
            )
        )
    return Net(layers)
