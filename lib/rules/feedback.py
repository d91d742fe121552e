"""Feedback without transport: the way down has weights of its own, fixed, signed or learned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lib.nets import Conv, Dense, Net, Trace
from lib.rules.base import Rule, register

Rng = np.random.Generator


def _check(net: Net) -> None:
    """Raise ValueError for a layer whose feedback would have to share its mask."""
    odd = [type(layer).__name__ for layer in net.layers if type(layer) not in (Dense, Conv)]
    if odd:
        raise ValueError(f"expected Dense and Conv layers, found {odd[0]}: build it with nets.mlp")


@register("feedback alignment")
class FeedbackAlignment(Rule):
    """Backprop through fixed random weights: delta_l = f'(a_l) . B_{l+1}^T delta_{l+1}.

    B{l} (buffer, shape of W_l, layers counted 0, 1, ..., none for 0) is N(0, (scale . std W_l)^2)
    with std W_l at construction. Skips carry their signal unchanged. With B = W it is Backprop.
    Raises ValueError without ``rng``, for scale <= 0, weights of no spread, masked layers.
    Source: Lillicrap, Cownden, Tweed & Akerman 2016.
    Departs: B is normal, on the scale of W; convolutions and residual nets are ours.
    """

    learned = False

    def __init__(
        self, net: Net, *, loss: str | None = None, rng: Rng | None = None, scale: float = 1.0
    ) -> None:
        super().__init__(net, loss=loss)
        _check(net)
        if not isinstance(rng, Rng):
            raise ValueError(f"B is drawn: expected rng=np.random.default_rng(seed), found {rng}")
        if not 0 < scale < float("inf"):
            raise ValueError(f"expected a scale above 0, such as 1.0, found {scale}")
        for index in range(1, len(net.layers)):
            shape, like = self._plan(net, index)
            std = float(like.detach().std(correction=0))
            if not std > 0:
                raise ValueError(f"B{index} takes its scale from weights, found spread {std:g}")
            b = torch.from_numpy(rng.normal(0.0, scale * std, shape)).to(like)
            keep = self.register_parameter if self.learned else self.register_buffer
            keep(f"B{index}", nn.Parameter(b) if self.learned else b)

    def _plan(self, net: Net, index: int) -> tuple[tuple[int, ...], Tensor]:
        """Shape of B{index}, and the weights whose spread it has at scale 1."""
        return tuple(net.layers[index].weight.shape), net.layers[index].weight

    def feedback(self, net: Net, index: int) -> Tensor:
        """B{index}, for index 1, 2, ...; ValueError if the rule was made for another net."""
        found, wanted = getattr(self, f"B{index}", None), self._plan(net, index)[0]
        if found is None or found.shape != wanted:
            raise ValueError(f"expected a B{index} of shape {wanted}: make a rule for this net")
        return found

    def send(self, net: Net, index: int, delta: Tensor) -> Tensor:
        """What layer ``index`` passes to its input: B^T delta, B being ``feedback(net, index)``."""
        return net.layers[index].transpose(delta, self.feedback(net, index))


@register("direct feedback")
class DirectFeedbackAlignment(FeedbackAlignment):
    """Every hidden layer hears the output error itself: delta_l = f'(a_l) . B_{l+1}^T delta_out.

    B{l} (buffer, shape (outputs, numbers that layer l reads)) leads from the error at the
    output's drive to the response below layer l; std: scale . std W_out at construction. In a
    residual net that response includes the skip, and skips carry no signal. It is Backprop where
    B is the Jacobian of the output's drive by that response. Raises as FeedbackAlignment.
    Source: Nøkland 2016.
    Departs: B is normal, on the scale of W_out; convolutions and residual nets are ours.
    """

    def _plan(self, net: Net, index: int) -> tuple[tuple[int, ...], Tensor]:
        return (net.layers[-1].n_out, net.layers[index].n_in), net.layers[-1].weight

    def credit(self, net: Net, trace: Trace, delta: Tensor) -> list[Tensor]:
        """Every layer's delta, lowest first, each from the output's alone."""
        deltas = []
        for index, layer in enumerate(net.layers[:-1], start=1):
            signal = (delta @ self.feedback(net, index)).reshape(trace.values[index].shape)
            signal = layer.gain * signal if layer.skip else signal
            deltas.append(self.gate(net, index - 1, signal, trace))
        return [*deltas, delta]


@register("sign symmetry")
class SignSymmetry(Rule):
    """The way down knows only the signs of W: delta_l = f'(a_l) . m sign(W_{l+1})^T delta_{l+1}.

    One magnitude m per layer (buffer ``m{l}``), fixed at construction so that m sign(W) has the
    Frobenius norm of W then; signs are read at every call. It is Backprop if each w is m or -m.
    Raises ValueError for a layer whose weights are all 0, masked layers, a net of more layers.
    Source: Liao, Leibo & Poggio 2016.
    Departs: a fixed magnitude; activities and updates are not normalised.
    """

    def __init__(self, net: Net, *, loss: str | None = None) -> None:
        super().__init__(net, loss=loss)
        _check(net)
        for index, layer in enumerate(net.layers[1:], start=1):
            w = layer.weight.detach()
            if not w.any():
                raise ValueError(f"the weights of layer {index} are all 0: they have no signs")
            self.register_buffer(f"m{index}", (w.square().sum() / w.count_nonzero()).sqrt())

    def feedback(self, net: Net, index: int) -> Tensor:
        """m sign(W) of layer index = 1, 2, ..., as W is now."""
        if not hasattr(self, f"m{index}"):
            raise ValueError(f"expected a magnitude m{index}: make a rule for this net")
        return getattr(self, f"m{index}") * torch.sign(net.layers[index].weight.detach())

    send = FeedbackAlignment.send


@register("kolen-pollack")
class KolenPollack(FeedbackAlignment):
    """Feedback that learns what the weights learn: B and W get the same ``.grad``.

    B{l} is a parameter, drawn as in FeedbackAlignment. Give both to one optimizer:
    ``SGD([*net.parameters(), *rule.parameters()], lr=eta, weight_decay=d)``. Increments cancel
    in D = W - B and decay shrinks it: D_n = (1 - lambda)^n D_0 after n steps, lambda = eta d.
    Decay must be the same for both; without it D stays. Under momentum mu no data enter D either:
    v <- mu v + d D, D <- D - eta v. AdamW keeps SGD's law, Adam does not. Raises as its base.
    Source: Kolen & Pollack 1994; Akrout et al. 2019.
    Departs: decay is the optimizer's business; residual nets are ours.
    """

    learned = True

    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        loss = super().forward(net, x, y)
        for index in range(1, len(net.layers)):  # copies, so that clipping W's leaves B's alone
            self.feedback(net, index).grad = net.layers[index].weight.grad.clone()
        return loss


@register("weight mirror")
class WeightMirror(FeedbackAlignment):
    """Feedback that reads W off the layer's answer to noise, whenever ``mirror`` is called.

    B{l} is a parameter without ``.grad`` (optimizers pass it over), drawn as in
    FeedbackAlignment, which the rule is between two calls. Raises as FeedbackAlignment.
    Source: Akrout et al. 2019.
    Departs: the drive less its bias answers, not the response; noise is drawn for each layer.
    """

    learned = True

    @torch.no_grad()
    def mirror(self, net: Net, *, rng: Rng, n: int, rate: float = 0.1, decay: float = 0.1) -> None:
        """B <- (1 - decay) B + rate . mean over ``n`` noises x ~ N(0, 1) of (a - b) x.

        In a convolution the mean is over positions too. E[(a - b) x] = W: B comes to lie around
        rate/decay . W. With rate = decay = 1 a call is a fresh estimate; in a dense layer the
        tangent of its angle to W is about sqrt((n_in + 1) / n). Changes B alone. Raises
        ValueError for n < 1, rate <= 0, decay outside 0 to 1.
        """
        if n < 1 or not rate > 0 or not 0 <= decay <= 1:
            raise ValueError(f"expected n, rate > 0, decay in 0..1, found {n}, {rate}, {decay}")
        for index, layer in enumerate(net.layers[1:], start=1):
            noise = torch.from_numpy(rng.normal(size=(n, layer.n_in))).to(layer.weight)
            answer = layer.drive(noise) - layer.drive(torch.zeros_like(noise[:1]))
            seen, _ = layer.correlate(answer / answer[:, 0].numel(), noise)
            self.feedback(net, index).mul_(1 - decay).add_(seen, alpha=rate)
