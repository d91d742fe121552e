"""A simulated robot arm of seven joints: which torques does a motion need?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

ARM = {
    key: np.array(value)
    for key, value in json.loads(Path(__file__).with_name("arm.json").read_text()).items()
}
GRAVITY = 9.81  # m/s^2, along -z of the base
VISCOUS = np.array([0.9, 0.9, 0.7, 0.5, 0.1, 0.1, 0.03])  # N m s
COULOMB = np.array([1.5, 1.5, 1.0, 0.8, 0.15, 0.15, 0.05])  # N m
JOINTS = 7


def _rotations(q: np.ndarray) -> np.ndarray:
    """Link frame to the frame below, per joint: standard Denavit-Hartenberg, (7, n, 3, 3)."""
    c, s = np.cos(q.T), np.sin(q.T)
    ca, sa = (f(ARM["dh"][:, 0])[:, None] for f in (np.cos, np.sin))
    zero, one = np.zeros_like(c), np.ones_like(c)
    rows = [[c, -s * ca, s * sa], [s, c * ca, -c * sa], [zero, sa * one, ca * one]]
    return np.array(rows).transpose(2, 3, 0, 1)


def torques(q: np.ndarray, qd: np.ndarray, qdd: np.ndarray) -> np.ndarray:
    """Rigid-body torques (n, 7) in N m for angles, velocities, accelerations (n, 7), in rad, s.

    Recursive Newton-Euler: outward each link's rotation and acceleration, inward the force f and
    moment m it needs; the torque is the moment about the joint's axis. The arm's numbers are our
    own round ones (lib/arm.json: lengths m, masses kg, centres m, inertias kg m^2), with a 1 kg
    tool on the last link. Raises ValueError for another shape.
    Source: Luh, Walker & Paul 1980, J. Dyn. Sys. Meas. Control 102:69.
    """
    q, qd, qdd = (np.asarray(a, dtype=np.float64) for a in (q, qd, qdd))
    if q.ndim != 2 or not q.shape == qd.shape == qdd.shape == (len(q), JOINTS):
        raise ValueError(
            f"expected angles, velocities and accelerations of shape (n, {JOINTS}), "
            f"found {q.shape}, {qd.shape}, {qdd.shape}"
        )
    rotations, z, cross = _rotations(q), np.array([0.0, 0.0, 1.0]), np.cross
    alpha, a, d = ARM["dh"].T
    ends = np.stack([a, d * np.sin(alpha), d * np.cos(alpha)], axis=1)  # of a link, in its frame
    spin = turn = np.zeros((len(q), 3))  # angular velocity, acceleration
    rise = np.tile(GRAVITY * z, (len(q), 1))  # acceleration; gravity as a base that rises
    forces, moments = [], []
    for i, r in enumerate(rotations):
        down = r.transpose(0, 2, 1)  # from the frame below to this one
        turn = turn + z * qdd[:, i, None] + cross(spin, z * qd[:, i, None])
        spin = spin + z * qd[:, i, None]
        spin, turn, rise = ((down @ v[..., None])[..., 0] for v in (spin, turn, rise))
        rise = rise + cross(turn, ends[i]) + cross(spin, cross(spin, ends[i]))
        com, inertia = ARM["com"][i], ARM["inertia"][i]
        force = ARM["mass"][i] * (rise + cross(turn, com) + cross(spin, cross(spin, com)))
        forces.append(force)
        moments.append(turn @ inertia + cross(spin, spin @ inertia) + cross(ends[i] + com, force))
    f = m = np.zeros((len(q), 3))
    out = np.empty_like(q)
    for i in reversed(range(JOINTS)):
        m = m + cross(ends[i], f) + moments[i]
        f = f + forces[i]
        f, m = ((rotations[i] @ v[..., None])[..., 0] for v in (f, m))  # to the frame below
        out[:, i] = m[:, 2]
    return out


def friction(qd: np.ndarray) -> np.ndarray:
    """Friction torques (n, 7) in N m: viscous v qd + Coulomb c tanh(qd / 0.05), qd in rad/s."""
    return VISCOUS * qd + COULOMB * np.tanh(qd / 0.05)


def motions(n: int, *, rows: int, rng: np.random.Generator) -> np.ndarray:
    """n random motions of 3 s, seen at ``rows`` even times: (n, rows, 21).

    Per joint a posture plus four sines of 0.1 to 1 Hz, which together stay in the middle 40 % of
    the joint's range (in all of it, 6,000 rows do not teach an arm). Columns: seven angles in rad,
    seven velocities in rad/s, seven accelerations in rad/s^2, all exact.
    """
    t = 3.0 * np.arange(rows)[:, None] / rows
    half, middle = (ARM["q_max"] - ARM["q_min"]) / 2, (ARM["q_max"] + ARM["q_min"]) / 2
    posture = middle + half * rng.uniform(-0.15, 0.15, (n, 1, JOINTS))
    reach = half * rng.uniform(0.1, 0.25, (n, JOINTS))
    size = reach[:, None] * rng.dirichlet(np.ones(4), (n, JOINTS)).transpose(0, 2, 1)
    omega = 2 * np.pi * rng.uniform(0.1, 1.0, (n, 4, JOINTS))
    phase = rng.uniform(0, 2 * np.pi, (n, 4, JOINTS))
    at = omega[:, None] * t[None, :, None] + phase[:, None]
    size, omega = size[:, None], omega[:, None]
    q = posture + (size * np.sin(at)).sum(2)
    qd = (size * omega * np.cos(at)).sum(2)
    qdd = -(size * omega**2 * np.sin(at)).sum(2)
    return np.concatenate([q, qd, qdd], axis=2)
