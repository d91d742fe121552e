"""The league on MNIST: the script of book/runs/league, given one other task.

    python -m lib.runs run book/runs/league-mnist.toml

Field, rates, options, seeds and jobs are those of the league; so is every line of code but these.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from lib import data, runs

N = 30_000  # of the 60,000 training digits, the first half: 24,000 to learn, 6,000 held out


@cache
def load(task):
    """MNIST with half of its training set, in float64."""
    d = data.load(task, dtype=torch.float64)
    return replace(d, x_train=d.x_train[:N].clone(), y_train=d.y_train[:N].clone())


league = runs.script("league")
league.TASKS.clear()  # the functions of that script look up their tasks and data here
league.TASKS["mnist"] = ([784, 100, 100, 10], "softmax", 2, 1)
league.job.__globals__["load"] = load

COLUMNS, KEY = league.COLUMNS, league.KEY
build, job, plan, same = league.build, league.job, league.plan, league.same
TASKS, RATES, TUNING, SEEDS = league.TASKS, league.RATES, league.TUNING, league.SEEDS
