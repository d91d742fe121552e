"""One phase or two, on digits: the stored run of synthesis/frontier.

    python -m lib.runs run book/runs/one-phase.toml

A job is a part ("tune" or "test"), an arm, a rate and a seed: one net. Its row: the error in
percent on what it did not learn, the angle in degrees of each hidden layer's update to Backprop's
at the end, and the size of Q - Y/2 relative to Y/2 (of "learned Q"). A net that diverges errs on
90 %.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lib import data, measure, nets, rules, train

ARMS = {
    "backprop": (rules.Backprop, {}),
    "feedback alignment": (rules.FeedbackAlignment, {}),
    "burstprop": (rules.Burstprop, {}),
    "burstccn": (rules.BurstCCN, {}),
    "burstccn, learned Q": (rules.BurstCCN, {"events": "learned", "event_rate": 1.0}),
    "burstccn, no Q": (rules.BurstCCN, {"events": "learned"}),
    "output only": (rules.Backprop, {}),
}
GRID, EPOCHS, BATCH = (0.05, 0.1, 0.2), 40, 32
TUNE, TEST = range(100, 103), range(6)
REST, REST_RATE, Q_RATE = 20, 0.01, 0.003  # epochs without a teacher; Adam's rates for Q
KEY = 4
COLUMNS = ["part", "arm", "rate", "seed", "error", "angle_0", "angle_1", "off", "seconds"]


class Both:
    """Two optimizers that step together: one for the weights, one for Q."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.all = optimizers

    def step(self) -> None:
        for optimizer in self.all:
            optimizer.step()


def rest(net: nets.Net, rule: rules.Rule, x: torch.Tensor, rng: np.random.Generator) -> None:
    """Only Q learns: the targets are what the net says, so there is no error."""
    adam = torch.optim.Adam(rule.parameters(), lr=REST_RATE)
    for _ in range(REST):
        for picked in torch.from_numpy(rng.permutation(len(x))).split(BATCH):
            rule(net, x[picked], net(x[picked]).detach())
            adam.step()


def job(part: str, arm: str, rate: float, seed: int) -> dict:
    torch.set_num_threads(1)
    d, rng = data.digits(dtype=torch.float64), np.random.default_rng(seed)
    if part == "tune":
        x, y, n = d.x_train, d.y_train, len(d.x_train) // 5
        d = replace(d, x_train=x[n:], y_train=y[n:], x_test=x[:n], y_test=y[:n])
    kind = {"activation": "sigmoid", "output": "sigmoid", "weight_gain": 2.0}
    net = nets.mlp([64, 100, 100, 10], **kind, dtype=torch.float64, rng=rng)
    make, options = ARMS[arm]
    rule = make(net, loss="mse", **options, **({} if make is rules.Backprop else {"rng": rng}))
    taught = net.layers[-1] if arm == "output only" else net
    optimizer = torch.optim.SGD(taught.parameters(), lr=rate, momentum=0.8)
    own = list(rule.parameters())
    if arm == "burstccn, no Q":
        for q in own:
            q.data.zero_()
    elif own and arm == "burstprop":
        optimizer.add_param_group({"params": own})  # its recurrent weights Z
    elif own:
        rest(net, rule, d.x_train, rng)
        optimizer = Both(optimizer, torch.optim.Adam(own, lr=Q_RATE))
    try:
        fit = train.fit(net, rule, d, epochs=EPOCHS, batch_size=BATCH, optimizer=optimizer, rng=rng)
        error = 100 * fit["test_error"][-1]
    except FloatingPointError:
        return {"error": "90.00", "angle_0": "90.00", "angle_1": "90.00", "off": "9.000"}
    rule(net, d.x_test, d.y_test)
    told = measure.gradients(net)[:-1]
    rules.Backprop(net, loss="mse")(net, d.x_test, d.y_test)
    angles = measure.angles(told, measure.gradients(net)[:-1])
    off = [float((q - y / 2).norm() / (y / 2).norm()) for q, y in pairs(rule)] or [0.0]
    row = {f"angle_{k}": f"{a:.2f}" for k, a in enumerate(angles)}
    return {"error": f"{error:.2f}", **row, "off": f"{np.mean(off):.3f}"}


def pairs(rule: rules.Rule) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every Q of a rule with its Y."""
    own = rule.state_dict()
    return [(own[q], own[q.replace("Q", "Y")]) for q in own if q.startswith("Q")]


def plan(get) -> None:
    for arm in ARMS:
        tuned = {r: sum(float(get("tune", arm, r, s)["error"]) for s in TUNE) for r in GRID}
        for seed in TEST:
            get("test", arm, min(tuned, key=tuned.get), seed)


def same(stored: dict, again: dict) -> bool:
    """Rows agree in statistics: another processor rounds otherwise, and training amplifies it."""
    near = {"error": 3.0, "angle_0": 8.0, "angle_1": 8.0, "off": 0.1}
    return all(abs(float(stored[name]) - float(again[name])) <= near[name] for name in near)
