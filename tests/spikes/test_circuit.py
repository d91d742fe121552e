"""lib.spikes.circuit: noise, wires, delays, what is sent, the rule, recording, bad input."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lib.spikes import codes, stp
from lib.spikes.circuit import Circuit, Source, alias_table
from lib.spikes.interneurons import PV
from lib.spikes.kernel import LANES, ROWS
from lib.spikes.neuron import BurstPoisson, TwoCompartment
from lib.spikes.plasticity import Averages, BurstRule, impose

DT = 1e-4
RULE = BurstRule(eta=0.02, tau_pre=0.1, tau_avg=1.0, w_min=0.0, w_max=1.0, e_min=2.0, e_max=10.0,
                 clip=True)  # fmt: skip


def row(c: Circuit, name: str, which: str) -> np.ndarray:
    """A row of the kernel's state, one number per cell."""
    return c._built().cells[c.populations[name].places + ROWS.index(which) * LANES].copy()


def steps_of(times: np.ndarray) -> np.ndarray:
    return np.rint(times / DT).astype(int)


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("p", [0.5, 0.05, 0.015, 5e-4, 1e-5])
def test_the_alias_table_is_the_geometric_law(p):
    cut, other = alias_table(p)
    share = cut / 2.0**32
    chance = np.bincount(np.arange(1024), share, 1024) + np.bincount(other, 1 - share, 1024)
    expected = p * (1 - p) ** np.arange(1024)
    expected[-1] = (1 - p) ** 1023
    np.testing.assert_allclose(chance / 1024, expected, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("rate", [1.0, 40.0, 500.0])
def test_poisson_sources_have_their_rate_and_are_independent(rate):
    n, seconds = 500, 4.0
    c = Circuit(seed=3)
    c.population("source", n, Source(rate))
    t, cells, _ = c.run(seconds, raster={"source": n}).raster["source"]
    mean = n * seconds * rate
    assert len(t) == pytest.approx(mean, abs=4 * math.sqrt(mean))
    each = np.bincount(cells, minlength=n)
    spread = each.var() / (rate * seconds * (1 - rate * DT))  # Bernoulli in each step
    assert spread == pytest.approx(1, abs=5 * math.sqrt(2 / n) + 0.1 / rate)
    assert len(set(zip(steps_of(t), cells, strict=True))) == len(t)  # at most one per step
    halves = np.bincount(cells[t < seconds / 2], minlength=n), np.bincount(cells, minlength=n)
    first, second = halves[0], halves[1] - halves[0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(n)


def test_noise_brings_its_mean_and_its_variance():
    """Conductance of shot noise: mean r w tau, variance r w^2 tau/2; receptors independent."""
    c = Circuit(seed=5)
    c.population("cells", 4000, BurstPoisson())
    rates = {"soma_exc": 500.0, "soma_inh": 150.0, "dend_exc": 500.0, "dend_inh": 40.0}
    for receptor, rate in rates.items():
        c.noise("cells", receptor, rate=rate, weight=0.1)
    c.run(0.2)
    seen = {}
    for receptor, rate in rates.items():
        g, tau = row(c, "cells", receptor), 10e-3 if receptor.endswith("inh") else 5e-3
        seen[receptor] = g
        # after the delivery of a step: sum of e^(-k dt/tau), k = 0, 1, ...
        keep = math.exp(-DT / tau)
        mean, var = (rate * DT / (1 - keep**k) * 0.1**k for k in (1, 2))
        var *= 1 - rate * DT
        assert g.mean() == pytest.approx(mean, abs=4 * math.sqrt(var / 4000))
        assert g.var() == pytest.approx(var, rel=0.12)
    pairs = np.corrcoef(list(seen.values()))[np.triu_indices(4, 1)]
    assert abs(pairs).max() < 4 / math.sqrt(4000)


@pytest.mark.parametrize("receptor", ["soma_inh", "dend_inh"])
@pytest.mark.parametrize("by", ["noise", "connection"])
def test_any_input_that_inhibits_is_felt(receptor, by):
    """`TwoCompartment` cells without such an input are stepped by code that leaves it out."""
    c, compartment = Circuit(seed=1), "soma" if receptor == "soma_inh" else "dendrite"
    for name in ("free", "held"):
        c.population(name, 20, TwoCompartment(), spread=0.0)
        c.current(name, compartment, 1e-10)
    if by == "noise":
        c.noise("held", receptor, rate=500.0, weight=0.5)
    else:
        c.population("source", 20, Source(500.0))
        c.connect("source", "held", receptor, weight=0.05, p=1)
    traces = c.run(0.2, traces={"free": 20, "held": 20}).traces
    free, held = (traces[name][f"v_{compartment}"][1000:].mean() for name in ("free", "held"))
    assert held < free - 1e-3


def test_a_population_that_does_not_fill_its_block():
    """65 cells take two blocks: the 63 that fill the second are silent and get no noise."""
    c = Circuit(seed=1)
    c.population("a", 65, BurstPoisson())
    c.population("b", 1, BurstPoisson())
    c.noise("a", "soma_exc", rate=500.0, weight=0.5)
    found = c.run(1.0, raster={"a": 65, "b": 1}, currents={("a", "soma"): lambda t: 2e-10 + 0 * t})
    t, cells, _ = found.raster["a"]
    assert set(cells) == set(range(65)) and found.spikes["a"].sum() == len(t)
    assert found.spikes["b"].sum() == 0
    s = c._built()
    filled = s.cells[64 * len(ROWS) + 16 :][: 64 * len(ROWS)].reshape(len(ROWS), 64)
    assert not filled[ROWS.index("soma_exc"), 1:].any()


# ---------------------------------------------------------------- wires


def test_wiring_is_bernoulli_without_self():
    c = Circuit(seed=7)
    c.population("a", 300, BurstPoisson())
    c.population("b", 400, BurstPoisson())
    c.connect("a", "b", "soma_exc", weight=0.1, p=0.2)
    c.connect("a", "a", "soma_exc", weight=0.1, p=0.5)
    c.connect("b", "a", "soma_inh", weight=0.1, p=1.0)
    ab, aa, ba = c.connections.values()
    hits = np.zeros((300, 400), dtype=int)
    np.add.at(hits, (np.repeat(np.arange(300), np.diff(ab.pointer)), ab.post_of), 1)
    assert hits.max() == 1
    assert hits.mean() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 120_000))
    assert hits.sum(0).var() == pytest.approx(300 * 0.16, rel=0.35)  # binomial in-degree
    pre = np.repeat(np.arange(300), np.diff(aa.pointer))
    assert (pre != aa.post_of).all()
    assert len(pre) == pytest.approx(300 * 299 / 2, abs=4 * math.sqrt(300 * 299 / 4))
    assert len(ba.post_of) == 120_000
    mask = np.arange(400) < 100
    c.connect("a", "b", "dend_exc", weight=0.1, p=0.2, onto=mask, name="part")
    assert c.connections["part"].post_of.max() < 100


def test_a_spike_reaches_the_cells_on_each_of_its_lists():
    """Sparse lists of one population, two side by side and one that learns, each to its own."""
    c = Circuit(seed=3)
    c.population("source", 40, Source(2000.0))
    c.population("a", 70, BurstPoisson())
    c.population("b", 30, BurstPoisson())
    onto = (("a", "soma_exc"), ("b", "dend_exc"), ("a", "soma_inh"), ("b", "soma_exc"))
    for k, (post, receptor) in enumerate(onto):
        rule = RULE if k == 3 else None
        c.connect("source", post, receptor, weight=2.0**-k, p=0.3, delay=0, rule=rule, name=str(k))
    s = c._built()
    s.w[:] = np.random.default_rng(0).uniform(size=len(s.w))
    _, fired, _ = c.run(c.dt, raster={"source": 40}).raster["source"]
    assert 1 < len(fired) < 20
    for k, (post, receptor) in enumerate(onto):
        link = c.connections[str(k)]
        weight = c.weights("3") if k == 3 else np.full(len(link.post_of), 2.0**-k, np.float32)
        pre = np.repeat(np.arange(40), np.diff(link.pointer))
        if k == 3:  # what the rule changes, listed by postsynaptic cell, is what is sent
            own = np.zeros((40, 30), np.float32)
            own[s.in_cell, np.repeat(np.arange(30), np.diff(s.in_pointer))] = s.w
            np.testing.assert_array_equal(own[pre, link.post_of], weight)
        here = np.isin(pre, fired)
        hits = np.bincount(link.post_of[here], weight[here], link.post.n)
        np.testing.assert_allclose(row(c, post, receptor), hits, rtol=1e-6)


PATHS = {
    "spike": {"transmit": "spike"},
    "event": {"transmit": "event"},
    "burst": {"transmit": "burst"},
    "late": {"transmit": "burst", "delay": 3e-4},
    "std": {"transmit": "std"},
    "stf": {"transmit": "stf"},
    "jump f": {"transmit": "stf", "short": dataclasses.replace(stp.FACILITATING, jump="f")},
}


@pytest.fixture(scope="module")
def paths():
    """One bursting cell that reaches a cell by each path: its spikes, and {path: steps, sizes}."""
    c = Circuit(seed=1)
    c.population("pre", 1, BurstPoisson(), spread=0.0)
    c.current("pre", "soma", 5.5e-10)
    c.current("pre", "dendrite", 5.5e-10)
    for name, how in PATHS.items():
        c.population(name, 1, BurstPoisson(), spread=0.0)
        c.connect("pre", name, "dend_inh", weight=0.5, p=1.0, **how)
    raster, g = [], [np.zeros(len(PATHS))]
    for _ in range(8000):
        raster.append(c.run(DT, raster={"pre": 1}).raster["pre"])
        g.append(np.concatenate([row(c, name, "dend_inh") for name in PATHS]))
    jumps = np.diff(g, axis=0) + np.array(g[:-1]) * (1 - math.exp(-DT / 10e-3))
    t, _, what = (np.concatenate(x) for x in zip(*raster, strict=True))
    got = {}
    for k, name in enumerate(PATHS):
        at = np.flatnonzero(jumps[:, k] > 1e-6)
        got[name] = at, jumps[at, k]
    return steps_of(t), what, got


def test_what_arrives_and_when(paths):
    spikes, what, got = paths
    assert {codes.EVENT, codes.BURST} <= set(what.tolist())
    at, size = got["spike"]
    np.testing.assert_array_equal(at, (spikes + 8)[spikes + 8 < 8000])
    np.testing.assert_allclose(size, 0.5, rtol=1e-5)
    np.testing.assert_array_equal(got["event"][0], spikes[what == codes.EVENT])
    np.testing.assert_array_equal(got["burst"][0], spikes[what == codes.BURST])
    np.testing.assert_array_equal(got["late"][0], spikes[what == codes.BURST] + 3)


@pytest.mark.parametrize("path", ["std", "stf", "jump f"])
def test_short_term_plasticity_is_that_of_stp(paths, path):
    spikes, _, got = paths
    at, size = got[path]
    synapse = {"std": stp.DEPRESSING, "stf": stp.FACILITATING}.get(path, PATHS[path].get("short"))
    expected = 0.5 * stp.transmit(spikes * DT, synapse, start=0.01)
    assert len(spikes) > 8 and len(at) >= len(spikes) - 1
    np.testing.assert_allclose(size, expected[np.isin(spikes + 8, at)], rtol=2e-3, atol=2e-6)


def test_events_and_bursts_are_those_of_codes():
    c = Circuit(seed=9)
    c.population("cells", 300, TwoCompartment())
    c.noise("cells", "soma_exc", rate=500.0, weight=0.4)
    c.noise("cells", "soma_inh", rate=500.0, weight=0.3)
    c.current("cells", "dendrite", np.linspace(0, 5e-10, 300))
    found = c.run(2.0, bin=0.5, raster={"cells": 300})
    t, cells, what = found.raster["cells"]
    expected = codes.labels(t, neurons=cells, detector="trace")
    assert set(what.tolist()) == {codes.EVENT, codes.BURST, codes.LATER}
    np.testing.assert_array_equal(what, expected)
    for kind, counts in ((codes.EVENT, found.events), (codes.BURST, found.bursts)):
        np.testing.assert_array_equal(
            counts["cells"], np.histogram(t[what == kind], 4, (-1e-9, 2.0))[0]
        )
    assert found.spikes["cells"].sum() == len(t)
    assert found.event_rate("cells")[0] == found.events["cells"][0] / 150


# ---------------------------------------------------------------- the rule


def learning_pair(rule, seconds=4.0, off=1.5, drive=(4.4e-10, 5.5e-10), **options):
    """Four by four cells with the burst rule, off and then on: circuit, raster, weights.

    The presynaptic cells fire so slowly that their detector's lag of 0.8 ms changes no event.
    """
    c = Circuit(seed=11)
    for name, current in zip(("pre", "post"), drive, strict=True):
        c.population(name, 4, BurstPoisson())
        c.noise(name, "soma_exc", rate=500.0, weight=0.3)
        c.noise(name, "soma_inh", rate=500.0, weight=0.3)
        c.current(name, "soma", current)
        c.current(name, "dendrite", 3e-10)
    c.connect("pre", "post", "soma_exc", weight=0.1, p=1.0, transmit="event", rule=rule, **options)
    first = c.run(off, raster={"pre": 4, "post": 4})
    before = c.weights("pre>post").copy()
    c.learning(True)
    second = c.run(seconds - off, bin=0.5, raster={"pre": 4, "post": 4})
    trains = {}
    for name in ("pre", "post"):
        parts = [x.raster[name] for x in (first, second)]
        t, cells = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
        trains[name] = [t[cells == k] for k in range(4)]
    return c, trains, before, second


@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        dataclasses.replace(RULE, e_max=2.5, e_min=0.0),  # too fast: pulled down
        dataclasses.replace(RULE, e_min=30.0, e_max=40.0, eta=1e-3),  # too slow: lifted
        dataclasses.replace(RULE, e_min=30.0, e_max=40.0, eta=1e-3, low_rate="events"),
        dataclasses.replace(RULE, w_max=0.11, eta=0.1),  # at both bounds
    ],
    ids=["plain", "fast", "slow", "slow by events", "bounds"],
)
def test_the_rule_is_that_of_plasticity(rule):
    """Each of the 16 synapses against the plain definition under the same spikes."""
    c, trains, before, seen = learning_pair(rule)
    assert (before == np.float32(0.1)).all()
    now = c.weights("pre>post").reshape(4, 4)
    for j, pre in enumerate(trains["pre"]):
        for i, post in enumerate(trains["post"]):
            plain = impose(
                pre, post, rule, duration=4.0, averages=Averages(1e-12, 1e-12), weight=0.1,
                gate=[(1.5 - 1e-9, 4.0)], detector="trace",
            )  # fmt: skip
            assert now[j, i] == pytest.approx(plain.weights[-1], abs=2e-5)
    assert abs(now - 0.1).max() > 3e-3
    assert seen.weights["pre>post"][-1] == pytest.approx(now.mean(), rel=1e-5)
    if rule.w_max == 0.11:
        assert now.max() == np.float32(0.11) or now.min() == 0


def test_moving_averages_are_those_of_codes():
    c, trains, _, _ = learning_pair(RULE)
    events, bursts = c.averages("post")
    for i, t in enumerate(trains["post"]):
        found = codes.split(t, detector="trace")
        at = np.array([4.0])
        assert events[i] == pytest.approx(codes.moving_average(found.events, at, 1.0)[0], rel=1e-6)
        assert bursts[i] == pytest.approx(codes.moving_average(found.bursts, at, 1.0)[0], rel=1e-6)


def test_the_gate_stops_learning_and_traces_go_on():
    c, *_ = learning_pair(RULE, seconds=2.0)
    c.learning(False, "pre>post")
    then, averages = c.weights("pre>post").copy(), c.averages("post")[0].copy()
    c.run(1.0)
    np.testing.assert_array_equal(c.weights("pre>post"), then)
    assert (c.averages("post")[0] != averages).all()


# ---------------------------------------------------------------- running


def small(seed=1, dt=1e-4):
    c = Circuit(seed=seed, dt=dt)
    for name, model in (("a", TwoCompartment()), ("b", BurstPoisson()), ("c", PV)):
        c.population(name, 100, model)
        c.noise(name, "soma_exc", rate=500.0, weight=0.6)
        c.noise(name, "soma_inh", rate=500.0, weight=0.3)
    c.population("s", 100, Source(20.0))
    c.connect("s", "a", "dend_exc", weight=0.05, p=0.3)
    c.connect("a", "b", "soma_exc", weight=0.05, p=0.3, transmit="event", rule=RULE)
    c.connect("b", "a", "dend_exc", weight=0.1, p=0.3, transmit="burst")
    c.connect("a", "c", "soma_exc", weight=0.3, p=0.2, transmit="stf")
    c.connect("c", "b", "soma_inh", weight=0.05, p=0.2, transmit="std")
    c.learning(True)
    return c


def everything(found):
    return [x for name in "abcs" for x in found.raster[name]]


def test_same_seed_same_spikes_whole_or_in_pieces():
    shown = dict.fromkeys("abcs", 100)
    c = small()
    whole = c.run(2.5, bin=0.1, raster=shown)
    again = small().run(2.5, bin=0.1, raster=shown)
    d = small()
    parts = d.run(0.3, bin=0.1, raster=shown).then(d.run(2.2, bin=0.1, raster=shown))
    for other in (again, parts):
        for x, y in zip(everything(whole), everything(other), strict=True):
            np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(whole.weights["a>b"], other.weights["a>b"])
        np.testing.assert_array_equal(whole.events["a"], other.events["a"])
        np.testing.assert_allclose(whole.t, other.t)
    np.testing.assert_array_equal(c.weights("a>b"), d.weights("a>b"))
    assert len(whole.raster["a"][0]) > 500
    other = small(seed=2).run(2.5, raster=shown)
    assert len(other.raster["a"][0]) != len(whole.raster["a"][0])


def test_looking_does_not_disturb():
    seen = small().run(0.5, raster={"a": 3}, traces={"b": 2, "c": 1})
    blind = small().run(0.5)
    for name in "abcs":
        assert seen.spikes[name].sum() == blind.spikes[name].sum()
    assert seen.traces["b"]["v_soma"].shape == (5000, 2)
    assert set(seen.raster["a"][1].tolist()) <= {0, 1, 2}


def test_a_saved_state_goes_on_exactly(tmp_path):
    c = small()
    c.run(1.3)
    np.savez(tmp_path / "state.npz", **c.save())
    expected = c.run(1.5, bin=0.5)
    d = small()
    with np.load(tmp_path / "state.npz") as saved:
        d.restore(dict(saved))
    found = d.run(1.5, bin=0.5)
    for name in "abcs":
        np.testing.assert_array_equal(expected.spikes[name], found.spikes[name])
    np.testing.assert_array_equal(c.weights("a>b"), d.weights("a>b"))
    np.testing.assert_allclose(found.t, [1.8, 2.3, 2.8])
    with pytest.raises(ValueError, match="another circuit"):
        small(seed=2).restore(d.save())


def test_currents_constant_and_in_time_add_up():
    def v(constant, course, where="soma"):
        c = Circuit(seed=1)
        c.population("x", 2, BurstPoisson(), spread=0.0)
        c.population("y", 2, BurstPoisson(), spread=0.0)
        c.current("x", where, constant)
        f = {("x", where): course} if course is not None else {}
        found = c.run(0.3, currents=f, traces={"x": 2, "y": 1}).traces
        key = "v_soma" if where == "soma" else "v_dendrite"
        assert found["y"][key][-1, 0] == pytest.approx(-70e-3, abs=1e-4)
        return found["x"][key][-1]

    for where in ("soma", "dendrite"):
        both = v(1e-10, lambda t: 2e-10 + 0 * t, where)
        np.testing.assert_allclose(both, v(3e-10, None, where), atol=1e-6)
        np.testing.assert_allclose(both, v(0.0, np.full(3000, 3e-10), where), atol=1e-6)
    each = v(np.array([0.0, 2e-10]), None)
    assert each[1] - each[0] == pytest.approx(2e-10 * 16e-3 / 370e-12, rel=0.02)


def test_half_the_step_gives_the_same_rates():
    """Two pyramidal kinds under noise: rates and burst probabilities within 3 %."""
    found = []
    for dt in (1e-4, 5e-5):
        c = Circuit(seed=2, dt=dt)
        for name, model in (("two", TwoCompartment()), ("burst", BurstPoisson())):
            c.population(name, 2000, model)
            for where, weight in (("soma", 0.35), ("dend", 0.05)):
                c.noise(name, f"{where}_exc", rate=500.0, weight=weight)
                c.noise(name, f"{where}_inh", rate=500.0, weight=weight)
            c.current(name, "dendrite", 2e-10)
        c.run(0.5)
        found.append(c.run(3.0))
    for name in ("two", "burst"):
        a, b = found
        assert b.event_rate(name)[0] == pytest.approx(a.event_rate(name)[0], rel=0.03)
        p, q = (x.burst_probability(name)[0] for x in found)
        assert q == pytest.approx(p, rel=0.03)


# ---------------------------------------------------------------- bad input


def two(**options):
    c = Circuit(seed=1, **options)
    c.population("a", 10, BurstPoisson())
    c.population("b", 10, PV)
    c.population("s", 10, Source(5.0))
    return c


STD = {"weight": 0.1, "p": 0.5}
BAD = [
    (lambda c: c.population("a", 5, PV), "there is a population 'a' already"),
    (lambda c: c.population("z", 0, PV), "whole number of cells, 1 to 65536, found 0"),
    (lambda c: c.population("z", 2.5, PV), "whole number of cells"),
    (lambda c: c.population("z", 5, PV, average=math.nan), "finite number for average"),
    (lambda c: c.population("z", 5, Source(-1.0)), "rate of 0 or more, found -1"),
    (lambda c: c.noise("q", "soma_exc", rate=5.0, weight=1.0), "no population 'q'; there are: a"),
    (lambda c: c.noise("a", "axon", rate=5.0, weight=1.0), "no receptor 'axon'; there are soma_ex"),
    (lambda c: c.noise("a", "soma_exc", rate=-5.0, weight=1.0), "rate of 0 or more, found -5"),
    (lambda c: c.noise("a", "soma_exc", rate=6e3, weight=1.0), "at most 5000 Hz, found 6000"),
    (lambda c: c.noise("a", "soma_exc", rate=5.0, weight=math.nan), "finite number for weight"),
    (lambda c: c.noise("b", "dend_exc", rate=5.0, weight=1.0), "'b' has no dendrite"),
    (lambda c: c.noise("s", "soma_exc", rate=5.0, weight=1.0), "'s' is a Poisson source"),
    (lambda c: c.connect("a", "nowhere", "soma_exc", **STD), "no population 'nowhere'"),
    (lambda c: c.connect("a", "s", "soma_exc", **STD), "nothing can reach it"),
    (lambda c: c.connect("a", "b", "soma_exc", weight=1.0, p=1.5), "p from 0 to 1, found 1.5"),
    (lambda c: c.connect("a", "b", "soma_exc", weight=1.0, p=0.0), "no cell of 'a' reaches"),
    (lambda c: c.connect("a", "b", "soma_exc", weight=-1.0, p=0.5), "weight of 0 or more"),
    (lambda c: c.connect("a", "b", "soma_exc", transmit="x", **STD), "no transmission 'x'"),
    (lambda c: c.connect("a", "b", "soma_exc", delay=-1.0, **STD), "delay from 0 to 0.1"),
    (lambda c: c.connect("a", "b", "soma_exc", short=stp.DEPRESSING, **STD), "transmit='std'"),
    (lambda c: c.connect("a", "b", "soma_exc", transmit="std", rule=RULE, **STD), "not std or stf"),
    (lambda c: c.connect("a", "b", "soma_exc", onto=np.ones(3, bool), **STD), "shape \\(10,\\)"),
    (lambda c: c.connect("a", "b", "soma_exc", rule=dataclasses.replace(RULE, clip=False), **STD),
     "clip=True"),
    (lambda c: c.connect("a", "b", "soma_exc", rule=dataclasses.replace(RULE, threshold=0.02),
                         **STD), "differs from the circuit's burst_window"),
    (lambda c: c.current("a", "axon", 0.0), "expected 'soma' or 'dendrite', found 'axon'"),
    (lambda c: c.current("b", "dendrite", 0.0), "'b' has no dendrite"),
    (lambda c: c.current("a", "soma", math.nan), "one finite current"),
    (lambda c: c.current("a", "soma", np.zeros(3)), "or 10 of them, found the shape \\(3,\\)"),
    (lambda c: c.learning(True, "a>b"), "no connection 'a>b'; there are: none yet"),
    (lambda c: c.set_weight("a>b", 0.1), "no connection"),
    (lambda c: c.averages("a"), "keeps no averages"),
    (lambda c: c.run(0.0), "seconds of 5e-05 or more"),
    (lambda c: c.run(1.00003), "whole steps"),
    (lambda c: c.run(1.0, bin=0.3), "whole bins"),
    (lambda c: c.run(0.1, currents={("q", "soma"): np.zeros(1000)}), "no population 'q'"),
    (lambda c: c.run(0.1, currents={("a", "soma"): np.zeros(3)}), "expected 1000 finite values"),
    (lambda c: c.run(0.1, raster={"a": 11}), "expected 1 to 10 cells of 'a', found 11"),
    (lambda c: c.run(0.1, traces={"s": 1}), "Poisson source"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), BAD, ids=[b[1][:30] for b in BAD])
def test_bad_input(call, words):
    c = two()
    with pytest.raises(ValueError, match=words):
        call(c)
    assert c.step == 0  # nothing was simulated


@pytest.mark.parametrize("dt", [0.0, -1e-4, math.nan, 2e-3])
def test_bad_steps(dt):
    with pytest.raises(ValueError, match="dt"):
        Circuit(seed=1, dt=dt)


def test_rules_onto_one_population_share_their_averages():
    c = two()
    c.connect("b", "a", "soma_exc", rule=RULE, **STD)
    with pytest.raises(ValueError, match="share their averages: expected tau_avg 1 s"):
        other = dataclasses.replace(RULE, tau_avg=2.0)
        c.connect("s", "a", "soma_exc", rule=other, **STD)


def test_a_circuit_that_has_run_is_complete():
    c = two()
    c.run(0.01)
    for call in (
        lambda: c.population("z", 5, PV),
        lambda: c.noise("a", "soma_exc", rate=5.0, weight=0.1),
        lambda: c.connect("a", "b", "soma_exc", **STD),
    ):
        with pytest.raises(ValueError, match="before the first run"):
            call()
    with pytest.raises(ValueError, match="empty circuit"):
        Circuit(seed=1).run(0.1)


def test_an_explosion_is_said():
    c = Circuit(seed=1)
    c.population("a", 1, BurstPoisson())
    c.current("a", "dendrite", -3e32)
    with pytest.raises(FloatingPointError, match="left the numbers"):
        c.run(0.1)


def test_weights_can_be_set_between_runs():
    c = two()
    c.connect("s", "a", "soma_exc", weight=0.0, p=1.0)
    c.connect("s", "a", "dend_exc", weight=0.1, p=1.0, rule=RULE, name="plastic")
    c.run(0.1)
    assert not row(c, "a", "soma_exc").any()
    c.set_weight("s>a", 0.3)
    c.set_weight("plastic", 0.2)
    assert (c.weights("plastic") == np.float32(0.2)).all()
    c.run(0.2)
    assert row(c, "a", "soma_exc").any()
    with pytest.raises(ValueError, match=r"one weight for all, 0\.3"):
        c.weights("s>a")
    with pytest.raises(ValueError, match="no rule to switch"):
        c.learning(True, "s>a")
