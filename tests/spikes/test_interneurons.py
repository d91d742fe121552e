"""lib.spikes.interneurons: the compiled adaptive exponential neuron against plain Python."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lib.spikes.circuit import Circuit
from lib.spikes.interneurons import PV, SOM, AdaptiveExponential

DT = 1e-4


def run(model, current, seconds=0.5, n=1):
    c = Circuit(seed=1)
    c.population("cell", n, model, spread=0.0)
    c.current("cell", "soma", current)
    return c.run(seconds, raster={"cell": n}, traces={"cell": n})


def by_hand(m, current, steps):
    """Forward Euler in float64: V after each step, spikes."""
    v, w, left, vs, spikes = m.e_leak, 0.0, 0, np.empty(steps), []
    for n in range(steps):
        v += DT * current / m.c_soma
        up = m.sharp * (1 + (v - m.v_t) / m.sharp / 256) ** 256
        new = v + DT / m.tau_soma * (m.e_leak - v + up - w)
        v = min(max(new, m.e_inh), 20e-3)
        if left:
            v, left = (m.e_leak if m.hold == "rest" else m.reset), left - 1
        elif v > 0:
            v, left, w = m.reset, round(m.refractory / DT), w + m.b / m.g_leak
            spikes.append(n)
        w += DT / m.tau_w * (m.a / m.g_leak * (v - m.e_leak) - w)
        vs[n] = v
    return vs, np.array(spikes, dtype=int)


@pytest.mark.parametrize("current", [0.0, 1.5e-10, 2.5e-10, 4e-10])
@pytest.mark.parametrize("kind", [PV, SOM, dataclasses.replace(SOM, hold="reset")])
def test_it_follows_its_equations(kind, current):
    found, (v, spikes) = run(kind, current), by_hand(kind, current, 5000)
    steps = np.rint(found.raster["cell"][0] / DT).astype(int)
    assert len(steps) == len(spikes)
    # the upstroke amplifies the last digit of float32: a spike may come a step early or late
    assert abs(steps - spikes).max(initial=0) <= 2
    calm = np.ones(5000, dtype=bool)
    for n in spikes:
        calm[max(n - 40, 0) : n + 40] = False
    np.testing.assert_allclose(found.traces["cell"]["v_soma"][calm, 0], v[calm], atol=3e-4)


def test_rheobase():
    """PV fires from 200 pA on; SOM from 25 pA on (its adaptation counts too)."""
    for kind, rheobase in ((PV, 200e-12), (SOM, 25e-12)):
        below, above = (run(kind, x * rheobase, 3.0).raster["cell"][0] for x in (0.97, 1.05))
        assert not (below > 1.5).any()  # the onset of a current may draw a spike
        assert (above > 1.5).any()


def test_som_adapts_and_pv_does_not():
    def intervals(kind, current):
        return np.diff(run(kind, current, 1.5).raster["cell"][0])

    som, pv = intervals(SOM, 1e-10), intervals(PV, 3e-10)
    assert som[-1] > 1.5 * som[0]
    assert pv[-1] == pytest.approx(pv[0], abs=2.1e-4)


def test_holding_at_the_reset_makes_som_fire_more():
    """The program holds V at rest while refractory, so that the reset of -65 mV is lost."""
    rest = len(run(SOM, 1e-10, 2.0).raster["cell"][0])
    reset = len(run(dataclasses.replace(SOM, hold="reset"), 1e-10, 2.0).raster["cell"][0])
    assert reset > rest


def test_the_published_numbers():
    assert SOM.tau_soma == pytest.approx(20e-3) and PV.tau_soma == pytest.approx(10e-3)
    assert SOM.v_t == pytest.approx(-61.836e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"g_leak": 0.0}, "g_leak above 0 S"),
        ({"sharp": -1e-3}, "sharp above 0 V"),
        ({"v_t": math.nan}, "finite number for v_t"),
        ({"refractory": -1.0}, "refractory above 0 s"),
        ({"hold": "there"}, "'rest' or 'reset', found 'there'"),
    ],
)
def test_bad_parameters(change, words):
    with pytest.raises(ValueError, match=words):
        AdaptiveExponential(**change)
