"""lib.spikes.neuron: the compiled neurons against their equations, stepped in plain Python."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lib.spikes import codes
from lib.spikes.circuit import RECEPTORS, Circuit, Source
from lib.spikes.kernel import LANES, ROWS
from lib.spikes.neuron import BurstPoisson, TwoCompartment, check_step, parameters

DT = 1e-4


def single(model, soma, dendrite, seconds, **options):
    """One cell under constant currents: its recording with all traces."""
    c = Circuit(seed=1, dt=options.pop("dt", DT))
    c.population("cell", 1, model, spread=0.0)
    c.current("cell", "soma", soma)
    c.current("cell", "dendrite", dendrite)
    return c.run(seconds, raster={"cell": 1}, traces={"cell": 1}, **options)


def by_hand(m, soma, dendrite, steps, g=(0.0, 0.0, 0.0, 0.0)):
    """The two-compartment equations of the paper, forward Euler in float64: V_s, V_d, spikes.

    g: conductances at the beginning, somatic exc and inh, dendritic exc and inh.
    """
    v, d, ws, wd, th, last = m.e_leak, m.e_leak, 0.0, 1e-4, m.threshold, -(10**9)
    ge, gi, he, hi = g
    out, spikes = np.empty((steps, 2)), []
    for n in range(steps):
        v, d = v + DT * soma / m.c_soma, d + DT * dendrite / m.c_dendrite
        f = 1 / (1 + math.exp(-(d - m.half) / m.slope))
        k = 1.0 if n - last <= round(m.t_zeta / DT) else 0.0
        x = v if m.driving_force == "soma" else d
        dv = (m.e_leak - v) / m.tau_soma + (m.g_soma * f - m.b_w * ws) / m.c_soma
        dv += (ge * (m.e_exc - v) + gi * (m.e_inh - v)) / m.tau_soma
        dd = (m.e_leak - d) / m.tau_dendrite
        dd += (m.g_dendrite * f - m.a_w * wd + m.zeta * k) / m.c_dendrite
        dd += (he * (m.e_exc - x) + hi * (m.e_inh - x)) / m.tau_dendrite
        ge, he = ge * math.exp(-DT / m.tau_exc), he * math.exp(-DT / m.tau_exc)
        gi, hi = gi * math.exp(-DT / m.tau_inh), hi * math.exp(-DT / m.tau_inh)
        v, d = v + DT * dv, d + DT * dd
        ws -= DT * ws / m.tau_ws
        wd += DT * ((d - m.e_leak) - wd) / m.tau_wd
        th += DT * (m.threshold - th) / m.tau_threshold
        if v > th:
            spikes.append(n)
            v, th, ws, last = m.reset, th + m.threshold_jump, ws + 1, n
        out[n] = v, d
    return out, np.array(spikes)


@pytest.mark.parametrize(
    ("soma", "dendrite"),
    [(0.0, 0.0), (-2e-10, 3e-10), (8e-10, 0.0), (7e-10, 4e-10), (3e-10, 6e-10), (2e-9, 8e-10)],
)
def test_two_compartments_follow_their_equations(soma, dendrite):
    found = single(TwoCompartment(), soma, dendrite, 0.4)
    hand, spikes = by_hand(TwoCompartment(), soma, dendrite, 4000)
    np.testing.assert_array_equal(np.rint(found.raster["cell"][0] / DT).astype(int), spikes)
    traces = found.traces["cell"]
    np.testing.assert_allclose(traces["v_soma"][:, 0], hand[:, 0], atol=2e-5)
    np.testing.assert_allclose(traces["v_dendrite"][:, 0], hand[:, 1], atol=2e-5)


@pytest.mark.parametrize("force", ["soma", "dendrite"])
def test_synapses_pull_by_the_voltage_that_is_named(force):
    m = TwoCompartment(driving_force=force)
    c = Circuit(seed=1)
    c.population("cell", 1, m, spread=0.0)
    c.current("cell", "dendrite", 3e-10)
    c.population("silent", 1, Source(0.0))  # where nothing can inhibit, inhibition is left out
    c.connect("silent", "cell", "soma_inh", weight=0.1, p=1)
    g = (0.9, 0.4, 0.6, 0.8)
    s, place = c._built(), c.populations["cell"].places[0]
    for name, value in zip(RECEPTORS, g, strict=True):
        s.cells[place + ROWS.index(name) * LANES] = value
    found = c.run(0.1, traces={"cell": 1}).traces["cell"]
    hand, _ = by_hand(m, 0.0, 3e-10, 1000, g)
    np.testing.assert_allclose(found["v_soma"][:, 0], hand[:, 0], atol=2e-5)
    np.testing.assert_allclose(found["v_dendrite"][:, 0], hand[:, 1], atol=2e-5)
    other = TwoCompartment(driving_force="dendrite" if force == "soma" else "soma")
    assert abs(by_hand(other, 0.0, 3e-10, 1000, g)[0] - hand).max() > 1e-3


def test_the_passive_dendrite_rests_where_leak_and_adaptation_balance_the_current():
    # BurstPoisson has no coupling: V_d = E + I/(C_d/tau_d + a_w) = -70 + 100 pA/37.29 nS
    found = single(BurstPoisson(), 0.0, 1e-10, 0.3, dt=1e-5).traces["cell"]
    assert found["v_dendrite"][-1, 0] == pytest.approx(-70e-3 + 2.682e-3, abs=8e-6)
    # and the soma at E + I tau/C = -70 + 300 pA 16 ms/370 pF, below the threshold
    found = single(BurstPoisson(), 3e-10, 0.0, 0.3, dt=1e-5).traces["cell"]
    assert found["v_soma"][-1, 0] == pytest.approx(-70e-3 + 12.973e-3, abs=1.2e-5)


def test_burst_poisson_events_keep_their_distance_and_bursts_are_pairs():
    c = Circuit(seed=2)
    c.population("cells", 200, BurstPoisson())
    c.current("cells", "soma", 3e-9)  # so strong that only the refractory time counts
    c.current("cells", "dendrite", -3e-9)  # and no bursts
    c.run(0.3)
    t, cells, _ = c.run(1.0, raster={"cells": 200}).raster["cells"]
    gaps = np.concatenate([np.diff(t[cells == k]) for k in range(200)])
    assert gaps.min() == pytest.approx(0.02, abs=1e-6)
    c.current("cells", "dendrite", 3e-9)  # V_d = +10 mV: always a burst
    c.current("cells", "soma", 4.9e-10)  # slow: the trace calls nothing a burst that is none
    c.run(0.5)
    found = c.run(2.0, raster={"cells": 200})
    t, cells, _ = found.raster["cells"]
    assert found.burst_probability("cells")[0] == pytest.approx(1, abs=0.01)
    gaps = np.concatenate([np.diff(t[cells == k]) for k in range(200)])
    inside = gaps[gaps < 0.0195]
    assert len(inside) == pytest.approx(len(gaps) / 2, abs=100)
    # c is drawn from 50 ... 149 steps and counted down before the test: 4.9 ... 14.8 ms
    assert inside.min() == pytest.approx(4.9e-3, abs=1e-6)
    assert inside.max() == pytest.approx(14.8e-3, abs=1e-6)
    n = len(inside)
    assert inside.mean() == pytest.approx(9.85e-3, abs=4 * 2.9e-3 / n**0.5)
    assert gaps[gaps > 0.0195].min() >= 0.02 - 1e-6  # 20 ms after the second spike too


@pytest.mark.parametrize("current", [3e-10, 4.85e-10, 7e-10])
def test_burst_poisson_bursts_with_the_chance_that_its_dendrite_says(current):
    m, n = BurstPoisson(), 1000
    c = Circuit(seed=3)
    c.population("cells", n, m)
    c.current("cells", "soma", 4.9e-10)
    c.current("cells", "dendrite", current)
    c.run(0.5)
    v = -70e-3 + current / (m.c_dendrite / m.tau_dendrite + m.a_w)
    p = float(m.burst_probability(v))
    found = c.run(4.0)
    events = found.events["cells"][0]
    assert events > 5000
    assert found.burst_probability("cells")[0] == pytest.approx(
        p, abs=4 * (p * (1 - p) / events) ** 0.5
    )


def test_the_second_spike_neither_resets_nor_adapts():
    found = single(BurstPoisson(), 6e-10, 3e-9, 0.6)
    t, _, what = found.raster["cell"]
    steps = np.rint(t / DT).astype(int)
    trace = found.traces["cell"]
    event, burst = steps[what == codes.EVENT][0], steps[what == codes.BURST][0]
    assert trace["v_soma"][event, 0] == pytest.approx(-70e-3, abs=1e-6)
    assert trace["v_soma"][burst, 0] > trace["v_soma"][burst - 1, 0] > -70e-3
    assert trace["w_soma"][event, 0] == pytest.approx(1, abs=1e-6)
    assert trace["threshold"][event, 0] == pytest.approx(-48e-3, abs=1e-6)
    fall = 1 - DT / 27e-3
    up = (trace["threshold"][burst, 0] + 50e-3) / (trace["threshold"][burst - 1, 0] + 50e-3)
    assert up == pytest.approx(fall, rel=1e-3)


def test_the_soma_sets_the_events_and_the_dendrite_the_bursts():
    c = Circuit(seed=4)
    names = [f"{s} {d}" for s in (0, 400) for d in (0, 150)]
    for name in names:
        s, d = map(float, name.split())
        c.population(name, 300, TwoCompartment())
        for where, weight in (("soma", 0.35), ("dend", 0.05)):
            c.noise(name, f"{where}_exc", rate=500.0, weight=weight)
            c.noise(name, f"{where}_inh", rate=500.0, weight=weight)
        c.current(name, "soma", s * 1e-12)
        c.current(name, "dendrite", d * 1e-12)
    found = c.run(2.0)
    e = {n: found.event_rate(n)[0] for n in names}
    b = {n: found.burst_probability(n)[0] for n in names}
    assert e["400 0"] > 1.3 * e["0 0"] and e["400 150"] > 1.3 * e["0 150"]
    assert b["0 150"] > 1.5 * b["0 0"] and b["400 150"] > 1.5 * b["400 0"]
    assert abs(e["0 150"] / e["0 0"] - 1) < 0.25


def test_half_the_step_same_neuron():
    ends = [single(TwoCompartment(), 5e-10, 2e-10, 0.5, dt=dt) for dt in (1e-4, 5e-5)]
    a, b = (len(x.raster["cell"][0]) for x in ends)
    assert a > 3 and abs(a - b) <= 1


def test_every_number_has_a_unit_and_a_source():
    for model in (TwoCompartment(), BurstPoisson()):
        rows = parameters(model)
        assert {r[0] for r in rows} == {
            f.name for f in dataclasses.fields(model) if f.name != "driving_force"
        }
        assert all(unit in ("V", "F", "s", "A", "S") and source for _, _, unit, source in rows)
    assert ("zeta", 2600e-12, "A", "their program") in parameters(TwoCompartment())


def test_burst_probability_is_one_half_at_half():
    assert BurstPoisson().burst_probability(-57e-3) == pytest.approx(0.5)
    assert TwoCompartment().burst_probability(-32e-3) == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tau_soma": -1e-3}, "tau_soma above 0 s, found -0.001"),
        ({"c_dendrite": 0.0}, "c_dendrite above 0 F"),
        ({"e_leak": math.nan}, "finite number for e_leak, found nan"),
        ({"b_w": math.inf}, "finite number for b_w"),
        ({"slope": 0.0}, "slope above 0 V"),
        ({"t_zeta": -1e-3}, "t_zeta above 0 s"),
        ({"tau_wd": "30 ms"}, "finite number for tau_wd, found '30 ms'"),
        ({"driving_force": "axon"}, "'soma' or the 'dendrite', found 'axon'"),
    ],
)
def test_bad_parameters(change, words):
    with pytest.raises(ValueError, match=words):
        TwoCompartment(**change)


def test_a_step_must_be_short_beside_every_time_constant():
    check_step(TwoCompartment(), 1e-3)
    with pytest.raises(ValueError, match=r"dt = 0.0011 s is too large for tau_exc = 0.005 s"):
        check_step(TwoCompartment(), 1.1e-3)
    with pytest.raises(ValueError, match="too large for tau_dendrite"):
        c = Circuit(seed=1)
        c.population("cell", 1, TwoCompartment(tau_dendrite=2e-4))
