"""Learning rules: each is called as ``loss = rule(net, x, y)`` and writes ``.grad``."""

from lib.rules.backprop import Backprop
from lib.rules.base import Rule, get, names, register
from lib.rules.feedback import (
    DirectFeedbackAlignment,
    FeedbackAlignment,
    KolenPollack,
    SignSymmetry,
    WeightMirror,
)
from lib.rules.kickback import Kickback

__all__ = [
    "Backprop",
    "DirectFeedbackAlignment",
    "FeedbackAlignment",
    "Kickback",
    "KolenPollack",
    "Rule",
    "SignSymmetry",
    "WeightMirror",
    "get",
    "names",
    "register",
]
