"""What every learning rule shares, and the one place where rules differ."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib import losses
from lib.nets import Net, Trace

_REGISTRY: dict[str, type[Rule]] = {}


class Rule(nn.Module):
    """A learning rule: call it instead of ``loss.backward()``.

    ``loss = rule(net, x, y)`` runs the net on a batch, finds every layer's error signal delta_l,
    and *overwrites* ``.grad`` of every parameter with sum over the batch of delta_l x input
    (the three-factor form; delta already carries the 1/n of the mean loss). It returns the mean
    loss. A rule's own parameters (feedback weights, where it has them) are ``rule.parameters()``.

    Rules override one of the small steps below: ``teach`` (what the output layer is told),
    ``send`` (what a layer tells the one below), ``gate`` (what a unit makes of it).

    ``loss``: mse, cross_entropy, or None for the net's own (see lib.losses.resolve).
    """

    def __init__(self, net: Net, *, loss: str | None = None) -> None:
        super().__init__()
        self.loss = losses.resolve(net, loss)

    @torch.no_grad()
    def forward(self, net: Net, x: Tensor, y: Tensor) -> Tensor:
        """One step of credit on a batch x (n, ...), y (n,) or (n, k): writes .grad."""
        trace = net.trace(x)
        deltas = self.credit(net, trace, self.teach(net, trace, y))
        for layer, delta, value in zip(net.layers, deltas, trace.values, strict=False):
            layer.weight.grad, layer.bias.grad = layer.correlate(delta, value)
        return losses.value(net, trace, y, self.loss)

    def teach(self, net: Net, trace: Trace, y: Tensor) -> Tensor:
        """delta of the output layer, at its drive (n, k)."""
        return losses.output_error(net, trace, y, self.loss)

    def send(self, net: Net, index: int, delta: Tensor) -> Tensor:
        """The signal that layer ``index`` passes to its input: W^T delta."""
        return net.layers[index].transpose(delta)

    def gate(self, net: Net, index: int, signal: Tensor, trace: Trace) -> Tensor:
        """From the signal at layer ``index``'s response to its delta: signal . f'(a)."""
        return net.layers[index].pull(signal, trace.drives[index], trace.fired[index])

    def credit(self, net: Net, trace: Trace, delta: Tensor) -> list[Tensor]:
        """Every layer's delta, lowest first, from the output layer's.

        Walks down once: delta_l = gate(send(delta_{l+1})). A skip hands the signal at its end,
        unchanged, also to where it began.
        """
        deltas = [delta]
        signals: dict[int, Tensor] = {}
        for index in reversed(range(1, len(net.layers))):
            below = self.send(net, index, deltas[0])
            below = below.reshape(trace.values[index].shape)
            signal = signals.get(index, 0) + below
            layer = net.layers[index - 1]
            if layer.skip:
                start = index - layer.skip
                signals[start] = signals.get(start, 0) + signal
                signal = layer.gain * signal
            deltas.insert(0, self.gate(net, index - 1, signal, trace))
        return deltas


def register(name: str) -> Callable[[type[Rule]], type[Rule]]:
    """Class decorator: make a rule known to ``names()`` and ``get(name)``."""

    def keep(cls: type[Rule]) -> type[Rule]:
        if name in _REGISTRY:
            raise ValueError(f"the rule name {name!r} is taken by {_REGISTRY[name].__name__}")
        _REGISTRY[name] = cls
        return cls

    return keep


def names() -> list[str]:
    """The registered rules' names, in alphabetical order."""
    return sorted(_REGISTRY)


def get(name: str) -> type[Rule]:
    """The rule class of that name. Raises ValueError for an unknown one."""
    if name not in _REGISTRY:
        raise ValueError(f"unknown rule {name!r}; expected one of {', '.join(names())}")
    return _REGISTRY[name]
