"""BurstCCN: one phase, because a second pathway says what the bursts would be without an error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.nets import Net, Trace
from lib.rules.base import register
from lib.rules.burstprop import BurstRule, Bursts, Rng, drawn, per_event

EVENTS, BASELINE = ("symmetric", "learned"), 0.5  # of the burst probability: sigma(0)


@register("burstccn")
class BurstCCN(BurstRule):
    """Credit is a burst probability's distance from 1/2: delta_l = -(p_l - 1/2) e_l, in one phase.

    Bursts come down through Y, events through Q, and cancel where there is no error:
    u_l = Y_{l+1} b_{l+1} - Q_{l+1} e_{l+1}, p_l = sigma(4 h(e_l) u_l), b = p e; slope 4 undoes
    sigma' = 1/4. Output: b = (e - dE/da) / 2; for sigmoid units under mse that is
    p = 1/2 [1 + (t - e)(1 - e)]. The teacher is always there.

    ``events`` "symmetric": Q = Y/2 at every call. "learned": Q{l} (parameter, shape of W_l, drawn
    with the spread of Y/2) goes downhill on ``|u|^2/2``, whose ``.grad`` is the mean of -e u, times
    ``event_rate`` in ``units`` "backprop"; where errors average to nothing it ends at Y/2.
    ``.grad`` in ``units`` "backprop": -2 (p - 1/2) e x input, mean over the batch; with Q = Y/2 and
    Y = W Backprop's for small errors, relative error O(u^2), and always in the output layer.
    "released": without the 2. ``seen`` holds each layer's p, b, u, without a phase axis.
    Raises ValueError for bad options, no rng, masks, skips, tanh or signed hidden units.
    Source: Greedy et al. 2022, discrete-time model and supplement; their released code.
    Departs: Y = +W when aligned and u turned, as in the code (text: Y = -W, u = Q e - Y b). Q's
    initial spread and rate (their MNIST ratio, 3.5e-5 / 0.0246) for other tasks are ours, and so
    are outputs other than sigmoid with mse, where p may leave 0 to 1.
    """

    def __init__(
        self,
        net: Net,
        *,
        feedback: str = "fixed",
        events: str = "symmetric",
        rng: Rng | None = None,
        loss: str | None = None,
        feedback_std: float | None = None,
        event_rate: float = 1.4e-3,
        units: str = "backprop",
    ) -> None:
        super().__init__(
            net, feedback=feedback, units=units, rng=rng, loss=loss, feedback_std=feedback_std
        )
        if events not in EVENTS:
            raise ValueError(f"unknown events {events!r}; expected one of {', '.join(EVENTS)}")
        self.rate = event_rate if units == "backprop" else 1.0
        self.events = events
        for index in range(1, len(net.layers)) if events == "learned" else ():
            like = BASELINE * self.feedback(net, index).detach()
            std = None if feedback_std is None else BASELINE * feedback_std
            self.register_parameter(f"Q{index}", nn.Parameter(drawn(rng, like, std)))

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        loss = super().forward(net, x, y)
        for index in range(1, len(net.layers)) if self.events == "learned" else ():
            e, u = self.seen[index].e, self.seen[index - 1].u
            up, _ = net.layers[index].correlate(e * (-self.rate / len(x)), u)
            self.get_parameter(f"Q{index}").grad = up
        return loss

    def credit(self, net: Net, trace: Trace, delta: Tensor) -> list[Tensor]:
        """Every layer's delta, lowest first; what each layer did stays in ``seen``."""
        e, n = trace.values[-1], len(delta)
        scale = 1 / n if self.units == "released" else 1 / (n * BASELINE)
        b = BASELINE * (e - n * delta)
        self.seen, deltas = [Bursts(b / e, b, e)], [scale * (BASELINE * e - b)]
        for index in reversed(range(1, len(net.layers))):
            layer, above, y = net.layers[index], self.seen[0], self.feedback(net, index)
            if self.events == "symmetric":
                u = layer.transpose(above.b - BASELINE * above.e, y)
            else:
                q = self.get_parameter(f"Q{index}")
                u = layer.transpose(above.b, y) - layer.transpose(above.e, q)
            e = trace.values[index]
            u = u.reshape(e.shape)
            p = torch.sigmoid(4 * u * per_event(net.layers[index - 1], e))
            self.seen.insert(0, Bursts(p, p * e, e, u))
            deltas.insert(0, (BASELINE - p) * e * scale)
        return deltas
