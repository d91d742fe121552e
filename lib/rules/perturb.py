"""Global scores: shake units or weights, see what became of the loss, and correlate the two.

No error is sent back. Each rule's estimate of the gradient is right on average (Reinforce at any
sigma, the others as sigma -> 0), its spread falls as 1/sqrt(draws). A large sigma adds bias; a
tiny one drowns the difference of two losses in rounding (in float32 stay above 0.001).
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lib import losses
from lib.nets import Dense, Layer, Net, Trace
from lib.rules.base import Rule, register

Rng = np.random.Generator


def noisy_trace(net: Net, x: Tensor, *, sigma: float, rng: Rng) -> tuple[Trace, list[Tensor]]:
    """Run a net on x (n, ...) with a_l = W_l * h_{l-1} + b_l + sigma xi_l; noise passes upward.

    xi_l: standard normal per example and unit, drawn from the lowest layer up. Returns the trace
    and the sigma xi_l. Raises ValueError where x does not fit. Source: our own. Departs: nothing.
    """
    noises = []

    def fire(index: int, a: Tensor) -> tuple[Tensor, Tensor]:
        noises.append(sigma * torch.from_numpy(rng.standard_normal(a.shape)).to(a))
        return a + noises[-1], net.layers[index].fire(a + noises[-1])

    return net.trace(x, fire=fire), noises


def _needed(rng: Rng, samples: int) -> tuple[Rng, int]:
    if not isinstance(rng, Rng):
        raise ValueError(f"expected rng=np.random.default_rng(seed) for noise, found {rng!r}")
    if samples < 1 or samples % 1:
        raise ValueError(f"expected samples to be a whole number of 1 or more, found {samples}")
    return rng, int(samples)


class _Perturbed(Rule):
    def __init__(
        self, net: Net, *, rng: Rng = None, sigma: float, samples: int = 1, loss: str | None = None
    ) -> None:
        super().__init__(net, loss=loss)
        self.rng, self.samples = _needed(rng, samples)
        if not 0 < sigma < np.inf:
            raise ValueError(f"expected a finite sigma above 0, found {sigma}")
        self.sigma = sigma

    def _write(self, net: Net, trace: Trace, sums: list[Tensor], n: int) -> None:
        """.grad from each layer's sum of score x noise, for the mean over n examples."""
        for layer, total, value in zip(net.layers, sums, trace.values, strict=False):
            delta = total / (self.sigma**2 * self.samples * n)
            layer.weight.grad, layer.bias.grad = layer.correlate(delta, value)


def _times(score: Tensor, noise: Tensor) -> Tensor:
    return score.reshape(-1, *[1] * (noise.dim() - 1)) * noise


@register("node perturbation")
class NodePerturbation(_Perturbed):
    """Noise on every unit's drive at once; credit is how the example's loss changed with it.

    delta_l = 1/(n m) sum over m = ``samples`` of (E_noisy - E_clean) xi_l / sigma, per example,
    where drives were a_l + sigma xi_l; dW_l = sum over the batch of delta_l x clean input.
    Any net. Returns the mean loss without noise. Raises ValueError as WeightPerturbation.
    Source: Werfel, Xie & Seung 2005. Departs: hidden layers too, all perturbed in one pass.
    """

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        trace = net.trace(x)
        clean = losses.each(net, trace, y, self.loss)
        sums = [torch.zeros_like(a) for a in trace.drives]
        for _ in range(self.samples):
            shaken, noises = noisy_trace(net, x, sigma=self.sigma, rng=self.rng)
            rise = losses.each(net, shaken, y, self.loss) - clean
            sums = [a + _times(rise, noise) for a, noise in zip(sums, noises, strict=True)]
        self._write(net, trace, sums, len(x))
        return clean.mean()


class _Drive(nn.ModuleList):
    """A layer as a module that answers with its drive, so functional_call can swap its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self[0].drive(x)


def _drives(layer: Layer, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Drives of m copies of a layer with weights w (m, ...), b (m, n_out) for x (m, n, ...)."""
    if type(layer) is Dense:
        return torch.baddbmm(b[:, None], x.flatten(2), w.mT)
    call = partial(functional_call, _Drive([layer]))
    return vmap(lambda x, w, b: call({"0.weight": w, "0.bias": b}, x))(x, w, b)


@register("weight perturbation")
class WeightPerturbation(_Perturbed):
    """Noise on all weights and biases w at once, each draw shared by the whole batch.

    dw = 1/m sum over m = ``samples`` of (E(w + sigma xi) - E(w)) xi / sigma, E the mean loss.
    Any net; m + 1 forward passes, up to 64 in one; w is never written to. Returns E(w). Raises
    ValueError for no rng, sigma not above 0, samples not 1 or more.
    Source: Werfel, Xie & Seung 2005. Departs: a batch, and all layers, share a draw.
    """

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        clean = losses.value(net, net.trace(x), y, self.loss)
        params = [p for layer in net.layers for p in (layer.weight, layer.bias)]
        sizes = [p.numel() for p in params]
        grad = torch.zeros(sum(sizes)).to(params[0])
        for start in range(0, self.samples, 64):  # as many draws of all weights at a time
            shape = min(64, self.samples - start), len(grad)
            step = torch.from_numpy(self.rng.standard_normal(shape)).to(grad).mul_(self.sigma)
            rise = self._rise(net, x, y, step, clean)
            grad += rise @ step / (self.sigma**2 * self.samples)
        for p, g in zip(params, grad.split(sizes), strict=True):
            p.grad = g.view_as(p)
        return clean

    def _rise(self, net: Net, x: Tensor, y: Tensor, step: Tensor, clean: Tensor) -> Tensor:
        """By how much the loss rises with each of m steps (m, D) of all weights: (m,)."""
        return self._losses(net, x, y, step)[0] - clean

    def _losses(self, net: Net, x: Tensor, y: Tensor, step: Tensor, signs=(1,)) -> Tensor:
        """The mean losses (signs, m) of nets at w + sign . step (m, D), in one batched pass."""
        values = [x[None]]
        for index, layer in enumerate(net.layers):
            w, b = layer.weight, layer.bias
            dw, step = step[:, : w.numel()].reshape(-1, *w.shape), step[:, w.numel() :]
            db, step = step[:, : len(b)], step[:, len(b) :]
            if index == 0:  # one input for all: what the step adds to the drive serves both signs
                add = _drives(layer, x.expand(len(dw), *x.shape), dw, db)
                a = torch.cat([torch.add(layer.drive(x), add, alpha=sign) for sign in signs])
            else:
                ws, bs = (
                    torch.cat([torch.add(p, dp, alpha=s) for s in signs])
                    for p, dp in ((w, dw), (b, db))
                )
                a = _drives(layer, values[-1], ws, bs)
            last = layer is net.layers[-1]
            f = a if last and self.loss == "cross_entropy" else layer.fire(a)
            values.append(values[-layer.skip].flatten(2) + layer.gain * f if layer.skip else f)
        end = Trace((values[-1],), (a,), (f,))
        return losses.each(net, end, y, self.loss).mean(-1).reshape(len(signs), -1)


@register("evolution")
class EvolutionStrategy(WeightPerturbation):
    """A population around the weights w in antithetic pairs, one member each at +xi and -xi.

    dw = 1/(2m) sum over m = population/2 pairs of (E(w + sigma xi) - E(w - sigma xi)) xi / sigma.
    With D weights and small sigma the mean cosine with the gradient is near sqrt(m/(m + D + 1)).
    Any net; up to 64 pairs in one batched pass, one pass at w. Returns E(w). Raises ValueError
    for no rng, sigma not above 0, a population that is odd or below 2.
    Source: Salimans et al. 2017 (the method's name). Departs: losses, not their ranks.
    """

    def __init__(
        self, net: Net, *, rng: Rng = None, sigma: float, population: int, loss: str | None = None
    ) -> None:
        if population < 2 or population % 2:
            raise ValueError(f"expected an even population of 2 or more, found {population}")
        super().__init__(net, rng=rng, sigma=sigma, samples=population // 2, loss=loss)

    def _rise(self, net: Net, x: Tensor, y: Tensor, step: Tensor, clean: Tensor) -> Tensor:
        up, down = self._losses(net, x, y, step, signs=(1, -1))
        return (up - down) / 2


@register("reinforce")
class Reinforce(_Perturbed):
    """Units with Gaussian drives; credit is the cost times the score of what was drawn.

    For drives a_l = W_l * h_{l-1} + b_l + sigma xi_l, d log p / d W_l = xi_l / sigma x (noisy)
    h_{l-1}, and dW_l = 1/n sum over examples of (cost - baseline) d log p / d W_l: the gradient
    of the *expected* cost, without bias. cost: the loss, or with ``reward="correct"`` 1 for a
    wrong class and 0 for the right one (largest output; class 1 is above 0.5 of a single output).
    ``baseline``: the mean cost of the other examples; with the example's own, dW would shrink.
    ``samples`` repeats the batch. Any net. Returns the mean loss of the noisy answers. Raises
    ValueError as WeightPerturbation, for another reward, for a baseline of one example.
    Source: Williams 1992. Departs: Gaussian drives, also at the output; no sampled labels.
    """

    def __init__(
        self, net: Net, *, baseline: bool = True, sigma: float = 0.1, reward: str = "loss", **rest
    ) -> None:
        super().__init__(net, sigma=sigma, **rest)
        if reward not in ("loss", "correct"):
            raise ValueError(f"unknown reward {reward!r}; expected loss or correct")
        self.baseline, self.reward = baseline, reward

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        n, (x, y) = len(x), (torch.cat([part] * self.samples) for part in (x, y))
        trace, noises = noisy_trace(net, x, sigma=self.sigma, rng=self.rng)
        loss = cost = losses.each(net, trace, y, self.loss)
        if self.reward == "correct":
            both = trace.values[-1], losses.as_targets(y, trace.values[-1])
            said, told = (a.argmax(1) if a.shape[1] > 1 else a[:, 0] > 0.5 for a in both)
            cost = (said != told).to(loss)
        if self.baseline:
            if len(x) < 2:
                raise ValueError("found 1 example, no others for a baseline: use baseline=False")
            cost = (cost - cost.mean()) * (len(x) / (len(x) - 1))
        self._write(net, trace, [_times(cost, noise) for noise in noises], n)
        return loss.mean()


@register("bernoulli reinforce")
class BernoulliReinforce(Rule):
    """Hidden units that fire or not; credit is the cost times the score of what was drawn.

    h is 1 with probability p = sigmoid(a), else 0; d log p / da = h - p, and delta_l = 1/(n m) sum
    over m = ``samples`` of (cost - baseline)(h - p). ``output="reward"``: the answer is drawn too
    (a class from a softmax, 0 or 1 from each sigmoid), cost 1 if it is wrong and 0 if right.
    ``output="delta"``: the output layer is told the target and learns by its exact gradient; the
    hidden units' cost is the loss. ``baseline``: the mean cost of the example's other draws, with
    one draw that of the other examples. Both are the gradient of the expected cost, without bias.
    Sigmoid hidden layers, softmax or sigmoid output. Returns the mean loss over what was drawn.
    Raises ValueError for no rng, other units, another output rule, a baseline of one draw.
    Source: Williams 1992. Departs: baselines are means of the same step, not running ones.
    """

    def __init__(
        self,
        net: Net,
        *,
        rng: Rng = None,
        samples: int = 1,
        output: str = "reward",
        baseline: bool = True,
    ) -> None:
        kinds = [layer.activation.name for layer in net.layers]
        if set(kinds[:-1]) - {"sigmoid"} or kinds[-1] not in ("softmax", "sigmoid"):
            raise ValueError(
                f"expected sigmoid units and a softmax or sigmoid output, found {kinds}"
            )
        if output not in ("reward", "delta"):
            raise ValueError(f"unknown output {output!r}; expected reward or delta")
        super().__init__(net, loss="cross_entropy")
        self.rng, self.samples = _needed(rng, samples)
        self.output, self.baseline = output, baseline

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        n, m, scores = len(x), self.samples, []
        x, y = (torch.cat([part] * m) for part in (x, y))

        def fire(index: int, a: Tensor) -> tuple[Tensor, Tensor]:
            p = net.layers[index].fire(a)
            last = index == len(net.layers) - 1
            drawn = _drawn(p, net.output if last else "sigmoid", self.rng)
            scores.append(drawn - p)
            return a, p if last else drawn

        trace = net.trace(x, fire=fire)
        loss = cost = losses.each(net, trace, y, "cross_entropy")
        if self.output == "reward":
            said = trace.values[-1] + scores[-1]
            told = losses.as_targets(y, said)
            cost = ((said - told).abs() > 0.5).any(-1).to(loss)
        if self.baseline:
            group = cost.view(m, n) if m > 1 else cost.view(n, 1)
            if len(group) < 2:
                raise ValueError("found 1 draw, no others for a baseline: use baseline=False")
            share = len(group) / (len(group) - 1)
            cost = ((group - group.mean(0)) * share).flatten()
        deltas = [_times(cost, score) / len(x) for score in scores]
        if self.output == "delta":
            deltas[-1] = losses.output_error(net, trace, y, "cross_entropy")
        for layer, delta, value in zip(net.layers, deltas, trace.values, strict=False):
            layer.weight.grad, layer.bias.grad = layer.correlate(delta, value)
        return loss.mean()


def _drawn(p: Tensor, output: str, rng: Rng) -> Tensor:
    """1 with probability p for every unit; of a softmax's units exactly one is 1."""
    u = torch.from_numpy(rng.random(p[..., :1].shape if output == "softmax" else p.shape)).to(p)
    if output != "softmax":
        return (u < p).to(p)
    said = (p.cumsum(-1) < u).sum(-1).clamp(max=p.shape[-1] - 1)  # the sum may round to below 1
    return nn.functional.one_hot(said, p.shape[-1]).to(p)
