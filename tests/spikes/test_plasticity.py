"""lib.spikes.plasticity: the rule by hand, against a plain loop, and against Fig 2b-d."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from lib.spikes import codes
from lib.spikes.plasticity import (
    BURST,
    EVENT,
    PRE,
    PROTOCOL,
    SPIKE,
    STEERING,
    Averages,
    BurstRule,
    burst_poisson,
    expected_change,
    impose,
    periodic,
    poisson,
)

HALF = Averages(4.0, 2.0)  # P = 0.5


def table(name: str) -> np.ndarray:
    return np.loadtxt(ROOT / "tests/reference/spiking" / name, delimiter=",", skiprows=1).T


def crossing(x: np.ndarray, y: np.ndarray) -> float:
    """Where the line through the points first rises through 0."""
    k = int(np.argmax((y[:-1] < 0) & (y[1:] >= 0)))
    return float(x[k] - y[k] * (x[k + 1] - x[k]) / (y[k + 1] - y[k]))


# --- by hand


def test_a_lone_event_depresses_and_a_burst_potentiates():
    one = impose([1.0], [1.0], PROTOCOL, duration=2.0, averages=HALF)
    assert one.change == pytest.approx(-0.1 * 0.5)
    assert one.kinds.tolist() == [PRE, EVENT]
    two = impose([1.0], [1.0, 1.01], PROTOCOL, duration=2.0, averages=HALF)
    assert two.kinds.tolist() == [PRE, EVENT, BURST]
    assert two.weights == pytest.approx([0, -0.05, -0.05 + 0.1 * np.exp(-0.01 / 0.05)])
    three = impose([1.0], [1.0, 1.01, 1.02], PROTOCOL, duration=2.0, averages=HALF)
    assert three.change == two.change  # a third spike says nothing


def test_the_trace_counts_presynaptic_events_only_and_fades():
    after = impose([1.0], [1.05], PROTOCOL, duration=2.0, averages=HALF)
    assert after.change == pytest.approx(-0.1 * 0.5 * np.exp(-1.0))
    burst = impose([0.99, 1.0], [1.0], PROTOCOL, duration=2.0, averages=HALF)
    assert burst.change == pytest.approx(-0.1 * 0.5 * np.exp(-0.01 / 0.05))
    assert impose([1.01], [1.0], PROTOCOL, duration=2.0, averages=HALF).change == 0
    assert impose([], [1.0], PROTOCOL, duration=2.0, averages=HALF).change == 0
    assert impose([1.0], [], PROTOCOL, duration=2.0, averages=HALF).change == 0


def test_averages_are_those_of_codes():
    rng = np.random.default_rng(0)
    pre, post = poisson(30.0, 20.0, rng=rng)
    found = impose(pre, post, PROTOCOL, duration=20.0, averages=Averages(5, 1))
    code = codes.split(post)
    at = np.array([20.0])
    tau = PROTOCOL.tau_avg
    assert found.averages.events == pytest.approx(
        codes.moving_average(code.events, at, tau, start=5)[0]
    )
    assert found.averages.bursts == pytest.approx(
        codes.moving_average(code.bursts, at, tau, start=1)[0]
    )
    seen = found.kinds == EVENT
    running = codes.moving_average(code.bursts, code.events, tau, start=1) / codes.moving_average(
        code.events, code.events, tau, start=5
    )
    assert found.probabilities[seen] == pytest.approx(running)


def test_bounds_and_the_clipped_probability():
    tight = replace(PROTOCOL, w_min=-0.02, w_max=0.01)
    assert impose([1.0], [1.0], tight, duration=2.0, averages=HALF).weights[-1] == -0.02
    found = impose([1.0], [1.0, 1.01], tight, duration=2.0, averages=HALF)
    assert found.weights.tolist() == [0.0, -0.02, 0.01]
    above = Averages(1.0, 3.0)
    assert impose([1.0], [1.0], PROTOCOL, duration=2.0, averages=above).change == pytest.approx(
        -0.3
    )
    clip = replace(PROTOCOL, clip=True)
    assert impose([1.0], [1.0], clip, duration=2.0, averages=above).change == pytest.approx(-0.1)


def test_the_gate_stops_the_weight_and_not_the_traces():
    pre = post = np.array([1.0, 2.0, 3.0])
    shut = impose(pre, post, PROTOCOL, duration=4.0, averages=HALF, gate=[])
    assert shut.change == 0
    free = impose(pre, post, PROTOCOL, duration=4.0, averages=HALF)
    assert shut.averages == free.averages
    assert shut.probabilities.tolist() == free.probabilities.tolist()
    some = impose(pre, post, PROTOCOL, duration=4.0, averages=HALF, gate=[(2.0, 3.0)])
    assert some.change == pytest.approx(free.weights[3] - free.weights[2])
    assert some.change != 0


def test_fast_cells_are_depressed():
    """H = (e_max - E)/E joins the event and the burst: at 10 Hz and e_max 4, -0.6."""
    rule = replace(PROTOCOL, e_max=4.0)
    tenth = Averages(10.0, 1.0)
    found = impose([1.0], [1.0], rule, duration=2.0, averages=tenth)
    e = 10 * np.exp(-1 / 15)
    h = (4 - e) / e
    assert found.change == pytest.approx(0.1 * (h - 0.1))
    burst = impose([1.0], [1.0, 1.01], rule, duration=2.0, averages=tenth)
    e2 = (e + 1 / 15) * np.exp(-0.01 / 15)
    more = 0.1 * (1 + (4 - e2) / e2) * np.exp(-0.01 / 0.05)
    assert burst.change == pytest.approx(found.change + more)
    slow = replace(PROTOCOL, e_max=40.0)
    assert impose([1.0], [1.0], slow, duration=2.0, averages=HALF).change == pytest.approx(-0.05)


@pytest.mark.parametrize("low_rate", ["spikes", "events"])
def test_slow_cells_are_potentiated_at_every_presynaptic_event(low_rate):
    rule = replace(PROTOCOL, e_min=2.0, low_rate=low_rate)
    found = impose([3.0], [1.0, 1.01], rule, duration=4.0, averages=Averages(1.0, 0.5))
    by_spikes = 0.1 * np.exp(-3 / 30) + (np.exp(-2 / 30) + np.exp(-1.99 / 30)) / 30
    by_events = np.exp(-3 / 15) + np.exp(-2 / 15) / 15
    low = by_spikes if low_rate == "spikes" else by_events
    assert found.change == pytest.approx(0.1 * (2 - low))
    assert (SPIKE in found.kinds) == (low_rate == "spikes")


def test_before_the_traces_rise_the_two_readings_differ():
    """A cell at 5 Hz: enough events, but the 30 s trace of their simulator needs time."""
    regular = np.arange(0.1, 20, 0.2)
    both = [
        impose(regular + 0.1, regular, replace(STEERING, low_rate=r), duration=21.0, weight=0.08,
               averages=Averages(5, 0.5)).change
        for r in ("spikes", "events")
    ]  # fmt: skip
    assert both[0] > both[1] + 0.05


# --- against a loop over all steps, written from the description


def loop(pre, post, rule, duration, averages, dt):
    n = int(duration / dt)
    a, b = codes.split(pre), codes.split(post)
    trains = [np.zeros(n) for _ in range(3)]
    for train, times in zip(trains, (a.events, b.events, b.bursts), strict=True):
        np.add.at(train, np.floor(times / dt).astype(int), 1)
    x, w, e, burst = 0.0, 0.0, averages.events, averages.bursts
    for sent, event, second in zip(*trains, strict=True):
        x += sent - x * dt / rule.tau_pre
        w += rule.eta * (second - burst / e * event) * x
        e += (event - e * dt) / rule.tau_avg
        burst += (second - burst * dt) / rule.tau_avg
    return w, e, burst


@pytest.mark.parametrize("seed", range(3))
def test_steps_are_a_plain_loop(seed):
    pre, post = poisson(20.0, 10.0, rng=np.random.default_rng(seed))
    found = impose(pre, post, PROTOCOL, duration=10.0, averages=HALF, step=1e-3)
    w, e, burst = loop(pre, post, PROTOCOL, 10.0, HALF, 1e-3)
    assert found.change == pytest.approx(w, abs=1e-13)
    assert found.averages.events == pytest.approx(e)
    assert found.averages.bursts == pytest.approx(burst)


def test_small_steps_come_to_the_exact_answer():
    pre, post = poisson(20.0, 10.0, rng=np.random.default_rng(5))
    exact = impose(pre, post, PROTOCOL, duration=10.0, averages=HALF).change
    off = [
        abs(impose(pre, post, PROTOCOL, duration=10.0, averages=HALF, step=s).change - exact)
        for s in (1e-3, 1e-5)
    ]
    assert off[1] < 1e-4 < off[0] < 0.1


def test_without_homeostasis_the_change_scales_with_eta():
    pre, post = poisson(30.0, 10.0, rng=np.random.default_rng(6))
    one, two = (
        impose(pre, post, replace(PROTOCOL, eta=e), duration=10.0, averages=HALF).change
        for e in (0.1, 0.2)
    )
    assert two == pytest.approx(2 * one)


def test_the_trace_detector_can_be_chosen():
    post = np.array([1.0, 1.005, 1.025])  # after 20 ms: an event by interval, not by trace
    isi = impose([0.99], post, PROTOCOL, duration=2.0, averages=HALF)
    trace = impose([0.99], post, PROTOCOL, duration=2.0, averages=HALF, detector="trace")
    assert (isi.kinds == EVENT).sum() == 2
    assert (trace.kinds == EVENT).sum() == 1
    sent = [
        impose(post, [2.0], PROTOCOL, duration=3.0, averages=HALF, detector=d).kinds
        for d in codes.DETECTORS
    ]  # and on the sender's side
    assert [(k == PRE).sum() for k in sent] == [2, 1]


# --- Fig 2b-d: the same spikes give the original program's numbers


def test_fig2b_periodic():
    frequencies, published = table("fig2b_periodic.csv")
    stepped = np.array([periodic(f, step=1e-4) for f in frequencies])
    assert stepped == pytest.approx(published, abs=1e-12)
    exact = np.array([periodic(f) for f in frequencies])
    assert exact == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize("step", [None, 1e-4])
def test_fig2b_switches_between_62_and_63_hz(step):
    below, above = periodic(62.0, step=step), periodic(63.0, step=step)
    assert below == pytest.approx(-0.626, rel=0.02)  # the original's values
    assert above == pytest.approx(0.148, rel=0.02)
    if step is None:  # at 1/threshold, nowhere else
        assert periodic(62.49) < -0.6 < 0.1 < periodic(62.51)


def fig2c(step: float | None) -> np.ndarray:
    rates, rng = np.linspace(1, 50, 10), np.random.RandomState(3)
    found = np.zeros((2, 20, 10))
    for n in range(20):
        for i, rate in enumerate(rates):
            pre, post = poisson(rate, 100.0, rng=rng)
            for j, p in enumerate((0.3, 0.5)):
                start = Averages(5.0, 5 * p)
                found[j, n, i] = impose(
                    pre, post, PROTOCOL, duration=100.0, averages=start, step=step
                ).change
    return found


def fig2d(step: float | None) -> np.ndarray:
    p = np.arange(0, 0.5, 0.05)
    found = np.zeros((2, 20, 10))
    for j, rate in enumerate((5.0, 10.0)):
        rng = np.random.RandomState(2)
        trains = iter(burst_poisson(rate, np.tile(np.repeat(p, 2), 20), 100.0, rng=rng))
        start = Averages(rate, 0.2 * rate)
        for n, i in np.ndindex(20, 10):
            pre, post = next(trains), next(trains)
            found[j, n, i] = impose(
                pre, post, PROTOCOL, duration=100.0, averages=start, step=step
            ).change
    return found


@pytest.mark.parametrize(("run", "name"), [(fig2c, "2c_poisson"), (fig2d, "2d_burstpoisson")])
def test_fig2cd_mean_and_spread_of_all_points(run, name):
    x, mean_1, sd_1, mean_2, sd_2 = table(f"fig{name}.csv")
    found = run(1e-3)
    assert found.mean(1) == pytest.approx(np.array([mean_1, mean_2]), abs=1e-10)
    assert found.std(1) == pytest.approx(np.array([sd_1, sd_2]), abs=1e-10)
    within = 1.0 if run is fig2c else 0.01  # Hz, probability
    exact = run(None).mean(1)
    for ours, published in zip(exact, (mean_1, mean_2), strict=True):
        assert abs(crossing(x, ours) - crossing(x, published)) < within


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_fig2c_crosses_where_the_burst_probability_is_its_average(p):
    """The closed form's crossing is exact, and within 1 Hz of the program's 20 realisations."""
    hazard = -np.log(1 - p) / (0.016 - 0.002)
    rate = hazard / (1 + 0.002 * hazard)
    at = codes.poisson_burst_probability(rate, dead_time=2e-3)
    assert at == pytest.approx(p)
    x, *columns = table("fig2c_poisson.csv")
    published = columns[0 if p == 0.3 else 2]
    assert abs(rate - crossing(x, published)) < 1.0


# --- the closed form of the mean


def test_expected_change_by_hand():
    """Rates that stay: eta tau_pre E_pre E (P - P0) tau_avg (1 - e^(-T/tau_avg))."""
    found = expected_change(
        PROTOCOL, pre_events=4.0, events=5.0, probability=0.4,
        averages=Averages(5.0, 1.0), duration=15.0,
    )  # fmt: skip
    assert found == pytest.approx(0.1 * 0.05 * 4 * 5 * 0.2 * 15 * (1 - np.exp(-1)))


@pytest.mark.parametrize("e0", [2.0, 4.999, 5.0 + 1e-5, 30.0])
def test_expected_change_is_the_integral(e0):
    """Of the averages' relaxation, by quadrature."""
    rule, T, E, P = PROTOCOL, 40.0, 5.0, 0.1
    start = Averages(e0, 0.6 * e0)
    t = np.linspace(0, T, 200_001)
    s = np.exp(-t / rule.tau_avg)
    running = (start.bursts * s + P * E * (1 - s)) / (e0 * s + E * (1 - s))
    area = np.trapezoid(E * (P - running), t)
    found = expected_change(
        rule, pre_events=3.0, events=E, probability=P, averages=start, duration=T
    )
    assert found == pytest.approx(0.1 * 0.05 * 3 * area, rel=1e-6)


@pytest.mark.parametrize("probability", [0.05, 0.45])
def test_expected_change_is_the_mean_of_many(probability):
    """200 pairs: the mean is within 4 standard errors and 5 % of the law."""
    start, n = Averages(5.0, 1.0), 200
    p = np.full(2 * n, probability)
    trains = burst_poisson(5.0, p, 60.0, rng=np.random.default_rng(0))
    pairs = list(zip(trains[::2], trains[1::2], strict=True))
    found = np.array(
        [impose(a, b, PROTOCOL, duration=60.0, averages=start).change for a, b in pairs]
    )
    cycle = 1 / 5 + 0.007 * probability  # s: an interval, and the burst's own
    law = expected_change(
        PROTOCOL, pre_events=1 / cycle, events=1 / cycle, probability=probability,
        averages=start, duration=60.0,
    )  # fmt: skip
    assert abs(found.mean() - law) < 4 * found.std() / np.sqrt(n) + 0.05 * abs(law)
    assert np.sign(law) == np.sign(probability - 0.2)


# --- trains


def test_poisson_trains():
    pre, post = poisson(40.0, 500.0, rng=np.random.default_rng(0))
    for train in (pre, post):
        assert len(train) / 500 == pytest.approx(40, rel=0.03)
        assert np.diff(train).min() > 2e-3
        assert train[-1] < 500
    assert not np.array_equal(pre[:10], post[:10])
    again = poisson(40.0, 500.0, rng=np.random.default_rng(0))
    assert np.array_equal(again[0], pre)
    (short,) = poisson(0.5, 2.0, rng=np.random.default_rng(0), trains=1)
    assert len(short) < 10


def test_burst_poisson_trains():
    p = [0.0, 0.3, 1.0]
    trains = burst_poisson(5.0, p, 400.0, rng=np.random.default_rng(0))
    for wanted, train in zip(p, trains, strict=True):
        code = codes.split(train)
        assert code.burst_probability == pytest.approx(wanted, abs=0.05)
        rate = 1 / (0.2 + 0.007 * wanted)
        assert len(code.events) / 400 == pytest.approx(rate, rel=0.05)
        assert len(code.events) + len(code.bursts) == len(train)
        assert train[-1] <= 400
    inside = np.diff(trains[2])[np.diff(trains[2]) < 0.016]
    assert 2e-3 < inside.min() < inside.max() < 12e-3


@pytest.mark.parametrize("limit", range(101, 113))
def test_burst_poisson_draws_more_where_a_block_runs_dry(limit):
    """Whatever the last number of a block was meant for."""

    class Few:
        def __init__(self):
            self.rng = np.random.default_rng(0)

        def random(self, n):
            return self.rng.random(min(n, limit))

    whole = burst_poisson(5.0, [0.5, 0.5], 100.0, rng=np.random.default_rng(0))
    parts = burst_poisson(5.0, [0.5, 0.5], 100.0, rng=Few())
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


# --- bad input

OK = {"duration": 2.0, "averages": HALF}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replace(PROTOCOL, eta=0.0), "eta above 0"),
        (lambda: replace(PROTOCOL, tau_pre=np.nan), "tau_pre above 0"),
        (lambda: BurstRule(0.1, 0.05, np.inf), "tau_avg above 0"),
        (lambda: replace(PROTOCOL, w_min=1.0, w_max=1.0), "w_min below w_max"),
        (lambda: replace(PROTOCOL, e_min=5.0, e_max=5.0), "e_min < e_max"),
        (lambda: replace(PROTOCOL, e_max=np.nan), "e_min < e_max"),
        (lambda: replace(PROTOCOL, low_rate="bursts"), "no low_rate 'bursts'"),
        (lambda: Averages(0.0, 0.0), "needs events"),
        (lambda: Averages(5.0, -1.0), "running rates"),
        (lambda: impose([0.2, 0.1], [0.1], PROTOCOL, **OK), "ascending"),
        (lambda: impose([0.1], [3.0], PROTOCOL, **OK), "before the end at 2.0 s"),
        (lambda: impose([0.1], [0.1], PROTOCOL, **{**OK, "duration": np.inf}), "before the end"),
        (lambda: impose([0.1], [0.1], STEERING, weight=2.0, **OK), "weight from 0.0 to 1.0"),
        (lambda: impose([0.1], [0.1], PROTOCOL, step=0.1, **OK), "below tau_pre"),
        (lambda: impose([0.1], [0.1], PROTOCOL, detector="eye", **OK), "no detector"),
        (lambda: periodic(0.0), "frequency, pairings and epochs"),
        (lambda: periodic(10.0, epochs=0), "frequency, pairings and epochs"),
        (lambda: poisson(500.0, 1.0, rng=np.random.default_rng(0)), "below 1/dead time"),
        (lambda: poisson(0.0, 1.0, rng=np.random.default_rng(0)), "rate above 0"),
        (lambda: poisson(5.0, 0.0, rng=np.random.default_rng(0)), "duration above 0"),
        (lambda: burst_poisson(50.0, [0.1], 1.0, rng=np.random.default_rng(0)), "refractory"),
        (lambda: burst_poisson(5.0, [1.1], 1.0, rng=np.random.default_rng(0)), "from 0 to 1"),
        (lambda: expected_change(PROTOCOL, pre_events=1, events=0, probability=0.1,
                                 averages=HALF, duration=1.0), "rates above 0"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
