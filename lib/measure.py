"""What the book measures: angles, agreement of signs, errors, intervals, gradient checks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from lib import losses
from lib.influence import Coherence, Influence, coherence, influence, sign_flips
from lib.nets import Net

Array = np.ndarray | Tensor | Sequence[float]
__all__ = [
    "Coherence",
    "Influence",
    "Interval",
    "angle",
    "angles",
    "coherence",
    "error_rate",
    "finite_difference",
    "gradients",
    "influence",
    "interval",
    "nmse",
    "parity",
    "sign_agreement",
    "sign_flips",
    "wrong",
]


def _array(a: Array) -> np.ndarray:
    a = a.detach().cpu().numpy() if isinstance(a, Tensor) else a
    return np.asarray(a, dtype=np.float64)


def _flat(a: Array) -> np.ndarray:
    return _array(a).ravel()


def angle(a: Array, b: Array) -> float:
    """The angle between two arrays read as vectors, in degrees, 0 to 180.

    arccos of <a, b> over both lengths, computed as 2 atan2(length of u - v, length of u + v) on
    unit vectors, which stays exact near 0 and 180. Raises ValueError for different sizes, a zero
    vector or one that is not finite.
    """
    u, v = _flat(a), _flat(b)
    if u.shape != v.shape:
        raise ValueError(f"expected two arrays of one size, found {u.size} and {v.size} numbers")
    nu, nv = np.linalg.norm(u), np.linalg.norm(v)
    if not (0 < nu < np.inf and 0 < nv < np.inf):
        raise ValueError(
            f"expected two finite vectors that are not zero, found lengths {nu:g} and {nv:g}: "
            "the angle to such a vector is not defined; leave it out"
        )
    u, v = u / nu, v / nv
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))))


def sign_agreement(a: Array, b: Array) -> float:
    """The share of places where a and b have one sign, among those where neither is 0.

    1 = always, 0.5 = as by chance, 0 = never. Raises ValueError where no place counts.
    """
    u, v = np.sign(_flat(a)), np.sign(_flat(b))
    if u.shape != v.shape:
        raise ValueError(f"expected two arrays of one size, found {u.size} and {v.size} numbers")
    both = (u != 0) & (v != 0)
    if not both.any():
        raise ValueError("there is no place where both arrays differ from 0")
    return float(np.mean(u[both] == v[both]))


def nmse(prediction: Array, target: Array) -> float:
    """Normalised mean squared error: mean (y_hat - t)^2 / variance of t.

    0 = exact, 1 = as good as always answering the mean. For several outputs (n, k) the mean of
    the outputs' values. Raises ValueError for different shapes or a constant target.
    """
    p, t = _array(prediction), _array(target)
    if p.shape != t.shape:
        raise ValueError(f"expected predictions shaped like targets {t.shape}, found {p.shape}")
    var = t.var(axis=0)
    if not np.all(var > 0):
        raise ValueError("the target is constant: its variance is 0, nothing to normalise by")
    return float(np.mean(((p - t) ** 2).mean(axis=0) / var))


def error_rate(net: Net, x: Tensor, y: Tensor) -> float:
    """The share of examples whose largest output is not the class y (n,), from 0 to 1.

    A net with one output says class 1 above 0.5.
    """
    with torch.no_grad():
        return wrong(net(x), y)


def wrong(out: Tensor, y: Tensor) -> float:
    """The share of a net's answers (n, k) that are wrong: ``error_rate`` of what it has said."""
    said = (out[:, 0] > 0.5).long() if out.shape[1] == 1 else out.argmax(1)
    return float((said != y.reshape(-1).long()).double().mean())


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval (or another level) over ``n`` independent values."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n}"


def interval(values: Array, *, rng: np.random.Generator, level: float = 0.95) -> Interval:
    """Bootstrap interval of the mean over seeds (or other independent repeats).

    Percentile bootstrap with SciPy, its percentiles moved outwards so that small samples are not
    overconfident: the level becomes 1 - 2 Phi(-t sqrt(n/(n-1))), t the Student quantile for
    n - 1 degrees of freedom. For n = 5 normal values the plain percentile interval covers the
    truth in about 84 of 100 cases, this one in about 92; for n = 20 it is 92 and 95. For n = 3 it
    is the range of the values, which covers in 75. tests/test_measure.py measures the first two.
    ``level``: between 0 and 1.
    Raises ValueError for another level, fewer than 3 values or one that is not finite.
    Source: Hesterberg 2015, The American Statistician 69:371, the expanded percentile interval.
    """
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, such as 0.95, found {level}")
    v = _flat(values)
    if v.size < 3 or not np.isfinite(v).all():
        raise ValueError(f"expected at least 3 finite values, found {v.size}: {v[:5]}")
    mean, n = float(v.mean()), v.size
    if np.ptp(v) == 0:
        return Interval(mean, mean, mean, n)
    t = stats.t.ppf(0.5 + level / 2, n - 1)
    wide = 1 - 2 * float(stats.norm.cdf(-t * np.sqrt(n / (n - 1))))
    found: Any = stats.bootstrap(
        (v,),
        np.mean,
        confidence_level=wide,
        method="percentile",
        n_resamples=9999,
        rng=rng,
    )
    low, high = found.confidence_interval
    return Interval(mean, float(low), float(high), n)


def gradients(net: Net) -> list[np.ndarray]:
    """A copy of each layer's weight gradient, lowest layer first. ValueError if one is missing."""
    missing = [i for i, layer in enumerate(net.layers) if layer.weight.grad is None]
    if missing:
        raise ValueError(f"layer {missing[0]} has no gradient yet: call rule(net, x, y) first")
    return [layer.weight.grad.detach().cpu().numpy().copy() for layer in net.layers]


def angles(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> list[float]:
    """The angle in degrees, layer by layer, between two lists from ``gradients``."""
    return [angle(a, b) for a, b in zip(one, other, strict=True)]


def finite_difference(
    net: Net,
    x: Tensor,
    y: Tensor,
    *,
    places: Sequence[tuple[int, int]],
    eps: float,
    loss: str,
) -> np.ndarray:
    """dE/dw by central differences, (E(w + eps) - E(w - eps)) / 2 eps, at chosen weights.

    ``places``: (layer, flat index) of each weight. Exact to about eps^2 where E is smooth; across
    a kink of a ReLU it is the mean slope of the two sides. Weights are put back exactly. In
    float32 rounding costs about 1e-7 E / eps: use a float64 net.
    """
    out = []
    for layer, index in places:
        flat = net.layers[layer].weight.data.view(-1)
        keep, sides = flat[index].clone(), []
        try:
            for step in (eps, -eps):
                flat[index] = keep + step
                with torch.no_grad():
                    sides.append(losses.value(net, net.trace(x), y, loss).double())
        finally:
            flat[index] = keep
        out.append(float(sides[0] - sides[1]) / (2 * eps))
    return np.array(out)


def parity(
    net: Net, rule: Any, x: Tensor, y: Tensor, *, rng: np.random.Generator, n: int = 40
) -> float:
    """How far a rule's output-layer gradient is from finite differences, relative, largest of n.

    About 1e-6 or less: the rule's ``.grad`` is on the loss's own scale. A factor (a sum for a
    mean, a lost 1/2) shows as that factor minus one. Run it before two rules share a plot; every
    rule in the book is exact in the output layer. The differences are taken on a float64 copy,
    at weights that exist (not those a layer's ``mask`` holds at 0).
    Raises ValueError where the differences are all 0, since there is no scale to compare.
    """
    rule(net, x, y)
    top = len(net.layers) - 1
    grad = net.layers[top].weight.grad.reshape(-1)
    mask = getattr(net.layers[top], "mask", torch.ones_like(grad))
    exist = mask.reshape(-1).nonzero()[:, 0].numpy()
    picks = exist[rng.permutation(len(exist))[:n]].tolist()
    numeric = finite_difference(
        copy.deepcopy(net).double(),
        x.double(),
        y.double() if y.is_floating_point() else y,
        places=[(top, i) for i in picks],
        eps=1e-5,
        loss=rule.loss,
    )
    scale = float(np.abs(numeric).max())
    if scale == 0:
        raise ValueError("the output layer's gradient is 0 here: give other data or another net")
    return float(np.abs(grad[picks].cpu().numpy() - numeric).max() / scale)
