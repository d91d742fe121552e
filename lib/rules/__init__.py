"""Learning rules: each is called as ``loss = rule(net, x, y)`` and writes ``.grad``."""

from lib.rules.backprop import Backprop
from lib.rules.base import Rule, get, names, register

__all__ = ["Backprop", "Rule", "get", "names", "register"]
