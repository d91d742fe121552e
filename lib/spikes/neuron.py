"""Pyramidal neurons with a soma and a dendrite: parameters in SI units, each with its source."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np

from lib.spikes import kernel

PAPER, PROGRAM = "Payeur et al. 2021, Methods", "their program"


def par(value: float, unit: str, source: str = PAPER) -> float:
    """A field of a model: its value, unit and source (``parameters`` lists them)."""
    return field(default=value, metadata={"unit": unit, "source": source})


def parameters(model: object) -> list[tuple[str, float, str, str]]:
    """Name, value, unit and source of each number of a model."""
    return [
        (f.name, getattr(model, f.name), f.metadata["unit"], f.metadata["source"])
        for f in fields(model)
        if "unit" in f.metadata
    ]


def check(model: object) -> None:
    """ValueError unless every number is finite, times and capacitances are above zero."""
    for name, value, unit, _ in parameters(model):
        where = f"{type(model).__name__}: expected"
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise ValueError(f"{where} a finite number for {name}, found {value!r}")
        above = name.startswith(("tau_", "c_", "g_leak", "slope", "sharp"))
        if (above and value <= 0) or (unit == "s" and value < 0):
            raise ValueError(f"{where} {name} above 0 {unit}, found {value:g}")


def check_step(model: object, dt: float) -> None:
    """ValueError unless ``dt`` (s) is at most a fifth of every time constant of the model."""
    times = {n: v for n, v, unit, _ in parameters(model) if n.startswith("tau_")}
    name = min(times, key=times.get)
    if dt > times[name] / 5:
        raise ValueError(
            f"{type(model).__name__}: dt = {dt:g} s is too large for {name} = {times[name]:g} s; "
            f"expected at most a fifth of it, {times[name] / 5:g} s"
        )


@dataclass(frozen=True)
class Pyramidal:
    """What both pyramidal neurons share: leaky soma and dendrite, adaptation, moving threshold.

    ``driving_force``: which voltage the dendrite's synapses see, "soma" (what the published
    program computes) or "dendrite" (what is meant). Raises ValueError for a bad value.
    """

    e_leak: float = par(-70e-3, "V")
    c_soma: float = par(370e-12, "F")
    tau_soma: float = par(16e-3, "s")
    c_dendrite: float = par(170e-12, "F")
    tau_dendrite: float = par(7e-3, "s")
    threshold: float = par(-50e-3, "V")
    threshold_jump: float = par(2e-3, "V")
    tau_threshold: float = par(27e-3, "s")
    reset: float = par(-70e-3, "V")
    b_w: float = par(200e-12, "A")  # somatic adaptation a spike adds
    tau_ws: float = par(100e-3, "s")
    a_w: float = par(13e-9, "S")  # dendritic adaptation per volt
    tau_wd: float = par(30e-3, "s")
    e_exc: float = par(0.0, "V")
    e_inh: float = par(-80e-3, "V")
    tau_exc: float = par(5e-3, "s")
    tau_inh: float = par(10e-3, "s")
    driving_force: str = "soma"

    def __post_init__(self) -> None:
        check(self)
        if self.driving_force not in ("soma", "dendrite"):
            raise ValueError(
                f"expected the driving force of the 'soma' or the 'dendrite', "
                f"found {self.driving_force!r}"
            )

    def burst_probability(self, v_dendrite: np.ndarray) -> np.ndarray:
        """f(V_d) = 1/(1 + exp(-(V_d - half)/slope)), 0 to 1, for V_d in volts."""
        return 1 / (1 + np.exp(-(np.asarray(v_dendrite) - self.half) / self.slope))

    def factors(self, dt: float) -> np.ndarray:
        """The model's numbers for one step of dt s, (32,) float32, as the kernel reads them."""
        p = np.zeros(32)
        p[:3] = dt / self.tau_soma, dt / self.tau_dendrite, self.e_leak
        p[3], p[6] = -self.b_w * dt / self.c_soma, -self.a_w * dt / self.c_dendrite
        p[8:12] = dt / self.tau_ws, dt / self.tau_wd, dt / self.tau_threshold, self.threshold
        p[12:14] = self.half, 1 / self.slope
        p[14:16] = math.exp(-dt / self.tau_exc), math.exp(-dt / self.tau_inh)
        p[16:19] = self.e_exc, self.e_inh, self.driving_force == "soma"
        p[21:23] = self.reset, self.threshold_jump
        return p

    def start(self) -> dict[str, float]:
        """Initial values of the kernel's rows (SI), before the somata are spread."""
        return {
            "v_s": self.e_leak,
            "v_d": self.e_leak,
            "w_d": 1e-4,
            "threshold": self.threshold,
        }


@dataclass(frozen=True)
class TwoCompartment(Pyramidal):
    """The two-compartment pyramidal neuron: bursts when dendrite and back-propagating spike meet.

    With f(V_d) the dendrite's nonlinearity, g conductances in units of the leak, K = 1 for 2 ms
    after a spike, x the voltage ``driving_force`` names::

        dV_s/dt = (E - V_s)/tau_s + [g_s f(V_d) - b_w w_s + I_s]/C_s + synapses(V_s)/tau_s
        dV_d/dt = (E - V_d)/tau_d + [g_d f(V_d) - a_w w_d + zeta K + I_d]/C_d + synapses(x)/tau_d
        tau_wd dw_d/dt = (V_d - E) - w_d ;  tau_ws dw_s/dt = -w_s, +1 at a spike
        synapses(v) = g_exc (E_exc - v) + g_inh (E_inh - v)

    A spike where V_s passes the threshold, which then jumps by 2 mV and falls back with 27 ms;
    V_s is reset and there is no refractory time.
    Source: Payeur et al. 2021, Methods, after Naud & Sprekeler 2018.
    Departs: as in their program the back-propagating spike is not delayed (0.5 ms in print).
    """

    kind: ClassVar[int] = kernel.TWO
    g_soma: float = par(1300e-12, "A")  # the dendrite's plateau in the soma
    g_dendrite: float = par(1200e-12, "A")  # and in itself
    half: float = par(-38e-3, "V")  # E_d, where f = 1/2
    slope: float = par(6e-3, "V")  # D_d
    zeta: float = par(2600e-12, "A", PROGRAM)  # back-propagating spike
    t_zeta: float = par(2e-3, "s")

    def factors(self, dt: float) -> np.ndarray:
        p = super().factors(dt)
        p[4], p[5] = self.g_soma * dt / self.c_soma, self.g_dendrite * dt / self.c_dendrite
        p[7], p[19] = self.zeta * dt / self.c_dendrite, round(self.t_zeta / dt)
        return p.astype(np.float32)


@dataclass(frozen=True)
class BurstPoisson(Pyramidal):
    """The simplified pyramidal neuron of the XOR task: a burst is drawn, not computed.

    Soma and dendrite as in ``TwoCompartment`` but uncoupled. At an event, with probability
    f(V_d) a second spike follows after ``burst_from`` to ``burst_from + burst_spread``, uniform;
    it neither resets the soma nor adapts. No event within ``refractory`` of a spike; the soma
    goes on integrating. Source: Payeur et al. 2021, Methods, and their program.
    """

    kind: ClassVar[int] = kernel.POISSON_BURST
    half: float = par(-57e-3, "V", PROGRAM)
    slope: float = par(6e-3, "V", PROGRAM)
    refractory: float = par(20e-3, "s", PROGRAM)
    burst_from: float = par(5e-3, "s", PROGRAM)
    burst_spread: float = par(10e-3, "s", PROGRAM)

    def factors(self, dt: float) -> np.ndarray:
        p = super().factors(dt)
        p[19], p[23], p[24] = self.refractory / dt, self.burst_from / dt, self.burst_spread / dt
        p[19] = round(p[19])
        return p.astype(np.float32)
