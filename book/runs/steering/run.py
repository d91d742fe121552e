"""Dendritic input steers plasticity, Fig 2e-g: the stored run of bursts/rule.

    python -m lib.runs run book/runs/steering.toml

A job is one variant and one seed: 170 s of the network lib.spikes.networks.steering. A row is a bin
of 2.5 s: its end ``t`` (s), event rate (Hz) and burst probability of both populations in it, and
the mean plastic weight at its end (its change in percent of the initial 0.08).
"""

from __future__ import annotations

from lib.spikes import networks

VARIANTS = {
    "program": {},
    "text": {"low_rate": "events"},
    "dendrite": {"driving_force": "dendrite"},
}
SEEDS = {"program": range(1, 21), "text": range(1, 6), "dendrite": range(1, 6)}
MANY, KEY = True, 2
COLUMNS = ["variant", "seed", "t", "er_pre", "bp_pre", "er_post", "bp_post", "weight"]


def job(variant: str, seed: int, segments: int = 7) -> list[dict]:
    """The rows of one network, for as many segments of the protocol (7: all of it)."""
    circuit, rows = networks.steering(seed, **VARIANTS[variant]), []
    for _, found in zip(range(segments), networks.run_steering(circuit), strict=False):
        for k, t in enumerate(found.t):
            row = {"t": f"{t:.1f}"}
            for name in ("pre", "post"):
                row[f"er_{name}"] = f"{found.event_rate(name)[k]:.4g}"
                row[f"bp_{name}"] = f"{found.burst_probability(name)[k]:.4g}"
            row["weight"] = f"{100 * (found.weights['pre>post'][k] / 0.08 - 1):.4f}"
            rows.append(row)
    return rows


def plan(get) -> None:
    for variant, seeds in SEEDS.items():
        for seed in seeds:
            get(variant, seed)


def same(stored: list[dict], again: list[dict]) -> bool:
    """Rows agree in statistics: another processor rounds otherwise, and then spikes differ."""
    near = {"er_pre": 0.5, "er_post": 1.0, "bp_pre": 0.05, "bp_post": 0.08, "weight": 2.0}
    return len(stored) == len(again) and all(
        abs(float(a[name]) - float(b[name])) <= near[name]
        for a, b in zip(stored, again, strict=True)
        for name in near
    )
