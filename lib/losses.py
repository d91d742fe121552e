"""What the teacher says: a loss, and its derivative at the drive of the output layer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.nets import Net, Trace

NAMES = ("mse", "cross_entropy")


def resolve(net: Net, loss: str | None) -> str:
    """The loss's name, by default cross_entropy under softmax and mse elsewhere.

    Raises ValueError for an unknown name, or cross-entropy without softmax or sigmoid outputs.
    """
    if loss is None:
        return "cross_entropy" if net.output == "softmax" else "mse"
    if loss not in NAMES:
        raise ValueError(f"unknown loss {loss!r}; expected one of {', '.join(NAMES)}")
    if loss == "cross_entropy" and net.output not in ("softmax", "sigmoid"):
        raise ValueError(
            f"cross_entropy needs softmax or sigmoid outputs, found {net.output}; "
            'use loss="mse" or build the net with output="softmax"'
        )
    return loss


def as_targets(y: Tensor, out: Tensor) -> Tensor:
    """Targets (n, k) for the answers ``out`` (..., n, k): class numbers become one-hot rows.

    In a stack of nets the targets are one (n, k) or (n,) for all, or each net's own.
    Raises ValueError where the number of rows, columns or classes does not fit.
    """
    n, k = out.shape[-2:]
    whole = not y.is_floating_point()
    if whole and y.shape in (out.shape[-2:-1], out.shape[:-1]):
        try:
            return out.new_zeros(*y.shape, k).scatter_(-1, y.long()[..., None], 1)
        except RuntimeError:  # torch checks each number anyway
            raise ValueError(
                f"expected class numbers from 0 to {k - 1} for {k} outputs, "
                f"found {int(y.min())} to {int(y.max())}; build the net with one output per class, "
                "or give 0/1 targets of shape (n, 1) to a single output"
            ) from None
    if y.shape not in (out.shape[-2:], out.shape):
        raise ValueError(
            f"expected targets of shape {(n, k)}, or {(n,)} whole class numbers, "
            f"found {tuple(y.shape)} of {y.dtype}"
        )
    return y.to(out.dtype)


def _targets(net: Net, out: Tensor, y: Tensor, loss: str) -> Tensor:
    """``as_targets``, and for a softmax's cross-entropy a check that they are probabilities."""
    t = as_targets(y, out)
    if loss == "cross_entropy" and net.output == "softmax" and y.is_floating_point():
        sums = t.sum(-1)
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            raise ValueError(
                "cross_entropy with softmax needs target rows that sum to 1, found sums from "
                f'{float(sums.min()):g} to {float(sums.max()):g}; normalise them, or use loss="mse"'
            )
    return t


def each(net: Net, trace: Trace, y: Tensor, loss: str) -> Tensor:
    """The loss of every example, shape (n,); of a stack of nets' answers (..., n, k), (..., n).

    mse: 1/2 sum over outputs of (y_hat - t)^2. cross_entropy: -sum t log y_hat for softmax; for
    sigmoid outputs the sum over outputs of their binary cross-entropies.
    Raises ValueError where the targets do not fit, or a softmax's do not sum to 1.
    """
    out, drive = trace.values[-1], trace.drives[-1]
    t = _targets(net, out, y, loss)
    if loss == "mse":
        return (out - t).square().sum(-1) / 2
    if net.output == "softmax":  # transposed: torch is ten times slower along a short last axis
        return -(t.mT * torch.log_softmax(drive.mT, dim=-2)).sum(-2)
    return (F.softplus(drive) - t * drive).sum(-1)


def value(net: Net, trace: Trace, y: Tensor, loss: str) -> Tensor:
    """The mean loss of a batch, a scalar: the mean of ``each``."""
    return each(net, trace, y, loss).mean()


def output_error(net: Net, trace: Trace, y: Tensor, loss: str) -> Tensor:
    """delta of the output layer: the derivative of the mean loss at its drive, shape (n, k).

    It already carries the 1/n of the mean, so a sum over the batch gives the gradient.
    For cross-entropy it is (y_hat - t)/n; for mse the same, pulled through the activation.
    """
    out = trace.values[-1]
    difference = (out - _targets(net, out, y, loss)) / out.shape[-2]
    if loss == "cross_entropy":
        return difference
    return net.layers[-1].pull(difference, trace.drives[-1], trace.fired[-1])
