"""lib.spikes.signed: by hand, against closed forms, limits, and what it says when misused."""

from __future__ import annotations

import numpy as np
import pytest

from lib.spikes import signed
from lib.spikes.signed import Cells


def net(seed: int = 0, hidden: int = 4) -> list[np.ndarray]:
    return signed.start(3, hidden, 2, rng=np.random.default_rng(seed))


def show(weights, labels, *, rates=None, feedback=None, cells=None, rate=(1e-3, 1e-3), seed=1):
    rates = np.full((len(labels), 3), 100.0) if rates is None else rates
    back = weights[1] if feedback is None else feedback
    rng = np.random.default_rng(seed)
    return signed.learn(weights, back, rates, labels, cells or Cells(), rate=rate, rng=rng)


@pytest.mark.parametrize("v", [-1.5, -0.2, 0.0, 0.4, 2.0])
def test_both_codes_have_the_mean_tanh_v_and_their_own_variance(v):
    chance = (np.arange(10_000) + 0.5) / 10_000  # every draw once
    t = np.tanh(v)
    for kind, variance in ((True, abs(t) - t * t), (False, 1 - t * t)):
        m = np.array([signed.message(v, kind, c) for c in chance])
        assert m.mean() == pytest.approx(t, abs=3e-4)
        assert m.var() == pytest.approx(variance, abs=3e-4)
        assert set(m) <= ({0.0, np.sign(v)} if kind else {-1.0, 1.0})


def test_waits_are_geometric():
    rng = np.random.default_rng(0)
    waits = np.array([signed.wait(0.2, rng) for _ in range(20_000)])
    assert waits.min() == 1
    assert waits.mean() == pytest.approx(5, rel=0.03)
    assert np.mean(waits == 1) == pytest.approx(0.2, abs=0.01)


def test_cells_that_get_nothing_fire_by_themselves():
    """Weights 0: 4 cells, 100 s, 10 a second; no two images alike."""
    weights = [np.zeros((4, 3)), np.zeros((2, 4))]
    found = signed.classify(
        weights, np.full((1000, 3), 100.0), Cells(), rng=np.random.default_rng(0)
    )
    assert found.events.sum() == pytest.approx(4000, rel=0.06)
    assert np.floor(found.answer).sum() == pytest.approx(2000, rel=0.08)
    assert found.bursts.sum() == 0


def test_a_strong_input_drives_every_step_it_comes():
    """Weight 2 is above the threshold: a hidden cell fires with its only input, at 400 Hz."""
    weights = [np.array([[2.0, 0, 0]]), np.zeros((2, 1))]
    rates = np.tile([400.0, 1e-6, 1e-6], (200, 1))
    cells = Cells(spontaneous=1e-9)
    found = signed.classify(weights, rates, cells, rng=np.random.default_rng(0))
    assert found.events.mean() == pytest.approx(40, rel=0.03)


def test_two_subthreshold_inputs_leak():
    """Weight 0.52: two inputs a step apart make 0.52 (0.9 + 1) = 0.988, and it takes three."""
    weights = [np.array([[0.52, 0, 0]]), np.zeros((2, 1))]
    quiet = Cells(spontaneous=1e-9)
    slow, fast = (
        signed.classify(
            weights, np.tile([hz, 1e-6, 1e-6], (300, 1)), quiet, rng=np.random.default_rng(0)
        ).events.mean()
        for hz in (20.0, 400.0)
    )
    assert slow < 0.2 and fast > 10


def test_no_teacher_no_message_no_learning():
    weights = net()
    before = [w.copy() for w in weights]
    found = show(weights, np.array([-1, -1]), rate=(1.0, 1.0))
    assert all(np.array_equal(a, b) for a, b in zip(weights, before, strict=True))
    assert not found.bursts.any()


def test_the_output_cell_is_taught_towards_its_target():
    """Class 0 wanted: its weights grow, those of class 1 (driven above its 20 Hz) shrink."""
    weights = [np.full((4, 3), 0.8), np.full((2, 4), 0.5)]
    show(weights, np.zeros(50, int), rate=(0.0, 1e-4))
    assert (weights[1][0] > 0.5).all() and (weights[1][1] < 0.5).all()


def test_hidden_weights_follow_the_feedback():
    """The same errors through +1 and -1: hidden cells are told the opposite."""
    change = []
    for sign in (1.0, -1.0):
        weights = [np.full((4, 3), 0.8), np.full((2, 4), 0.01)]
        back = sign * np.array([[1.0] * 4, [0.0] * 4])
        show(weights, np.zeros(50, int), feedback=back, rate=(1e-4, 0.0), cells=Cells(limit=1e3))
        change.append((weights[0] - 0.8).mean())
    assert change[0] > 1e-4 and change[1] < -1e-4


def test_silent_feedback_and_signed_bursts_teach_nothing_below():
    weights = net()
    before, cells = weights[0].copy(), Cells(limit=1e6)
    assert not show(weights, np.zeros(20, int), feedback=np.zeros((2, 4)), cells=cells).bursts.any()
    assert np.array_equal(weights[0], before)


def test_the_unsigned_code_bursts_at_half_of_all_events_without_an_error():
    cells = Cells(code="unsigned")
    found = show(net(), np.zeros(500, int), feedback=np.zeros((2, 4)), cells=cells, rate=(0, 0))
    assert found.bursts.sum() / found.events.sum() == pytest.approx(0.5, abs=0.05)


def test_the_restraint_holds_rates_down():
    def last(restraint):
        weights = [np.full((4, 3), 1.5), np.zeros((2, 4))]
        cells = Cells(restraint=restraint, limit=50.0)
        back = np.zeros((2, 4))
        rates = np.full((200, 3), 200.0)
        found = show(
            weights, np.zeros(200, int), rates=rates, feedback=back, cells=cells, rate=(1e-2, 0)
        )
        return found.events[-50:].mean()

    assert last(0.5) < 0.6 * last(1e-9)


def test_a_reset_dendrite_sends_less():
    """Strong feedback: after a burst the message is gone, so fewer bursts follow."""
    counts = []
    for resets in (True, False):
        weights = [np.full((4, 3), 1.2), np.full((2, 4), 0.01)]
        cells = Cells(resets=resets)
        counts.append(
            show(
                weights, np.zeros(100, int), feedback=np.full((2, 4), 3.0), cells=cells, rate=(0, 0)
            ).bursts.sum()
        )
    assert counts[0] < 0.6 * counts[1]


def test_the_same_seed_gives_the_same_net_and_learning_helps():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 300)
    rates = np.where(np.arange(3) == labels[:, None], 200.0, 20.0)
    ends = []
    for _ in range(2):
        weights = net(hidden=20)
        show(weights, labels, rates=rates, rate=(3e-3, 3e-3))
        found = signed.classify(weights, rates, Cells(), rng=np.random.default_rng(9))
        ends.append((weights[0].copy(), np.mean(found.answer.argmax(1) == labels)))
    assert np.array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] > 0.8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": "loud"}, "unknown code 'loud'"),
        ({"tau_soma": 0.0}, "tau_soma"),
        ({"high": -1}, "high"),
    ],
)
def test_bad_cells(change, words):
    with pytest.raises(ValueError, match=words):
        Cells(**change)


def test_bad_shapes_rates_and_labels():
    weights = net()
    with pytest.raises(ValueError, match="shapes do not fit"):
        show(weights, np.zeros(2, int), feedback=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="shapes do not fit"):
        show(weights, np.zeros(3, int), rates=np.full((2, 3), 50.0))
    for bad in (0.0, 1000.0):
        with pytest.raises(ValueError, match="rates above 0"):
            show(weights, np.zeros(2, int), rates=np.full((2, 3), bad))
    with pytest.raises(ValueError, match="labels below 2"):
        show(weights, np.array([0, 2]))
