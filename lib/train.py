"""One training loop for every rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import trange

from lib import losses, measure
from lib.data import Data
from lib.nets import Net
from lib.rules.base import Rule

T = TypeVar("T")
Probe = Callable[[Net, int], dict[str, float]]


@dataclass(frozen=True)
class History:
    """What happened, one row per epoch; row 0 is before training."""

    rows: tuple[dict[str, float], ...]

    def __getitem__(self, name: str) -> np.ndarray:
        """One column over the epochs. Raises KeyError naming the columns there are."""
        if name not in self.rows[0]:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.rows[0])}")
        return np.array([row[name] for row in self.rows])


def evaluate(net: Net, rule: Rule, data: Data) -> dict[str, float]:
    """Test loss, and the test error (share wrong for classes, normalised MSE for numbers)."""
    with torch.no_grad():
        trace = net.trace(data.x_test)
        loss = losses.value(net, trace, data.y_test, rule.loss)
    if data.n_classes:
        error = measure.wrong(trace.values[-1], data.y_test)
    else:
        error = measure.nmse(trace.values[-1], data.y_test)
    return {"test_loss": float(loss), "test_error": error}


def fit(
    net: Net,
    rule: Rule,
    data: Data,
    *,
    epochs: int,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    start: int = 0,
    probe: Probe | None = None,
    progress: bool | None = None,
) -> History:
    """Train for a number of passes over the data, in minibatches drawn without replacement.

    ``optimizer`` steps whatever parameters it was given, from the ``.grad`` the rule writes.
    ``rng`` draws the order of the examples only. ``start`` > 0: that many of the ``epochs`` are
    done already; the history begins with the next one. ``probe(net, epoch)`` adds its own columns
    to each row. ``progress``: True shows a bar, False none, None only at a terminal.
    Columns: epoch, train_loss (mean over the epoch's batches; nan in row 0), test_loss,
    test_error. Raises ValueError for a bad count, FloatingPointError when the loss of a batch, or
    the test loss after an epoch, is not finite any more.
    """
    n = len(data.x_train)
    if epochs < 0 or not 1 <= batch_size <= n:
        raise ValueError(
            f"expected epochs >= 0 and 1 <= batch_size <= {n} (the examples there are), "
            f"found epochs={epochs}, batch_size={batch_size}"
        )
    if not 0 <= start < max(epochs, 1):
        raise ValueError(f"expected 0 <= start < epochs, found start={start}, epochs={epochs}")

    def row(epoch: int, train_loss: float) -> dict[str, float]:
        more = probe(net, epoch) if probe else {}
        return {
            "epoch": epoch,
            "train_loss": train_loss,
            **evaluate(net, rule, data),
            **more,
        }

    def check(loss: float, epoch: int) -> None:
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in epoch {epoch}: training diverged; lower the learning "
                "rate or the initial weights"
            )

    rows = [] if start else [row(0, float("nan"))]
    off = None if progress is None else not progress
    bar = trange(start + 1, epochs + 1, desc="epochs", disable=off)
    for epoch in bar:
        order = torch.from_numpy(rng.permutation(n))
        total = 0.0
        for picked in order.split(batch_size):
            loss = float(rule(net, data.x_train[picked], data.y_train[picked]))
            check(loss, epoch)
            optimizer.step()
            total += loss * len(picked)
        rows.append(row(epoch, total / n))
        check(rows[-1]["test_loss"], epoch)
        bar.set_postfix(loss=f"{total / n:.4g}", test=f"{rows[-1]['test_error']:.4g}")
    return History(tuple(rows))


class _Credit(torch.nn.Module):
    """A net and its rule as one module: on a batch, it gives every parameter's .grad."""

    def __init__(self, net: Net, rule: Rule) -> None:
        super().__init__()
        self.net, self.rule = net, rule

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.rule(self.net, x, y)
        return {name: p.grad for name, p in self.named_parameters()}


def side_by_side(
    pairs: Sequence[tuple[Net, Rule]],
) -> tuple[dict[str, Tensor], Callable[[Tensor, Tensor], dict[str, Tensor]]]:
    """Small nets, each with its rule, as one: ``stack, credit``, so that they train at once.

    ``stack``: {"net.layers.0.weight": (nets, n_out, n_in), ..., "rule.Y0": ...}, of which the nets
    and rules given become slices: move it, and they have moved. ``credit(x, y)``, for batches
    (nets, n, ...) and targets (nets, n, k) of numbers: every parameter's .grad, stacked likewise,
    from the first pair's rule run once by vmap. So all rules must be of one kind and draw nothing.
    Raises ValueError for no pairs or parameters of different shapes.
    """
    ones = [_Credit(*pair) for pair in pairs]
    shapes = {tuple((name, p.shape) for name, p in one.named_parameters()) for one in ones}
    if len(shapes) != 1:
        raise ValueError(f"expected nets and rules of one shape, found {len(shapes)} shapes")
    stack = {
        name: torch.stack([one.get_parameter(name).detach() for one in ones])
        for name, _ in ones[0].named_parameters()
    }
    for i, one in enumerate(ones):
        for name, p in one.named_parameters():
            p.data = stack[name][i]
    fixed = {
        name: torch.stack([dict(one.named_buffers())[name] for one in ones])
        for name, _ in ones[0].named_buffers()
    }
    each = torch.vmap(lambda w, b, x, y: torch.func.functional_call(ones[0], (w, b), (x, y)))
    return stack, lambda x, y: each(stack, fixed, x, y)


def over_seeds(experiment: Callable[[np.random.Generator], T], seeds: Sequence[int]) -> list[T]:
    """Run ``experiment(rng)`` once per seed, each with a fresh independent generator."""
    return [experiment(np.random.default_rng(seed)) for seed in seeds]
