"""The burst-dependent rule at one synapse, and the pairing protocols that probe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numba import njit

from lib.spikes.codes import THRESHOLD, checked, split

PRE, EVENT, BURST, SPIKE = 0, 1, 2, 3  # the order within one instant
LOW_RATES = ("spikes", "events")
RNG = np.random.Generator | np.random.RandomState


@dataclass(frozen=True)
class BurstRule:
    """dw/dt = eta M { [(1 + H) B + (H - P) E] x + G E_pre }: see ``impose``.

    B, E: the cell's bursts and events (spikes in time); P = its running burst probability; x =
    trace of the other cell's events E_pre; H < 0 where events come faster than ``e_max``, G > 0
    where slower than ``e_min``. As it stands: no homeostasis, no bounds.
    Raises ValueError for a value out of range.
    Source: Payeur et al. 2021, eq 1 and Methods.
    """

    eta: float  # weight per event: learning rate
    tau_pre: float  # s: trace of presynaptic events
    tau_avg: float  # s: running averages of events and bursts
    threshold: float = THRESHOLD  # s: longest interval inside a burst
    w_min: float = -np.inf  # bounds of the weight; their simulator: 0
    w_max: float = np.inf  # their simulator: 1
    e_min: float = 0.0  # Hz: below it, potentiate at every presynaptic event
    e_max: float = np.inf  # Hz: above it, depress
    clip: bool = False  # hold P at 1 or below, as their simulator does
    low_rate: str = "spikes"  # what e_min is compared with: see `impose`
    tau_low: float = 30.0  # s: trace of all spikes for e_min; their simulator
    low_start: float = 0.1  # Hz: where that trace begins; their simulator

    def __post_init__(self) -> None:
        numbers = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("eta", "tau_pre", "tau_avg", "threshold", "tau_low"):
            if not 0 < numbers[name] < np.inf:
                raise ValueError(f"expected {name} above 0, found {numbers[name]}")
        if not self.w_min < self.w_max:
            raise ValueError(f"expected w_min below w_max, found {self.w_min} and {self.w_max}")
        if not (0 <= self.e_min < self.e_max and 0 <= self.low_start < np.inf):
            raise ValueError(
                f"expected 0 <= e_min < e_max and low_start from 0 Hz, found {self.e_min}, "
                f"{self.e_max} and {self.low_start}"
            )
        if self.low_rate not in LOW_RATES:
            raise ValueError(f"no low_rate {self.low_rate!r}; there are {', '.join(LOW_RATES)}")


# Fig 2b-d: Payeur et al. 2021, Methods and program
PROTOCOL = BurstRule(eta=0.1, tau_pre=0.05, tau_avg=15.0)
# Fig 2e-g: the same, their simulator
STEERING = BurstRule(
    eta=3.5e-3, tau_pre=0.1, tau_avg=5.0, w_min=0.0, w_max=1.0, e_min=2.0, e_max=12.0, clip=True
)


@dataclass(frozen=True)
class Averages:
    """The cell's running rates in Hz: of events, above 0, and of bursts."""

    events: float
    bursts: float

    def __post_init__(self) -> None:
        if not (0 < self.events < np.inf and 0 <= self.bursts < np.inf):
            raise ValueError(
                f"expected running rates above 0 Hz (events) and from 0 Hz (bursts), found "
                f"{self.events} and {self.bursts}: a burst probability needs events"
            )

    @property
    def probability(self) -> float:
        """The running burst probability P, the ratio of the averages."""
        return self.bursts / self.events


@dataclass(frozen=True)
class History:
    """What one synapse went through.

    At each presynaptic event and each event, burst or spike of the cell (n,): its time (s), what
    it was (PRE, EVENT, BURST, SPIKE), the weight after it, P just before it; and the running
    averages when all was over.
    """

    times: np.ndarray
    kinds: np.ndarray
    weights: np.ndarray
    probabilities: np.ndarray
    change: float
    averages: Averages


def impose(
    pre: np.ndarray,
    post: np.ndarray,
    rule: BurstRule,
    *,
    duration: float,
    averages: Averages,
    weight: float = 0.0,
    gate: Sequence[tuple[float, float]] | None = None,
    detector: str = "isi",
    step: float | None = None,
) -> History:
    """One synapse under imposed spikes: no membrane, no network.

    At a presynaptic event: w += eta max(0, e_min - R), then x += 1. At an event of the cell:
    w += eta (H - P) x. At a burst: w += eta (1 + H) x. Events and bursts then enter the averages.
    x decays with tau_pre, the averages with tau_avg; H = (e_max - rate)/rate above e_max, else 0.
    R: "spikes", a trace of *all* spikes with tau_low that begins at low_start, as their simulator
    runs; or "events", the running event rate, as printed.

    ``pre``, ``post``: spike times (s), ascending, before ``duration`` (s). ``averages``: at time
    0. ``gate``: M, the spans [on, off) in which w may change; always, if not given.
    ``detector``: see codes.labels. ``step``: None is exact; a number (s) rounds times down to
    steps and decays by (1 - step/tau) a step, as their protocol program does.
    Raises ValueError for bad times, a weight outside the bounds, or a step too long.
    Source: Payeur et al. 2021, eq 1, Methods, and their program.
    """
    a, b = checked(pre), checked(post)
    late = max((t[-1] for t in (a, b) if len(t)), default=0.0)
    if not late < duration < np.inf:
        raise ValueError(f"expected spikes before the end at {duration} s, found one at {late:g} s")
    if not rule.w_min <= weight <= rule.w_max:
        raise ValueError(f"expected a weight from {rule.w_min} to {rule.w_max}, found {weight}")
    if step is not None and not 0 < step < rule.tau_pre:
        raise ValueError(f"expected a step above 0 s and below tau_pre, found {step}")
    code = split(b, threshold=rule.threshold, detector=detector)
    sent = split(a, threshold=rule.threshold, detector=detector).events
    parts = [sent, code.events, code.bursts, b]
    if rule.e_min == 0 or rule.low_rate == "events":
        parts.pop()  # single spikes are then of no interest
    at = np.concatenate(parts)
    kinds = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    clock = at if step is None else np.floor(at / step)
    order = np.lexsort((kinds, clock))
    at, kinds, clock = at[order], kinds[order], clock[order]
    spans = np.array([(0.0, duration)] if gate is None else gate, dtype=np.float64).reshape(-1, 2)
    on = ((at[:, None] >= spans[:, 0]) & (at[:, None] < spans[:, 1])).any(axis=1)
    taus = np.array([rule.tau_pre, rule.tau_avg, rule.tau_low])
    end, per = duration, 1 / taus
    if step is not None:  # Euler's decay in step units: (1 - step/tau)^n = e^(-n/taus)
        per = 1 / (taus - step)  # a spike does not decay in its own step
        taus, end = -1 / np.log1p(-step / taus), float(np.floor(duration / step))
    weights, probabilities, events, bursts = _impose(
        clock, kinds, on, weight, averages.events, averages.bursts, rule.low_start, end, taus,
        rule.eta, per[1], per[2], rule.w_min, rule.w_max, rule.e_min,
        rule.e_max, rule.clip, rule.low_rate == "events",
    )  # fmt: skip
    change = float(weights[-1] - weight) if len(weights) else 0.0
    return History(at, kinds, weights, probabilities, change, Averages(events, bursts))


@njit(cache=True)
def _impose(
    clock, kinds, on, w, e, b, low, end, taus, eta, per_avg, per_low,
    w_min, w_max, e_min, e_max, clip, by_events,
):  # fmt: skip
    weights, probabilities = np.empty(len(clock)), np.empty(len(clock))
    x, last = 0.0, 0.0
    for k in range(len(clock)):
        gap, last = clock[k] - last, clock[k]
        x *= np.exp(-gap / taus[0])
        e *= np.exp(-gap / taus[1])
        b *= np.exp(-gap / taus[1])
        low *= np.exp(-gap / taus[2])
        p = min(1.0, b / e) if clip else b / e
        h = (e_max - e) / e if e > e_max else 0.0
        dw = 0.0
        if kinds[k] == PRE:
            dw = eta * max(0.0, e_min - (e if by_events else low))
            x += 1.0
        elif kinds[k] == EVENT:
            dw = eta * (h - p) * x
            e += per_avg
        elif kinds[k] == BURST:
            dw = eta * (1.0 + h) * x
            b += per_avg
        else:
            low += per_low
        if on[k] and dw != 0.0:
            w = min(w_max, max(w_min, w + dw))
        weights[k], probabilities[k] = w, p
    decay = np.exp(-(end - last) / taus[1])
    return weights, probabilities, e * decay, b * decay


# --- the protocols of Fig 2b-d


def periodic(
    frequency: float,
    rule: BurstRule = PROTOCOL,
    *,
    averages: Averages = Averages(5.0, 0.75),
    pairings: int = 5,
    epochs: int = 15,
    pause: float = 10.0,
    step: float | None = None,
) -> float:
    """The weight change by pairing at ``frequency`` (Hz), Fig 2b.

    ``epochs`` times: ``pairings`` spikes of both cells together, 1/frequency apart, then 1 s
    more and a ``pause`` (s) in which only the averages decay. ``averages``: at the beginning, and
    carried over. ``step``: as in ``impose``; their program has 1e-4 s.
    Raises ValueError for numbers that are not positive.
    """
    if not (0 < frequency < np.inf and pairings > 0 and epochs > 0 and pause >= 0):
        raise ValueError(
            f"expected a frequency, pairings and epochs above 0 and a pause from 0 s, found "
            f"{frequency} Hz, {pairings}, {epochs} and {pause} s"
        )
    times = 0.01 + np.arange(pairings) / frequency
    total, fade = 0.0, np.exp(-pause / rule.tau_avg)
    for _ in range(epochs):
        end = pairings / frequency + 1
        found = impose(times, times, rule, duration=end, averages=averages, step=step)
        total += found.change
        averages = Averages(found.averages.events * fade, found.averages.bursts * fade)
    return total


def poisson(
    rate: float, duration: float, *, rng: RNG, dead_time: float = 2e-3, trains: int = 2
) -> list[np.ndarray]:
    """Independent Poisson spike trains of ``rate`` Hz with a dead time after each spike, Fig 2c.

    Intervals are dead_time + Exp with hazard h = r/(1 - r dead_time). ``duration``: s. ``rng``:
    a Generator; or RandomState(3), for the trains of their figure, which is why ten times too
    many intervals are drawn at once. Raises ValueError for a rate of 0 or of 1/dead_time.
    """
    _spans(duration)
    if not (rate > 0 and dead_time >= 0 and rate * dead_time < 1):
        raise ValueError(
            f"expected a rate above 0 and below 1/dead time, found {rate} Hz and {dead_time} s"
        )
    found = []
    mean, n = 1 / (rate / (1 - dead_time * rate)), max(10, int(10 * rate * duration))
    for _ in range(trains):
        t = np.cumsum(dead_time + rng.exponential(mean, n))
        while t[-1] <= duration:
            more = np.cumsum(dead_time + rng.exponential(mean, n))
            t = np.concatenate([t, t[-1] + more])
        found.append(t[t < duration])
    return found


def burst_poisson(
    event_rate: float,
    probabilities: Sequence[float],
    duration: float,
    *,
    rng: RNG,
    refractory: float = 0.02,
    shortest: float = 2e-3,
    spread: float = 10e-3,
) -> list[np.ndarray]:
    """One train of events and bursts for each of ``probabilities``, drawn in order, Fig 2d.

    An event comes refractory + Exp (s) after the last spike, the Exp such that events alone come
    at ``event_rate`` (Hz); with that probability it is followed by a second spike, shortest +
    U(0, spread) (s) later. ``duration``: s. ``rng``: a Generator, or RandomState(2) for the
    trains of their figure. Raises ValueError for numbers out of range.
    """
    _spans(duration)
    p = np.atleast_1d(np.asarray(probabilities, dtype=np.float64))
    if not (event_rate > 0 and refractory >= 0 and event_rate * refractory < 1):
        raise ValueError(
            f"expected an event rate above 0 and below 1/refractory period, found {event_rate} "
            f"Hz and {refractory} s"
        )
    if not ((p >= 0) & (p <= 1)).all() or shortest <= 0 or spread < 0:
        raise ValueError(
            "expected probabilities from 0 to 1, a shortest interval above 0 s and a spread from "
            f"0 s, found {probabilities}, {shortest} and {spread}"
        )
    mean = (1 - refractory * event_rate) / event_rate
    u = rng.random(int(len(p) * (2.5 * event_rate * duration + 50)))
    while True:
        times, ends = _burst_poisson(u, p, duration, mean, refractory, shortest, spread)
        if len(ends) == len(p):
            return np.split(times, ends[:-1])
        u = np.concatenate([u, rng.random(len(u))])


@njit(cache=True)
def _burst_poisson(u, p, duration, mean, refractory, shortest, spread):
    """Trains from a stream of uniform numbers; fewer than len(p) ends where it ran dry."""
    times, ends = np.empty(len(u)), np.empty(len(p), dtype=np.int64)
    n = used = done = 0
    for k in range(len(p)):
        t = 0.0
        while used + 3 <= len(u):
            t += refractory - np.log(1.0 - u[used]) * mean
            used += 1
            if t > duration:
                break
            times[n] = t
            n += 1
            used += 1
            if u[used - 1] < p[k]:
                t += shortest + spread * u[used]
                used += 1
                if t > duration:
                    break
                times[n] = t
                n += 1
        else:
            break
        ends[k] = n
        done += 1
    return times[:n], ends[:done]


def _spans(duration: float) -> None:
    if not 0 < duration < np.inf:
        raise ValueError(f"expected a duration above 0 s, found {duration}")


def expected_change(
    rule: BurstRule,
    *,
    pre_events: float,
    events: float,
    probability: float,
    averages: Averages,
    duration: float,
) -> float:
    """The mean weight change between two cells that fire independently, at constant rates.

    eta tau_pre E_pre . tau_avg e0 E (P - P0) . ln(e0/E_T)/(e0 - E), with e0, P0 the ``averages``
    at the start and E_T = E + (e0 - E) e^(-T/tau_avg) the running event rate at the end T. So
    the sign is that of P - P0, whatever the rates. No homeostasis, no bounds; the averages follow
    their means (they fluctuate: good to a few percent of the largest change).
    ``pre_events``, ``events``: Hz. ``probability``: P, 0 to 1. ``duration``: T, s.
    Raises ValueError for rates that are not positive.
    """
    _spans(duration)
    if not (pre_events >= 0 and events > 0 and 0 <= probability <= 1):
        raise ValueError(
            f"expected rates above 0 Hz and a probability from 0 to 1, found {pre_events}, "
            f"{events} and {probability}"
        )
    e0, left = averages.events, np.exp(-duration / rule.tau_avg)
    off = e0 / events - 1
    forgotten = np.log1p(off * (1 - left) / (1 + off * left)) / off if off else 1 - left
    surprise = rule.tau_avg * e0 * (probability - averages.probability) * forgotten
    return float(rule.eta * rule.tau_pre * pre_events * surprise)
