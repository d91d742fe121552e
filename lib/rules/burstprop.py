"""Bursts carry errors: event rates go up, burst rates come down, their change is the credit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lib.nets import Dense, Layer, Net, Trace
from lib.rules.base import Rule, register
from lib.rules.feedback import _check

Rng = np.random.Generator
FEEDBACK, UNITS = ("fixed", "kolen-pollack", "symmetric"), ("backprop", "released")


def drawn(
    rng: Rng | None, like: Tensor, std: float | None = None, *, uniform: float | None = None
) -> Tensor:
    """N(0, std^2) in the shape of ``like``, by default with its spread; or U(-uniform, uniform)."""
    if not isinstance(rng, Rng):
        raise ValueError(f"weights are drawn: expected rng=np.random.default_rng(), found {rng}")
    if uniform is not None:
        return torch.from_numpy(rng.uniform(-uniform, uniform, tuple(like.shape))).to(like)
    std = float(like.detach().std(correction=0)) if std is None else std
    if not 0 < std < float("inf"):
        raise ValueError(f"expected feedback weights with a spread above 0, found {std:g}")
    return torch.from_numpy(rng.normal(0.0, std, tuple(like.shape))).to(like)


def per_event(layer: Layer, e: Tensor) -> Tensor:
    """h(e) = f'(a) / e: 1 - e for the sigmoid, 1[e > 0] / e for relu."""
    return 1 - e if layer.activation.name == "sigmoid" else torch.where(e > 0, 1 / e, 0)


class BurstRule(Rule):
    """What the burst rules share: the nets they take, and the weights Y that bursts pass down by.

    Y{l}, l = 1, 2, ..., has the shape of W_l and is N(0, feedback_std^2), by default with the
    spread of W_l: a buffer if "fixed", a parameter with W_l's ``.grad`` if "kolen-pollack", W_l
    itself if "symmetric". ``seen`` keeps what the last call found in each layer.
    """

    def __init__(
        self,
        net: Net,
        *,
        feedback: str,
        units: str,
        rng: Rng | None,
        loss: str | None,
        feedback_std: float | None,
    ) -> None:
        super().__init__(net, loss=loss)
        _check(net)
        for name, options, found in (("feedback", FEEDBACK, feedback), ("units", UNITS, units)):
            if found not in options:
                raise ValueError(f"unknown {name} {found!r}; expected one of {', '.join(options)}")
        for index, layer in enumerate(net.layers):
            name = "signed_relu" if layer.sign is not None else layer.activation.name
            if layer.skip or (layer is not net.layers[-1] and name not in ("sigmoid", "relu")):
                raise ValueError(
                    f"layer {index} is {name} with skip={layer.skip}: events need hidden units "
                    "that are never negative, sigmoid or relu, and no skips"
                )
        self.kind, self.units, self.seen = feedback, units, []
        for index in range(1, len(net.layers)) if feedback != "symmetric" else ():
            fixed, y = feedback == "fixed", drawn(rng, net.layers[index].weight, feedback_std)
            keep = self.register_buffer if fixed else self.register_parameter
            keep(f"Y{index}", y if fixed else nn.Parameter(y))

    def feedback(self, net: Net, index: int) -> Tensor:
        """Y{index}, index = 1, 2, ...; ValueError if the rule was made for another net."""
        wanted = net.layers[index].weight
        found = wanted if self.kind == "symmetric" else getattr(self, f"Y{index}", None)
        if found is None or found.shape != wanted.shape:
            raise ValueError(
                f"expected a Y{index} of shape {tuple(wanted.shape)}: make a rule for this net"
            )
        return found

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        loss = super().forward(net, x, y)
        for index in range(1, len(net.layers)) if self.kind == "kolen-pollack" else ():
            self.feedback(net, index).grad = net.layers[index].weight.grad.clone()
        return loss


class Bursts(NamedTuple):
    """A layer in one call, p and b first without (0), then with the teacher (1): (2, n, ...).

    p: burst probability; b = p e: burst rate; e: event rate; u: apical potential without the
    teacher (None in the output layer); still: burst rate with neither teacher nor recurrent input
    (None without Z). At the output p is nan where e = 0.
    """

    p: Tensor
    b: Tensor
    e: Tensor
    u: Tensor | None = None
    still: Tensor | None = None


@register("burstprop")
class Burstprop(BurstRule):
    """Credit is the change of a burst rate when the teacher comes: delta_l = -(b_l^t - b_l).

    Hidden layers: p = sigma(beta u), b = p e, u = h(e) . (Y_{l+1} b_{l+1}) - Z_l s_l, once without
    and once with the teacher, stacked into one product; s_l = sigma(beta Y_{l+1} b_{l+1}) e, no
    teacher, is the same in both. Output: p = p0, and with the teacher b moves by -p0 dE/da: for
    sigmoid units under mse p = p0 [1 + (t - e)(1 - e)], between 0.75 p0 and 2 p0.

    ``.grad`` in ``units`` "backprop": -(b^t - b) x input / (n p0 (beta/4)^hops), summed over the
    batch of n, hops counted from the output, where it is Backprop's. With Y = W hidden layers
    tend to Backprop's as beta -> 0 (sigma' = 1/4), relative error O(beta^2); for small errors each
    hop multiplies by 4 p (1 - p) instead. "released": no divisor, a sum over the batch.
    Z{l} (parameter; dense sigmoid hidden layers l = 0, 1, ...; U(-0.01, 0.01)) goes downhill on
    ``|u|^2/2``: ``.grad`` is -u s^T summed over the batch ("released"), or ``recurrent_rate`` times
    its mean. ``released_sgd`` gives Z no momentum and no decay, as the code does.
    Raises ValueError for p0 outside (0, 0.5], beta <= 0, no rng, masks, skips, tanh, bad options.
    Source: Payeur et al. 2021, Methods; their released code.
    Departs: by default the code's choices, each undone by an option: h in convolutions too (text:
    ``conv_h=False``), no h in s (text: ``still_h=True``), Z goes downhill (printed sign:
    ``printed_sign=True``). The teacher's step carries p0, as in the code. Not offered: averages
    for the first phase, Y below layer 0, recurrent convolutions, the scaled ImageNet teacher.
    Outputs other than sigmoid with mse are ours: there p may leave 0 to 1.
    """

    def __init__(
        self,
        net: Net,
        *,
        p0: float = 0.2,
        beta: float = 1.0,
        feedback: str = "fixed",
        recurrent: bool = True,
        rng: Rng | None = None,
        loss: str | None = None,
        feedback_std: float | None = None,
        recurrent_rate: float = 0.03,
        units: str = "backprop",
        conv_h: bool = True,
        still_h: bool = False,
        printed_sign: bool = False,
    ) -> None:
        super().__init__(
            net, feedback=feedback, units=units, rng=rng, loss=loss, feedback_std=feedback_std
        )
        if not 0 < p0 <= 0.5 or not 0 < beta < float("inf"):
            raise ValueError(f"expected 0 < p0 <= 0.5 and beta > 0, found p0={p0}, beta={beta}")
        self.p0, self.beta, self.conv_h, self.still_h = p0, beta, conv_h, still_h
        self.recurrent_rate, self.sign = recurrent_rate, 1 if printed_sign else -1
        for index, layer in enumerate(net.layers[:-1]):
            if recurrent and isinstance(layer, Dense) and layer.activation.name == "sigmoid":
                like = layer.bias.new_empty(layer.n_out, layer.n_out)
                self.register_parameter(f"Z{index}", nn.Parameter(drawn(rng, like, uniform=0.01)))

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        loss = super().forward(net, x, y)
        rate = 1.0 if self.units == "released" else self.recurrent_rate / len(x)
        for index, layer in enumerate(self.seen):
            if layer.still is not None:
                up = (self.sign * rate * layer.u).t() @ layer.still
                getattr(self, f"Z{index}").grad = up
        return loss

    def credit(self, net: Net, trace: Trace, delta: Tensor) -> list[Tensor]:
        """Every layer's delta, lowest first; what each layer did stays in ``seen``."""
        e, n = trace.values[-1], len(delta)
        b = self.p0 * torch.stack([e, e - n * delta])
        self.seen, released = [Bursts(b / e, b, e)], self.units == "released"
        scale = 1.0 if released else 1 / (n * self.p0)
        deltas = [scale * (b[0] - b[1]) if released else delta]
        for index in reversed(range(1, len(net.layers))):
            e, layer = trace.values[index], net.layers[index]
            f = layer.transpose(self.seen[0].b.flatten(0, 1), self.feedback(net, index))
            found = self.burst(net.layers[index - 1], index - 1, e, f.reshape(2, *e.shape))
            scale *= 1.0 if released else 4 / self.beta
            self.seen.insert(0, found)
            deltas.insert(0, (found.b[0] - found.b[1]).mul_(scale))
        return deltas

    def burst(self, layer: Layer, index: int, e: Tensor, f: Tensor) -> Bursts:
        """How hidden layer ``index``, at event rates e (n, ...), answers feedback f (2, n, ...)."""
        u = per_event(layer, e) * f if self.conv_h or isinstance(layer, Dense) else f
        z, still = getattr(self, f"Z{index}", None), None
        if z is not None:
            still = torch.sigmoid(self.beta * (u if self.still_h else f)[0]) * e
            u = u - still @ z.t()
        p = torch.sigmoid(self.beta * u)
        return Bursts(p, p * e, e, u[0], still)


def released_sgd(
    net: Net,
    rule: Rule,
    *,
    lr: float,
    output_lr: float | None = None,
    inner_lr: float = 0.0,
    momentum: float = 0.0,
    decay: float = 0.0,
    decay_biases: bool = False,
) -> torch.optim.SGD:
    """SGD as the burst rules' code does it: W <- (1 - decay) W + V, V <- momentum V - lr .grad.

    Decay is outside the rate and the momentum, for W and its Y alike; biases decay only if
    ``decay_biases`` (BurstCCN's code). ``output_lr``: for the output layer and its Y, by default
    lr. ``inner_lr``: for the rule's other parameters (Z, Q), without momentum and decay.
    Source: the released code of Payeur et al. 2021 and of Greedy et al. 2022.
    Departs: nothing.
    """
    groups, own = [], dict(rule.named_parameters())
    for index, layer in enumerate(net.layers):
        weights = [layer.weight, *([own.pop(f"Y{index}")] if f"Y{index}" in own else [])]
        top = output_lr is not None and layer is net.layers[-1]
        rate = output_lr if top else lr
        groups.append({"params": weights, "lr": rate, "shrink": decay})
        groups.append({"params": [layer.bias], "lr": rate, "shrink": decay * decay_biases})
    if own:
        inner = {"params": list(own.values()), "lr": inner_lr, "momentum": 0.0, "shrink": 0.0}
        groups.append(inner)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)

    @torch.no_grad()
    def shrink(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"] if group["shrink"] else ():
                weight.mul_(1 - group["shrink"])

    optimizer.register_step_pre_hook(shrink)
    return optimizer
