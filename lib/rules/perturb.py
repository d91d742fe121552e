"""Global scores: shake units or weights, see what became of the loss, and correlate the two.

No error is sent back. Each rule's estimate of the gradient is right on average (Reinforce at any
sigma, the others as sigma -> 0), its spread falls as 1/sqrt(draws). A large sigma adds bias; a
tiny one drowns the difference of two losses in rounding (in float32 stay above 0.001).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lib import losses
from lib.nets import Net, Trace
from lib.rules.base import Rule, register

Rng = np.random.Generator


def noisy_trace(net: Net, x: Tensor, *, sigma: float, rng: Rng) -> tuple[Trace, list[Tensor]]:
    """Run a net on x (n, ...) with a_l = W_l * h_{l-1} + b_l + sigma xi_l; noise passes upward.

    xi_l: standard normal per example and unit, drawn from the lowest layer up. Returns the trace
    and the sigma xi_l. Raises ValueError where x does not fit. Source: our own. Departs: nothing.
    """
    net._check(x)
    values, drives, fired, noises = [x], [], [], []
    for layer in net.layers:
        a = layer.drive(values[-1])
        noises.append(sigma * torch.from_numpy(rng.standard_normal(a.shape)).to(a))
        drives.append(a + noises[-1])
        fired.append(f := layer.fire(drives[-1]))
        values.append(values[-layer.skip].flatten(1) + layer.gain * f if layer.skip else f)
    return Trace(tuple(values), tuple(drives), tuple(fired)), noises


def _each(net: Net, trace: Trace, y: Tensor, loss: str) -> Tensor:
    """The loss of every example (n,); its mean is ``losses.value``."""
    out, drive = trace.values[-1], trace.drives[-1]
    t = losses._targets(net, out, y, loss)
    if loss == "mse":
        return (out - t).square().sum(-1) / 2
    if net.output == "softmax":
        return -(t * torch.log_softmax(drive, dim=-1)).sum(-1)
    return (nn.functional.softplus(drive) - t * drive).sum(-1)


class _Perturbed(Rule):
    def __init__(
        self, net: Net, *, rng: Rng = None, sigma: float, samples: int = 1, loss: str | None = None
    ) -> None:
        super().__init__(net, loss=loss)
        if not isinstance(rng, Rng):
            raise ValueError(f"expected rng=np.random.default_rng(seed) for noise, found {rng!r}")
        if not 0 < sigma < np.inf:
            raise ValueError(f"expected a finite sigma above 0, found {sigma}")
        if samples < 1 or samples % 1:
            raise ValueError(f"expected samples to be a whole number of 1 or more, found {samples}")
        self.rng, self.sigma, self.samples = rng, sigma, int(samples)

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
        clean = _each(net, trace, y, self.loss)
        sums = [torch.zeros_like(a) for a in trace.drives]
        for _ in range(self.samples):
            shaken, noises = noisy_trace(net, x, sigma=self.sigma, rng=self.rng)
            rise = _each(net, shaken, y, self.loss) - clean
            sums = [a + _times(rise, noise) for a, noise in zip(sums, noises, strict=True)]
        self._write(net, trace, sums, len(x))
        return clean.mean()


class _Score(nn.ModuleList):
    """A net as a module that answers with the loss, so functional_call can swap its weights."""

    def forward(self, x: Tensor, y: Tensor, loss: str) -> Tensor:
        return losses.value(self[0], self[0].trace(x), y, loss)


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
        w = nn.utils.parameters_to_vector(net.parameters())
        grad = torch.zeros_like(w)
        for start in range(0, self.samples, 64):  # as many draws of all weights at a time
            shape = min(64, self.samples - start), len(w)
            xi = torch.from_numpy(self.rng.standard_normal(shape)).to(w)
            rise = self._rise(net, x, y, w, self.sigma * xi, clean)
            grad += rise @ xi / (self.sigma * self.samples)
        for p in net.parameters():
            p.grad, grad = grad[: p.numel()].reshape(p.shape), grad[p.numel() :]
        return clean

    def _rise(self, net: Net, x: Tensor, y: Tensor, w: Tensor, step: Tensor, clean: Tensor):
        """By how much the loss rises with each of m steps (m, D) from w (D,): (m,)."""
        return self._losses(net, x, y, w + step) - clean

    def _losses(self, net: Net, x: Tensor, y: Tensor, ws: Tensor) -> Tensor:
        """The mean loss (m,) of each of m nets with weights ``ws`` (m, D), in one batched pass."""
        score, stacks = _Score([net]), {}
        for name, p in score.named_parameters():
            stacks[name], ws = ws[:, : p.numel()].reshape(-1, *p.shape), ws[:, p.numel() :]
        return vmap(lambda weights: functional_call(score, weights, (x, y, self.loss)))(stacks)


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

    def _rise(self, net: Net, x: Tensor, y: Tensor, w: Tensor, step: Tensor, clean: Tensor):
        up, down = self._losses(net, x, y, torch.cat([w + step, w - step])).chunk(2)
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
        loss = cost = _each(net, trace, y, self.loss)
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
