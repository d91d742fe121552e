"""Events, bursts and burst probability, read from spike times. Times in seconds, rates in Hz."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

EVENT, BURST, LATER = 0, 1, 2  # what a spike is: see `labels`
THRESHOLD = 16e-3  # s, the interval that still counts as a burst. Payeur et al. 2021, Methods
DETECTORS = ("isi", "trace")


@dataclass(frozen=True)
class Code:
    """The two messages in a spike train: times of its events and of its bursts (s, ascending)."""

    events: np.ndarray
    bursts: np.ndarray

    @property
    def burst_probability(self) -> float:
        """Bursts per event, from 0 to 1; nan where there is no event."""
        return len(self.bursts) / len(self.events) if len(self.events) else float("nan")


def checked(times: np.ndarray, neurons: np.ndarray | None = None) -> np.ndarray:
    """The spike times as a float array; ValueError unless finite, not negative and ascending.

    With ``neurons`` (the neuron of each spike) only each neuron's own order counts, and is not
    checked here.
    """
    t = np.asarray(times, dtype=np.float64)
    if t.ndim != 1:
        raise ValueError(f"expected a list of spike times (n,), found the shape {t.shape}")
    if not np.isfinite(t).all() or (t < 0).any():
        raise ValueError("expected finite spike times of 0 s or later; leave the others out")
    if neurons is None and (np.diff(t) < 0).any():
        first = int(np.argmax(np.diff(t) < 0))
        raise ValueError(
            f"expected ascending spike times, found {t[first]:g} s before {t[first + 1]:g} s: "
            "sort them, or name each spike's neuron"
        )
    return t


def labels(
    times: np.ndarray,
    *,
    neurons: np.ndarray | None = None,
    threshold: float = THRESHOLD,
    detector: str = "isi",
) -> np.ndarray:
    """What each spike is (n,): EVENT (0), BURST (1) or LATER (2, neither).

    A burst is two or more spikes whose intervals are at most ``threshold`` (s); its first spike
    is an event, its second stamps the burst, the others say nothing more. A lone spike is an
    event. ``detector``: "isi" compares each interval with the threshold. "trace" is what the
    published simulator does: a trace z, up by 1 at a spike and decaying with tau = threshold;
    a spike is an event where z was below 1/e. z adds up, so after a burst with interval d the
    next event must be tau (1 + ln(1 + e^(-d/tau))) later, 21 to 25 ms instead of 16.
    ``neurons``: the neuron of each spike (n,), for the spikes of many in one list.
    Raises ValueError for times out of order, another detector, a threshold that is not positive.
    Source: Payeur et al. 2021, Methods; the trace as in their simulator.
    """
    t = checked(times, neurons)
    if not 0 < threshold < np.inf:
        raise ValueError(f"expected a threshold above 0 s, found {threshold}")
    if detector not in DETECTORS:
        raise ValueError(f"no detector {detector!r}; there are {', '.join(DETECTORS)}")
    own = np.zeros(len(t), dtype=np.int64) if neurons is None else np.asarray(neurons)
    if own.shape != t.shape:
        raise ValueError(f"expected a neuron for each of {len(t)} spikes, found {own.shape}")
    order = np.lexsort((t, own))
    isi = np.diff(t[order], prepend=-np.inf)
    isi[np.diff(own[order], prepend=-1) != 0] = np.inf
    found = np.empty(len(t), dtype=np.int8)
    found[order] = _by_interval(isi, threshold) if detector == "isi" else _by_trace(isi, threshold)
    return found


def _by_interval(isi: np.ndarray, threshold: float) -> np.ndarray:
    event = isi > threshold
    second = ~event
    second[1:] &= event[:-1]
    return np.where(event, EVENT, np.where(second, BURST, LATER)).astype(np.int8)


@njit(cache=True)
def _by_trace(isi, tau):
    out = np.empty(len(isi), dtype=np.int8)
    z, burst = 0.0, False
    for k in range(len(isi)):
        z *= np.exp(-isi[k] / tau)
        if z < np.exp(-1.0):
            out[k], burst = 0, False
        else:
            out[k], burst = (2 if burst else 1), True
        z += 1.0
    return out


def split(
    times: np.ndarray,
    *,
    neurons: np.ndarray | None = None,
    threshold: float = THRESHOLD,
    detector: str = "isi",
) -> Code:
    """The events and bursts of a spike train, or of many neurons together: see ``labels``."""
    found = labels(times, neurons=neurons, threshold=threshold, detector=detector)
    t = np.asarray(times, dtype=np.float64)
    return Code(np.sort(t[found == EVENT]), np.sort(t[found == BURST]))


def binned(times: np.ndarray, duration: float, width: float, *, neurons: int = 1) -> np.ndarray:
    """The rate in each bin, Hz (duration/width,): count / (neurons . width). Bins are [a, b).

    ``times``: of spikes, events or bursts, in any order. ``duration`` and ``width`` in seconds,
    the first a whole number of the second. Raises ValueError for other sizes.
    """
    n = round(duration / width) if width > 0 else 0
    if n < 1 or not np.isclose(n * width, duration) or neurons < 1:
        raise ValueError(
            f"expected a duration of whole bins and at least one neuron, found {duration:g} s, "
            f"bins of {width:g} s, {neurons} neurons"
        )
    counts, _ = np.histogram(times, bins=n, range=(0, n * width))
    return counts / (neurons * width)


def moving_average(
    times: np.ndarray, at: np.ndarray, tau: float, *, start: float = 0.0
) -> np.ndarray:
    """A running rate in Hz, at the times ``at``: start e^(-t/tau) + sum of e^(-(t - s)/tau) / tau.

    The sum is over ``times`` s before t (a spike at t itself is not in it yet): the average with
    which a synapse follows its neuron's event rate and burst rate.
    ``tau``: s. ``start``: its value at time 0. Raises ValueError for bad times or tau.
    """
    if not 0 < tau < np.inf:
        raise ValueError(f"expected a time constant above 0 s, found {tau}")
    s, t = checked(times), np.asarray(at, dtype=np.float64)
    held = np.zeros(len(s) + 1)  # the sum just after spike k - 1
    for k, gap in enumerate(np.diff(s, prepend=0.0)):
        held[k + 1] = held[k] * np.exp(-gap / tau) + 1 / tau
    before = np.searchsorted(s, t, side="left")
    since = t - np.concatenate([[0.0], s])[before]
    return start * np.exp(-t / tau) + held[before] * np.exp(-since / tau)


def poisson_event_rate(
    rate: float, *, threshold: float = THRESHOLD, dead_time: float = 0.0
) -> float:
    """Events of a Poisson neuron that fires ``rate`` spikes a second: r e^(-h (b - d)), in Hz.

    h = r/(1 - r d) is the chance of a spike per second outside the dead time d (s); b is the
    threshold. Arrays are fine. Raises ValueError where r d reaches 1.
    """
    return rate * (1 - poisson_burst_probability(rate, threshold=threshold, dead_time=dead_time))


def poisson_burst_probability(
    rate: float, *, threshold: float = THRESHOLD, dead_time: float = 0.0
) -> float:
    """Bursts per event of a Poisson neuron, 0 to 1: 1 - e^(-h (b - d)). See above.

    An event is followed within b by another spike, and only then is it a burst.
    """
    r = np.asarray(rate, dtype=np.float64)
    if (r < 0).any() or (r * dead_time >= 1).any() or not 0 <= dead_time <= threshold:
        raise ValueError(
            f"expected rates of 0 Hz or more, below 1/dead time, and a dead time from 0 to "
            f"{threshold:g} s, found {rate} Hz and {dead_time:g} s"
        )
    return 1 - np.exp(-r / (1 - r * dead_time) * (threshold - dead_time))
