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
from lib.rules.perturb import (
    BernoulliReinforce,
    EvolutionStrategy,
    NodePerturbation,
    Reinforce,
    WeightPerturbation,
)

__all__ = [
    "Backprop",
    "BernoulliReinforce",
    "DirectFeedbackAlignment",
    "EvolutionStrategy",
    "FeedbackAlignment",
    "Kickback",
    "KolenPollack",
    "NodePerturbation",
    "Reinforce",
    "Rule",
    "SignSymmetry",
    "WeightMirror",
    "WeightPerturbation",
    "get",
    "names",
    "register",
]
