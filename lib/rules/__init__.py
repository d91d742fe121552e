"""Learning rules: each is called as ``loss = rule(net, x, y)`` and writes ``.grad``."""

from lib.rules.backprop import Backprop
from lib.rules.base import Rule, get, names, register
from lib.rules.burstccn import BurstCCN
from lib.rules.burstprop import Burstprop, released_sgd
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
from lib.rules.predictive import PredictiveCoding

__all__ = [
    "Backprop",
    "BernoulliReinforce",
    "BurstCCN",
    "Burstprop",
    "DirectFeedbackAlignment",
    "EvolutionStrategy",
    "FeedbackAlignment",
    "Kickback",
    "KolenPollack",
    "NodePerturbation",
    "PredictiveCoding",
    "Reinforce",
    "Rule",
    "SignSymmetry",
    "WeightMirror",
    "WeightPerturbation",
    "get",
    "names",
    "register",
    "released_sgd",
]
