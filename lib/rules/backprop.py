"""Backpropagation: every layer is told the exact derivative of the loss at its drive."""

from __future__ import annotations

from lib.rules.base import Rule, register


@register("backprop")
class Backprop(Rule):
    """The gradient, by the recursion delta_l = f'(a_l) . W_{l+1}^T delta_{l+1}.

    Every step is the default of ``Rule``: the true output error, the true weights, the true
    slope. ``.grad`` equals what autograd gives.
    Source: Rumelhart, Hinton & Williams 1986, the generalised delta rule.
    Departs: nothing.
    """
