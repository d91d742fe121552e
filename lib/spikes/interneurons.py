"""Interneurons: the adaptive exponential neuron and its two kinds, PV and SOM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lib.spikes import kernel
from lib.spikes.neuron import PROGRAM, check, par


@dataclass(frozen=True)
class AdaptiveExponential:
    """One compartment with an exponential spike and an adaptation current::

        tau dV/dt = (E - V) + sharp exp((V - V_T)/sharp) + g_exc (0 - V) + g_inh (-80 mV - V) - w
        tau_w dw/dt = a (V - E)/g_leak - w ;  w += b/g_leak at a spike (V above 0)

    tau = C/g_leak; g in units of the leak; exp(x) is taken as (1 + x/256)^256.
    After a spike V is held for ``refractory`` s: at E (``hold`` = "rest", as the published program
    runs, so that ``reset`` has no effect) or at the reset (``hold`` = "reset", as printed).
    Raises ValueError for a bad value. Source: Brette & Gerstner 2005; Payeur et al. 2021.
    """

    kind: ClassVar[int] = kernel.ADEX
    g_leak: float = par(10e-9, "S")
    c_soma: float = par(100e-12, "F")
    e_leak: float = par(-70e-3, "V")
    sharp: float = par(2e-3, "V")
    v_t: float = par(-48e-3, "V")
    a: float = par(0.0, "S")
    b: float = par(0.0, "A")
    tau_w: float = par(5e-3, "s", PROGRAM)
    reset: float = par(-55e-3, "V")
    refractory: float = par(1e-3, "s")
    e_exc: float = par(0.0, "V")
    e_inh: float = par(-80e-3, "V")
    tau_exc: float = par(5e-3, "s")
    tau_inh: float = par(10e-3, "s")
    hold: str = "rest"

    def __post_init__(self) -> None:
        check(self)
        if self.hold not in ("rest", "reset"):
            raise ValueError(f"expected to hold V at 'rest' or 'reset', found {self.hold!r}")

    @property
    def tau_soma(self) -> float:
        """C/g_leak, s."""
        return self.c_soma / self.g_leak

    def factors(self, dt: float) -> np.ndarray:
        """The model's numbers for one step of dt s, (32,) float32, as the kernel reads them."""
        p = np.zeros(32)
        p[0], p[2:6] = dt / self.tau_soma, (self.e_leak, self.sharp, self.v_t, 1 / self.sharp)
        p[6:10] = dt / self.tau_w, self.a / self.g_leak, self.e_inh, 20e-3
        p[10] = self.e_leak if self.hold == "rest" else self.reset
        p[11:13] = self.reset, self.b / self.g_leak
        p[14:16] = math.exp(-dt / self.tau_exc), math.exp(-dt / self.tau_inh)
        p[16:18] = self.e_exc, self.e_inh
        p[19], p[20] = round(self.refractory / dt), 0.0
        return p.astype(np.float32)

    def start(self) -> dict[str, float]:
        """Initial values of the kernel's rows (SI)."""
        return {"v_s": self.e_leak, "v_d": self.e_leak}


PV = AdaptiveExponential()
SOM = AdaptiveExponential(
    g_leak=5e-9,
    sharp=4e-3,
    v_t=25e-12 / 5.5e-9 - 70e-3 + 4e-3 - 4e-3 * math.log(1.1),  # rheobase 25 pA; -62 mV in print
    a=0.5e-9,
    b=10e-12,
    tau_w=500e-3,
    reset=-65e-3,
    refractory=2e-3,
)
