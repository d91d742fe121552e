"""Predictive coding: units settle until each explains its neighbours, then learn what is left."""

from __future__ import annotations

import torch
from torch import Tensor

from lib import losses
from lib.nets import Net, Trace
from lib.rules.base import Rule, register
from lib.rules.feedback import _check


@register("predictive")
class PredictiveCoding(Rule):
    """Credit is what settling leaves unexplained: delta_l = -f'(a_l) . (v_l - f(a_l)).

    Hidden layers hold values v_l of their own; a_l = W_l v_{l-1} + b_l predicts f(a_l), and one
    number says how badly, the free energy of an example with the loss E of the output's drive:
    F = sum over hidden l of ``|v_l - f(a_l)|^2 / 2`` + ``precision`` . E(a_L).
    From the forward pass, where only E counts, ``steps`` times all v_l <- v_l - ``rate`` dF/dv_l,
    dF/dv_l = (v_l - f(a_l)) + W_{l+1}^T delta_{l+1}: local to a layer and its neighbours. Then
    ``.grad`` = dF/dW / ``precision``, the mean over the batch.

    ``precision``: the output's, that of hidden units being 1. As it goes to 0 settled ``.grad``
    becomes Backprop's, with relative error O(precision); else even the output layer's differs,
    because the values have moved. ``fixed=True`` keeps predictions, slopes, inputs and the output
    error as the forward pass left them: the errors then settle to exactly Backprop's, with rate 1
    in as many steps as there are hidden layers. ``energies`` keeps the last call's mean F, at the
    start and after each step; if ``fixed``, E in it stays where it was and F can only rise.
    Raises ValueError for steps < 1, rate outside (0, 1], precision <= 0, skips, masked layers.
    Source: Whittington & Bogacz 2017; ``fixed``: Rosenbaum 2022.
    Departs: predictions are f(W v), not W f(v); the output's energy is the net's loss; variances
    are not learned; all values move at once.
    """

    def __init__(
        self,
        net: Net,
        *,
        loss: str | None = None,
        steps: int = 20,
        rate: float = 0.2,
        precision: float = 1.0,
        fixed: bool = False,
    ) -> None:
        super().__init__(net, loss=loss)
        _check(net)
        if any(layer.skip for layer in net.layers):
            raise ValueError("expected a net without skips: a layer predicts the next one only")
        if int(steps) != steps or steps < 1 or not 0 < rate <= 1 or not 0 < precision < torch.inf:
            raise ValueError(
                "expected whole steps >= 1, 0 < rate <= 1 and precision > 0, found "
                f"steps={steps}, rate={rate}, precision={precision}"
            )
        self.steps, self.rate, self.precision, self.fixed = int(steps), rate, precision, fixed
        self.energies: list[float] = []

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        """One step of credit: settles, writes .grad, returns the loss of the forward pass."""
        start = seen = net.trace(x)
        output = len(x) * self.precision * self.teach(net, start, y)
        values, energies = list(start.values[1:-1]), []
        for step in range(self.steps + 1):
            errors = [v - f for v, f in zip(values, seen.fired, strict=False)]
            energies.append(self._energy(net, seen, y, errors))
            deltas = [self.gate(net, i, -error, seen) for i, error in enumerate(errors)]
            deltas.append(output)
            if step == self.steps:
                break
            for index, error in enumerate(errors):
                down = self.send(net, index + 1, deltas[index + 1]).reshape(error.shape)
                values[index] = values[index] - self.rate * (error + down)
            if not self.fixed:
                seen = self._predict(net, x, values)
                output = len(x) * self.precision * self.teach(net, seen, y)
        self.energies = torch.stack(energies).tolist()
        for layer, delta, value in zip(net.layers, deltas, seen.values, strict=False):
            delta = delta / (len(x) * self.precision)
            layer.weight.grad, layer.bias.grad = layer.correlate(delta, value)
        return losses.value(net, start, y, self.loss)

    def _predict(self, net: Net, x: Tensor, values: list[Tensor]) -> Trace:
        """What every layer predicts from the values below it, as a trace."""
        below = (x, *values)
        drives = tuple(layer.drive(v) for layer, v in zip(net.layers, below, strict=True))
        fired = tuple(layer.fire(a) for layer, a in zip(net.layers, drives, strict=True))
        return Trace((*below, fired[-1]), drives, fired)

    def _energy(self, net: Net, seen: Trace, y: Tensor, errors: list[Tensor]) -> Tensor:
        """The mean free energy of a batch."""
        loss = self.precision * losses.value(net, seen, y, self.loss)
        return loss + sum(error.square().sum() for error in errors) / (2 * len(y))
