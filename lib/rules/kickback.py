"""Kickback: a global error times each unit's influence on the next layer, and nothing above."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.influence import cuts, walk
from lib.nets import Dense, Net, Trace
from lib.rules.base import Rule, register

ABOVE = ("ones", "head", "tags")


@register("kickback")
class Kickback(Rule):
    """Credit from ``hops`` layers up, where a stand-in replaces everything above.

    One hop, one output: Delta w_ji = -eta beta tau_j s_j 1_j x_i with the global error
    beta = dE/da of the output and the influence tau_j = sum_k s_k 1_k w_kj over the next layer.
    In general the signal at a layer is J^T e: the exact derivatives J of the next ``hops``
    layers, on a stand-in e at the layer they end in. ``above`` says what e is:

    - "ones": e_k = beta for every unit, Kickback proper; one output only.
    - "head": e = (output weights)^T (output error), which in a residual net is the error carried
      down the skips alone; every layer it stands in for needs the last hidden layer's width.
    - "tags": e_k = beta_c(k), each unit listening to the error of one output. In a net of
      ``nets.modules`` it is the unit's own; else drawn once, evenly, by ``rng``.

    A hop is one layer, or one residual block. Where the hops reach the output the signal is
    exact (one hop: the output and the last hidden layer); with as many hops as layers the rule
    is Backprop. hops=0 sends the stand-in itself. No layer waits for another: each costs
    ``hops`` matrix products at any depth.
    Raises ValueError for another ``above``, hops < 0, hidden units that are neither rectifiers
    nor linear, convolutions, several outputs under "ones", unequal widths under "head", "tags"
    without rng.
    Source: Balduzzi, Vanchinathan & Buhmann 2015, Algorithm 1 (one hop, "ones").
    Departs: more hops, heads, tags and residual blocks are ours.
    """

    def __init__(
        self,
        net: Net,
        *,
        hops: int = 1,
        above: str = "ones",
        loss: str | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(net, loss=loss)
        if above not in ABOVE:
            raise ValueError(f"unknown above {above!r}; expected one of {', '.join(ABOVE)}")
        if int(hops) != hops or hops < 0:
            raise ValueError(f"expected a whole number of hops, 0 or more, found {hops}")
        self.hops, self.above, self.cuts = int(hops), above, cuts(net)
        n_out = self._check(net)
        for at in self.cuts[1 + self.hops : -1] if above == "tags" else ():
            layer = net.layers[at - 1]
            tags = getattr(layer, "tag", None)
            if tags is None and rng is None:
                raise ValueError('above="tags" draws each unit\'s output: give rng=')
            if tags is None:
                tags = torch.from_numpy(rng.permutation(len(layer.bias)) % n_out)
            self.register_buffer(f"tags{at}", tags)

    def _check(self, net: Net) -> int:
        """Raise ValueError where the rule does not apply; the number of outputs."""
        for index, layer in enumerate(net.layers):
            if not isinstance(layer, Dense):
                raise ValueError(f"layer {index} is a {type(layer).__name__}: Kickback needs Dense")
            name = layer.activation.name
            if name not in ("relu", "linear") and index < len(net.layers) - 1:
                raise ValueError(
                    f"layer {index} is {name}: Kickback's influence s 1[a > 0] w is that of a "
                    "rectifier; use relu, signed_relu or linear hidden units"
                )
        n_out, width = net.layers[-1].weight.shape
        if self.above == "ones" and n_out != 1:
            raise ValueError(
                f'above="ones" multiplies one global error, found {n_out} outputs: use '
                'above="head" or "tags", or one module per output (nets.modules with "tags")'
            )
        for at in self.cuts[1 + self.hops : -1] if self.above == "head" else ():
            units = len(net.layers[at - 1].bias)
            if units != width:
                raise ValueError(
                    f"layer {at - 1} has {units} units but the head reads {width}: its weights "
                    'can stand in only for layers of equal width; use above="tags"'
                )
        return n_out

    def credit(self, net: Net, trace: Trace, delta: Tensor) -> list[Tensor]:
        """Every layer's delta, lowest first: each hop by itself, from its own stand-in."""
        at = self.cuts
        exact = max(len(at) - 2 - self.hops, 0)
        deltas, _ = walk(net, trace, delta, at[-1], at[exact])
        head = net.layers[-1].transpose(delta) if self.above == "head" else None
        for i in range(exact):
            top = at[i + 1 + self.hops]
            if self.above == "tags":
                signal = delta[:, getattr(self, f"tags{top}")]
            else:
                signal = delta.expand_as(trace.values[top]) if head is None else head
            found, _ = walk(net, trace, signal, top, at[i])
            deltas.update({index: found[index] for index in range(at[i], at[i + 1])})
        return [deltas[index] for index in range(len(net.layers))]
