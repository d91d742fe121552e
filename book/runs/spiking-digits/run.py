"""Spiking digits with signed and unsigned bursts: the stored run of synthesis/frontier.

    python -m lib.runs run book/runs/spiking-digits.toml

A job is a part ("tune" or "test"), an arm, a rate and a seed: one net, trained for 8 epochs. Its
row: the error in percent on what it did not learn, and hidden events and bursts an image while it
learned, in the first epoch and in the last.
"""

from __future__ import annotations

import numpy as np

from lib.spikes import signed

ARMS = {
    "signed, transposed": ("signed", "transposed"),
    "signed, fixed": ("signed", "fixed"),
    "unsigned, transposed": ("unsigned", "transposed"),
    "unsigned, fixed": ("unsigned", "fixed"),
    "output only": ("signed", "none"),
}
GRID, EPOCHS, HIDDEN, TESTS = (5e-4, 1.2e-3, 3e-3, 7e-3), 8, 100, 500
TUNE, TEST = (100, 101), range(5)
KEY = 4
COLUMNS = (
    "part arm rate seed error first_events first_bursts last_events last_bursts seconds"
).split()


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Rates from 20 to 200 Hz and classes; the last 500 are the test set of lib.data.digits."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return 20 + 180 * x[order] / 16, y[order]


def job(part: str, arm: str, rate: float, seed: int) -> dict:
    """One net; the rate falls linearly, to 0 after the last epoch."""
    (x, y), n = digits(), len(digits()[0]) - TESTS
    if part == "tune":
        x, y, n = x[:n], y[:n], n - n // 5
    code, way = ARMS[arm]
    rng = np.random.default_rng(seed)
    weights = signed.start(64, HIDDEN, 10, rng=rng)
    back = signed.start(64, HIDDEN, 10, rng=rng)[1]
    back = {"transposed": weights[1], "fixed": back, "none": 0 * back}[way]
    cells, done = signed.Cells(code=code), []
    for epoch in range(EPOCHS):
        now, order = rate * (1 - epoch / EPOCHS), rng.permutation(n)
        here = 0.0 if way == "none" else now  # hidden weights stay as drawn
        shown = signed.learn(weights, back, x[order], y[order], cells, rate=(here, now), rng=rng)
        done.append(shown)
    said = signed.classify(weights, x[n:], cells, rng=rng).answer.argmax(1)
    row = {"error": f"{100 * np.mean(said != y[n:]):.2f}"}
    for name, shown in (("first", done[0]), ("last", done[-1])):
        row[f"{name}_events"] = f"{shown.events.mean():.1f}"
        row[f"{name}_bursts"] = f"{shown.bursts.mean():.1f}"
    return row


def plan(get) -> None:
    for arm in ARMS:
        tuned = {r: sum(float(get("tune", arm, r, s)["error"]) for s in TUNE) for r in GRID}
        for seed in TEST:
            get("test", arm, min(tuned, key=tuned.get), seed)


def same(stored: dict, again: dict) -> bool:
    """Rows agree in statistics: another processor rounds otherwise, and then spikes differ."""
    near = {"error": 12.0, "first_events": 100.0, "last_events": 400.0}
    return all(abs(float(stored[name]) - float(again[name])) <= near[name] for name in near)
