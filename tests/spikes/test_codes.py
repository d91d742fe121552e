"""lib.spikes.codes: events and bursts by hand, two detectors, rates, averages, closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.spikes import codes
from lib.spikes.codes import BURST, EVENT, LATER

# one event; a burst of two; a burst of four; one event (s)
BY_HAND = np.array([0.010, 0.100, 0.110, 0.200, 0.205, 0.210, 0.225, 0.300])
SAID = [EVENT, EVENT, BURST, EVENT, BURST, LATER, LATER, EVENT]
INTERVALS = st.lists(st.floats(1e-4, 0.1), max_size=40)
PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)


@pytest.mark.parametrize("detector", codes.DETECTORS)
def test_by_hand(detector):
    assert codes.labels(BY_HAND, detector=detector).tolist() == SAID
    code = codes.split(BY_HAND, detector=detector)
    assert code.events.tolist() == [0.010, 0.100, 0.200, 0.300]
    assert code.bursts.tolist() == [0.110, 0.205]
    assert code.burst_probability == 0.5


@pytest.mark.parametrize("detector", codes.DETECTORS)
def test_nothing_and_one(detector):
    empty = codes.split(np.array([]), detector=detector)
    assert len(empty.events) == len(empty.bursts) == 0
    assert np.isnan(empty.burst_probability)
    assert codes.split([0.0], detector=detector).burst_probability == 0


def test_threshold_is_the_longest_interval_inside_a_burst():
    assert codes.labels([0.0, 0.0159]).tolist() == [EVENT, BURST]
    assert codes.labels([0.0, 0.0161]).tolist() == [EVENT, EVENT]
    assert codes.labels([0.0, 0.016]).tolist() == [EVENT, BURST]
    assert codes.labels([0.0, 0.0161], threshold=0.02).tolist() == [EVENT, BURST]


@pytest.mark.parametrize("d", [0.002, 0.005, 0.015])
def test_trace_detector_waits_longer_after_a_burst(d):
    """16 (1 + ln(1 + e^(-d/16))) ms after the second spike, on both sides of the border."""
    tau = 0.016
    wait = tau * (1 + np.log(1 + np.exp(-d / tau)))
    for later, said in ((wait - 1e-5, LATER), (wait + 1e-5, EVENT)):
        assert codes.labels([0.0, d, d + later], detector="trace")[-1] == said
        assert codes.labels([0.0, d, d + later])[-1] == EVENT
    if d in (0.005, 0.015):
        assert wait == pytest.approx({0.005: 0.0248, 0.015: 0.0213}[d], abs=5e-5)


@PROPERTY
@given(INTERVALS)
def test_every_burst_follows_an_event_and_has_one_label(intervals):
    times = np.cumsum(intervals)
    for detector in codes.DETECTORS:
        found = codes.labels(times, detector=detector)
        assert np.isin(found, [EVENT, BURST, LATER]).all()
        if len(found):
            assert found[0] == EVENT
        assert (found[:-1][found[1:] == BURST] == EVENT).all()
        assert (found[:-1][found[1:] == LATER] != EVENT).all()


@PROPERTY
@given(INTERVALS)
def test_trace_detector_is_never_quicker_to_see_an_event(intervals):
    times = np.cumsum(intervals)
    isi, trace = (codes.labels(times, detector=d) for d in codes.DETECTORS)
    assert (isi[trace == EVENT] == EVENT).all()


@pytest.mark.parametrize("detector", codes.DETECTORS)
def test_many_neurons_are_one_by_one(detector):
    rng = np.random.default_rng(0)
    who, t = rng.integers(3, size=300), rng.uniform(0, 5, size=300)  # in no order
    together = codes.labels(t, neurons=who, detector=detector)
    for neuron in range(3):
        mine = np.flatnonzero(who == neuron)
        mine = mine[np.argsort(t[mine])]
        assert together[mine].tolist() == codes.labels(t[mine], detector=detector).tolist()
    code = codes.split(t, neurons=who, detector=detector)
    assert len(code.events) == (together == EVENT).sum()
    assert (np.diff(code.events) >= 0).all()


def test_binned_by_hand():
    assert codes.binned([0.0, 0.1, 0.5, 0.99], 1.0, 0.5).tolist() == [4, 4]
    assert codes.binned([0.5], 1.0, 0.5).tolist() == [0, 2]  # a bin begins at its left end
    assert codes.binned([0.0, 0.1], 1.0, 0.5, neurons=2).tolist() == [2, 0]
    with pytest.raises(ValueError, match="whole bins"):
        codes.binned([0.0], 1.0, 0.3)
    with pytest.raises(ValueError, match="at least one neuron"):
        codes.binned([0.0], 1.0, 0.5, neurons=0)


def test_moving_average_by_hand():
    e = np.exp(-1.0)
    found = codes.moving_average([1.0, 2.0], [0.0, 1.0, 1.5, 2.0, 3.0], 1.0, start=3.0)
    expected = [3, 3 * e, 3 * e**1.5 + e**0.5, 3 * e**2 + e, 3 * e**3 + e**2 + e]
    assert found == pytest.approx(expected)
    assert codes.moving_average([], [2.0], 1.0, start=1.0) == pytest.approx([e**2])


def test_moving_average_of_a_steady_train_is_its_rate():
    t = np.arange(0, 20, 0.01)
    at = np.linspace(15, 15.01, 1000, endpoint=False)
    assert codes.moving_average(t, at, 1.0).mean() == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize("dead", [0.0, 0.002])
def test_poisson_closed_forms(dead):
    """A million intervals: event rate and burst probability within five standard errors."""
    rate, n = 25.0, 1_000_000
    rng = np.random.default_rng(1)
    t = np.cumsum(dead + rng.exponential(1 / rate - dead, n))
    code = codes.split(t)
    p = codes.poisson_burst_probability(rate, dead_time=dead)
    assert abs(code.burst_probability - p) < 5 * np.sqrt(p * (1 - p) / len(code.events))
    expected = codes.poisson_event_rate(rate, dead_time=dead)
    assert len(code.events) / t[-1] == pytest.approx(expected, rel=5e-3)


def test_poisson_closed_forms_by_hand():
    assert codes.poisson_burst_probability(0.0) == 0
    assert codes.poisson_burst_probability(np.log(2) / 0.016) == pytest.approx(0.5)
    assert codes.poisson_event_rate(62.5) == pytest.approx(62.5 / np.e)  # its largest value
    assert codes.poisson_event_rate(62.5) > codes.poisson_event_rate(np.array([60, 65])).max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: codes.split([0.2, 0.1]), "ascending"),
        (lambda: codes.split([np.nan]), "finite"),
        (lambda: codes.split([-0.1]), "0 s or later"),
        (lambda: codes.split([[0.1]]), "shape"),
        (lambda: codes.split([0.1], threshold=0), "threshold above 0"),
        (lambda: codes.split([0.1], threshold=np.nan), "threshold above 0"),
        (lambda: codes.split([0.1], detector="eye"), "no detector 'eye'"),
        (lambda: codes.split([0.1], neurons=[1, 2]), "a neuron for each"),
        (lambda: codes.moving_average([0.1], [1.0], 0.0), "time constant above 0"),
        (lambda: codes.poisson_event_rate(-1.0), "rates of 0 Hz or more"),
        (lambda: codes.poisson_event_rate(600.0, dead_time=2e-3), "below 1/dead time"),
        (lambda: codes.poisson_burst_probability(5.0, dead_time=0.02), "dead time from 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
