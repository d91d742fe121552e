"""Short-term plasticity: a synapse whose next spike counts more, or less, than its last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib.spikes.codes import checked


@dataclass(frozen=True)
class ShortTerm:
    """The extended Tsodyks-Markram synapse.

    Resources x and release u. At a spike w u x arrives, with the values before it; then
    x loses u x and u gains J (1 - u). Between spikes x returns to 1 with tau_d, u to U with tau_f.

    ``jump``: "U" makes J = U, the plain Tsodyks-Markram synapse, which is what the published
    simulator runs (its own update with J = f is never called); "f" makes J = f, as printed.
    Raises ValueError for a value out of range.
    Source: Payeur et al. 2021, Methods, and their program; Departs: times are exact, not steps.
    """

    tau_d: float  # s, recovery of resources: Payeur et al. 2021, Methods
    tau_f: float  # s, recovery of release: the same
    release: float  # U, no unit, 0 to 1: release at rest
    facilitation: float = 0.1  # f, no unit, 0 to 1: printed; used with jump = "f" only
    jump: str = "U"  # as their program runs

    def __post_init__(self) -> None:
        if not (0 < self.tau_d < np.inf and 0 < self.tau_f < np.inf):
            raise ValueError(
                f"expected time constants above 0 s, found tau_d = {self.tau_d}, "
                f"tau_f = {self.tau_f}"
            )
        if not (0 < self.release <= 1 and 0 <= self.facilitation <= 1):
            raise ValueError(
                f"expected U above 0 and f from 0, both up to 1, found U = {self.release}, "
                f"f = {self.facilitation}"
            )
        if self.jump not in ("U", "f"):
            raise ValueError(f"expected the jump 'U' or 'f', found {self.jump!r}")

    @property
    def gain(self) -> float:
        """J, the share of what is left that u gains at a spike."""
        return self.release if self.jump == "U" else self.facilitation


FACILITATING = ShortTerm(tau_d=0.1, tau_f=0.1, release=0.02)  # Payeur et al. 2021, Methods
DEPRESSING = ShortTerm(tau_d=0.02, tau_f=1.0, release=0.9)  # the same


def transmit(times: np.ndarray, synapse: ShortTerm, *, start: float | None = None) -> np.ndarray:
    """What each spike delivers (n,), 0 to 1, for weight 1: u x just before the spike.

    ``times``: s, ascending. ``start``: u at time 0; at rest (U) if not given. (The published
    simulator starts every synapse at 0.01.) x starts at 1. Raises ValueError for bad times.
    """
    t = checked(times)
    gaps = np.diff(t, prepend=0.0)
    rests = (np.exp(-gaps / tau).tolist() for tau in (synapse.tau_f, synapse.tau_d))
    u, x = synapse.release if start is None else start, 1.0
    out = np.empty(len(t))
    for k, (stays, tired) in enumerate(zip(*rests, strict=True)):
        u = synapse.release + (u - synapse.release) * stays
        x = 1 - (1 - x) * tired
        out[k] = u * x
        x -= u * x
        u += synapse.gain * (1 - u)
    return out


def pair(synapse: ShortTerm, interval: float) -> tuple[float, float]:
    """What the two spikes of a burst deliver to a synapse at rest: first, second.

    The first is U, what a lone event delivers. ``interval``: s, above 0.
    """
    if not 0 < interval < np.inf:
        raise ValueError(f"expected an interval above 0 s, found {interval}")
    first, second = transmit(np.array([0.0, interval]), synapse)
    return float(first), float(second)


def steady_regular(synapse: ShortTerm, rate: float) -> float:
    """What a spike delivers in a long regular train of ``rate`` Hz: u x, exact.

    With a = e^(-1/(r tau_f)) and b = e^(-1/(r tau_d)), the state repeats from spike to spike:
    u = [U (1 - a) + J a] / [1 - a (1 - J)] and x = (1 - b) / [1 - b (1 - u)].
    """
    _positive(rate)
    a, b = np.exp(-1 / (rate * synapse.tau_f)), np.exp(-1 / (rate * synapse.tau_d))
    u = (synapse.release * (1 - a) + synapse.gain * a) / (1 - a * (1 - synapse.gain))
    return float(u * (1 - b) / (1 - b * (1 - u)))


def steady_poisson(synapse: ShortTerm, rate: float) -> float:
    """What a spike delivers on average in a long Poisson train of ``rate`` Hz: u x.

    u = (U + r J tau_f) / (1 + r J tau_f), which is exact, and x = 1 / (1 + r u tau_d), which
    takes u and x as independent: too high, by up to 6 % (tests/spikes/test_stp.py measures it).
    """
    _positive(rate)
    up = rate * synapse.gain * synapse.tau_f
    u = (synapse.release + up) / (1 + up)
    return float(u / (1 + rate * u * synapse.tau_d))


def _positive(rate: float) -> None:
    if not 0 < rate < np.inf:
        raise ValueError(f"expected a rate above 0 Hz, found {rate}")
