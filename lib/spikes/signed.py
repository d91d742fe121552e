"""Signed bursts: a small spiking classifier whose events carry features and whose bursts, errors.

One hidden layer of leaky integrate-and-fire cells, each with a dendrite that leaks too. Weights
(hidden, inputs) and (classes, hidden) have no unit; input rates (images, inputs) are in Hz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

CODES = ("signed", "unsigned")
Rng, Array, Weights = np.random.Generator, np.ndarray, list[np.ndarray]


@dataclass(frozen=True)
class Cells:
    """What somata, dendrites and traces are made of: s and Hz; potentials have no unit.

    Steps of dt. Soma: V <- (1 - dt/tau_soma) V + W s; above 1 an event, and V <- 0; events also
    come by themselves, ``spontaneous`` a second. Dendrite: the same without a threshold, fed with
    the messages of the step before. With a teacher an event sends a message m: "signed", a burst
    of sign(V_d) with probability tanh|V_d|, then V_d <- 0 if ``resets``; "unsigned", a burst with
    probability sigma(2 V_d), read as m = 2 (burst - 1/2). Both have the mean tanh V_d. At the
    output V_d = (target - rate) / scale; target high or low, rate a mean over tau_rate.
    Raises ValueError for another code or a value that is not above 0.
    Source: Stuck, Wang & Naud 2025, as others describe it: codes, time constants, targets, times.
    Departs: the unsigned message is centred and doubled, so that the codes differ in noise only;
    positive messages strengthen; spontaneous events in place of their rate regularisation;
    tau_rate and scale are ours.
    """

    code: str = "signed"
    resets: bool = True
    dt: float = 1e-3
    duration: float = 0.1  # of an image
    tau_soma: float = 0.01
    tau_dendrite: float = 0.01
    tau_trace: float = 0.01  # of the eligibility, a trace of presynaptic events
    tau_rate: float = 0.02
    low: float = 20.0
    high: float = 200.0
    scale: float = 100.0
    spontaneous: float = 10.0
    limit: float = 100.0  # of a hidden cell's rate
    restraint: float = 0.1  # at twice the limit, in messages

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"unknown code {self.code!r}; expected one of {', '.join(CODES)}")
        numbers = {k: v for k, v in vars(self).items() if k not in ("code", "resets")}
        bad = {k: v for k, v in numbers.items() if not 0 < v < np.inf}
        if bad:
            raise ValueError(f"expected seconds and Hz above 0, found {bad}")

    def constants(self) -> np.ndarray:
        """What the kernel needs, in its order."""
        taus = np.array([self.tau_soma, self.tau_dendrite, self.tau_trace, self.tau_rate])
        rest = [self.low, self.high, self.scale, self.spontaneous, self.limit, self.restraint]
        return np.array([self.dt, *(self.dt / taus), *rest, round(self.duration / self.dt)])


class Shown(NamedTuple):
    """What a net did, per image: ``answer`` (n, classes): output events, and below 1 the potential
    left over, which breaks ties; ``events`` and ``bursts`` (n,) of its hidden cells."""

    answer: np.ndarray
    events: np.ndarray
    bursts: np.ndarray


@njit(cache=True)
def message(v: float, signed: bool, chance: float) -> float:
    """m in -1, 0, 1: what an event sends at dendritic potential v, for a draw from U(0, 1)."""
    if signed:
        return np.sign(v) if chance < np.tanh(abs(v)) else 0.0
    return 1.0 if chance < 1 / (1 + np.exp(-2 * v)) else -1.0


@njit(cache=True)
def wait(p: float, rng: Rng) -> float:
    """Steps until the next of independent events that come with probability p in a step."""
    return 1 + np.floor(np.log(1 - rng.random()) / np.log1p(-p))


@njit(cache=True)
def _image(n, rates, label, w, u, y, k, code, rate, rng, answer, tally):
    """Image n; without a label (below 0) there is no teacher, no message and no learning."""
    dt, leak_s, leak_d, leak_t, leak_r, low, high, scale, own, limit, restraint, steps = k
    signed, resets = code
    v, d, trace, m = np.zeros((4, w.shape[0]))
    v_out, mean, m_out = np.zeros((3, u.shape[0]))
    trace_in, seen = np.zeros(w.shape[1]), 0.0
    chance = np.concatenate((rates[n] * dt, np.full(len(v) + len(v_out), own * dt)))
    due, n_in, n_hid, n_out = np.zeros(len(chance)) - 1, len(trace_in), len(v), len(v_out)
    for i in range(len(due)):
        due[i] += wait(chance[i], rng)
    for step in range(int(steps)):
        trace_in *= 1 - leak_t
        trace *= 1 - leak_t
        v *= 1 - leak_s
        v_out *= 1 - leak_s
        d *= 1 - leak_d
        for i in range(n_in):
            if due[i] == step:
                due[i] += wait(chance[i], rng)
                trace_in[i] += 1
                for j in range(n_hid):
                    v[j] += w[j, i]
        for o in range(n_out):  # the messages of the step before
            if m_out[o] != 0:
                d += y[o] * m_out[o]
                m_out[o] = 0
        for j in range(n_hid):
            alone = due[n_in + j] == step
            if alone:
                due[n_in + j] += wait(own * dt, rng)
            if alone or v[j] > 1:
                v[j] = 0
                trace[j] += 1
                for o in range(n_out):
                    v_out[o] += u[o, j]
                tally[n, 0] += 1
                if label[n] >= 0:
                    m[j] = message(d[j], signed, rng.random())
                    tally[n, 1] += m[j] > 0 or (signed and m[j] < 0)
                    d[j] *= not (resets and signed and m[j] != 0)
                    excess = max(0.0, (trace[j] - 1) * leak_t / dt / limit - 1)
                    for i in range(n_in):
                        w[j, i] += rate[0] * (m[j] - restraint * excess) * trace_in[i]
        seen += leak_r * (1 - seen)  # the share of the mean's window that lies in this image
        for o in range(n_out):
            mean[o] *= 1 - leak_r
            alone = due[n_in + n_hid + o] == step
            if alone:
                due[n_in + n_hid + o] += wait(own * dt, rng)
            if alone or v_out[o] > 1:
                v_out[o] = 0
                answer[n, o] += 1
                if label[n] >= 0:
                    miss = (high if o == label[n] else low) - mean[o] / seen
                    m_out[o] = message(miss / scale, signed, rng.random())
                    u[o] += rate[1] * m_out[o] * trace
                mean[o] += leak_r / dt  # after the message: an event does not judge itself
    answer[n] += np.minimum(np.maximum(v_out, 0), 0.999)


def start(inputs: int, hidden: int, classes: int, *, rng: Rng) -> Weights:
    """Two weight matrices, N(0, gain^2 / fan-in) with gains 1 and 1.6."""
    shapes = ((hidden, inputs, 1.0), (classes, hidden, 1.6))
    return [rng.normal(0, gain / np.sqrt(n), (m, n)) for m, n, gain in shapes]


def learn(
    weights: Weights, feedback: Array, rates: Array, labels: Array, cells: Cells,
    *, rate: tuple[float, float], rng: Rng,
) -> Shown:  # fmt: skip
    """Show images in turn; both ``weights`` change in place at every message m.

    dw_ji = rate m_j trace_i; ``rate``: of the hidden and the output weights. Output messages
    reach hidden dendrites through ``feedback`` (classes, hidden): the output weights themselves,
    fixed random numbers, or zeros. ``labels`` (n,), below 0: no teacher.
    Raises ValueError for shapes that do not fit or rates not between 0 and 1/dt.
    """
    w, u = weights
    found = (u.shape[1], feedback.shape, rates.ndim, rates.shape[-1], len(labels))
    if found != (len(w), u.shape, 2, w.shape[1], len(rates)):
        raise ValueError(
            f"shapes do not fit: weights {w.shape} and {u.shape}, feedback {feedback.shape}, "
            f"rates {rates.shape}, labels {np.shape(labels)}"
        )
    if not (0 < rates.min() and rates.max() * cells.dt < 1 and max(labels) < len(u)):
        raise ValueError(
            f"expected rates above 0, below {1 / cells.dt:g} Hz; labels below {len(u)}"
        )
    answer, tally = np.zeros((len(rates), len(u))), np.zeros((len(rates), 2))
    k, code = cells.constants(), (cells.code == "signed", cells.resets)
    for n in range(len(rates)):
        _image(n, rates, labels, w, u, feedback, k, code, rate, rng, answer, tally)
    return Shown(answer, *tally.T)


def classify(weights: Weights, rates: Array, cells: Cells, *, rng: Rng) -> Shown:
    """Show images without a teacher: the class is ``answer.argmax(1)``. Raises as ``learn``."""
    nobody = np.full(len(rates), -1)
    return learn(weights, weights[1], rates, nobody, cells, rate=(0.0, 0.0), rng=rng)
