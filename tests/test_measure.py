"""lib.measure: angles, signs, errors, intervals (by simulation), gradient checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import F64, build, tensor
from scipy import stats

from lib import measure, nets
from lib.nets import Dense, Net
from lib.rules import Backprop, Rule

CLASSES = torch.tensor([0, 1, 2, 1, 1, 0])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- angle


@pytest.mark.parametrize(
    ("a", "b", "degrees"),
    [
        ([1, 0], [5, 0], 0),
        ([1, 0], [0, 2], 90),
        ([1, 2], [-1, -2], 180),
        ([1, 0], [1, 1], 45),
        ([1, 0], [-1, 1], 135),
        ([1, 0], [np.sqrt(3), 1], 30),
    ],
)
def test_angle_by_hand(a, b, degrees):
    assert measure.angle(a, b) == pytest.approx(degrees, abs=1e-11)
    assert measure.angle(b, a) == measure.angle(a, b)


@pytest.mark.parametrize("radians", [1e-12, 1e-6, 1e-3])
def test_tiny_angles_keep_their_digits(radians):
    """arccos of a cosine would round 1e-6 rad to a few digits, and 1e-12 to 0."""
    a, b = [1.0, 0.0], [np.cos(radians), np.sin(radians)]
    assert np.radians(measure.angle(a, b)) == pytest.approx(radians, rel=1e-9)
    flat = np.pi - np.radians(measure.angle([-1.0, 0.0], b))
    assert flat == pytest.approx(radians, rel=1e-3, abs=1e-15)


def test_parallel_vectors_are_at_0_and_opposite_ones_at_180_never_nan():
    """For many of these the rounded cosine is above 1."""
    r = rng()
    vectors = r.normal(size=(200, 7))
    assert max(measure.angle(v, 3 * v) for v in vectors) < 1e-6
    assert min(measure.angle(v, -0.1 * v) for v in vectors) > 180 - 1e-6


def test_angle_knows_no_scale_and_no_shape():
    r = rng()
    a, b = r.normal(size=(3, 4)), r.normal(size=(3, 4))
    expected = np.degrees(np.arccos((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())))
    for scale in (1e-9, 1.0, 1e9):
        assert measure.angle(scale * a, b) == pytest.approx(expected, rel=1e-12)
    turned = torch.from_numpy(b).flatten().requires_grad_()
    assert measure.angle(a, turned) == pytest.approx(expected, rel=1e-12)
    assert measure.angle(a, -b) == pytest.approx(180 - expected, rel=1e-12)


def test_random_vectors_in_many_dimensions_are_nearly_orthogonal():
    """The angle's deviation is about 1/sqrt(10,000) rad = 0.57 degrees."""
    found = measure.angle(*rng().normal(size=(2, 10_000)))
    assert abs(found - 90) < 3


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([1, 2], [1, 2, 3], "two arrays of one size, found 2 and 3 numbers"),
        ([1, 2], [0, 0], r"not zero, found lengths 2\.2\d+ and 0: .* leave it out"),
        ([np.nan, 2], [1, 0], "found lengths nan and 1"),
        ([np.inf, 2], [1, 0], "found lengths inf and 1"),
    ],
)
def test_an_angle_that_is_not_defined_is_refused(a, b, words):
    with pytest.raises(ValueError, match=words):
        measure.angle(a, b)


def test_angles_goes_layer_by_layer():
    one, other = [np.array([1.0, 0]), np.array([[1.0, 1]])], [np.array([0, 2.0]), np.ones((1, 2))]
    assert measure.angles(one, other) == pytest.approx([90, 0], abs=1e-11)
    with pytest.raises(ValueError, match="longer"):
        measure.angles(one, [*other, np.ones(2)])


# --- sign agreement


def test_sign_agreement_by_hand():
    """Zeros do not count: of the four places left, three agree."""
    assert measure.sign_agreement([1, -2, 3, 0, 5, 0], [9, -1, -1, 7, 0.1, 0]) == 0.75


def test_sign_agreement_limits():
    a, b = rng().normal(size=(2, 10_000))
    assert measure.sign_agreement(a, 7 * a) == 1
    assert measure.sign_agreement(a, -a) == 0
    assert measure.sign_agreement(a, b) == pytest.approx(0.5, abs=0.02)
    assert measure.sign_agreement(a, b) == measure.sign_agreement(torch.from_numpy(b), a**3)


def test_sign_agreement_without_a_place_is_refused():
    with pytest.raises(ValueError, match="no place where both arrays differ from 0"):
        measure.sign_agreement([0, 1], [1, 0])
    with pytest.raises(ValueError, match="found 1 and 2 numbers"):
        measure.sign_agreement([1], [1, 0])


# --- errors


def test_nmse_by_hand():
    """First output: errors (1, 0), mean square 1/2, variance 1; second: (2, 2), 4, variance 4."""
    target = [[1.0, 2.0], [3.0, 6.0]]
    assert measure.nmse([[2.0, 4.0], [3.0, 8.0]], target) == (0.5 + 1.0) / 2


def test_nmse_limits():
    t = rng().normal(3, 2, size=(500, 4))
    assert measure.nmse(t, t) == 0
    assert measure.nmse(np.broadcast_to(t.mean(0), t.shape), t) == pytest.approx(1, rel=1e-12)
    p = t + rng(1).normal(size=t.shape)
    assert measure.nmse(5 * p - 1, 5 * t - 1) == pytest.approx(measure.nmse(p, t), rel=1e-12)
    assert measure.nmse(torch.from_numpy(p).requires_grad_(), torch.from_numpy(t)) == measure.nmse(
        p, t
    )
    assert measure.nmse(p[:, 0], t[:, 0]) == measure.nmse(p[:, :1], t[:, :1])


def test_nmse_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match=r"shaped like targets \(4, 1\), found \(4,\)"):
        measure.nmse(np.ones(4), np.arange(4.0).reshape(4, 1))
    with pytest.raises(ValueError, match="the target is constant"):
        measure.nmse(np.ones((4, 2)), np.ones((4, 2)))


def test_error_rate_by_hand():
    net = Net([Dense(torch.eye(3, dtype=F64), torch.zeros(3, dtype=F64), "softmax")])
    x = torch.tensor([[2.0, 1, 0], [0, 3, 1], [0, 1, 5], [9, 8, 7]], dtype=F64)
    assert measure.error_rate(net, x, torch.tensor([0, 1, 2, 0])) == 0
    assert measure.error_rate(net, x, torch.tensor([0, 1, 1, 2])) == 0.5
    assert measure.error_rate(net, x, torch.tensor([1, 2, 0, 1])) == 1


def test_error_rate_of_a_single_output_is_cut_at_one_half():
    net = Net([Dense(torch.eye(1, dtype=F64), torch.zeros(1, dtype=F64), "linear")])
    x = torch.tensor([[0.4], [0.6], [0.49], [2.0]], dtype=F64)
    y = torch.tensor([[0.0], [1.0], [1.0], [1.0]])
    assert measure.error_rate(net, x, y) == 0.25
    assert measure.error_rate(net, x, 1 - y) == 0.75


# --- intervals


def covered(n: int, repeats: int) -> tuple[float, float, np.ndarray]:
    """How often the interval, and the plain percentile one, hold the true mean; mean widths."""
    r, hits, widths = rng(2), np.zeros(2), np.zeros(3)
    for _ in range(repeats):
        v = r.normal(size=n)
        ours = measure.interval(v, rng=r)
        means = v[r.integers(0, n, size=(2000, n))].mean(1)
        plain = np.percentile(means, [2.5, 97.5])
        student = 2 * stats.t.ppf(0.975, n - 1) * v.std(ddof=1) / np.sqrt(n)
        hits += [ours.low <= 0 <= ours.high, plain[0] <= 0 <= plain[1]]
        widths += [ours.high - ours.low, plain[1] - plain[0], student]
    return *(hits / repeats), widths / repeats


def test_the_interval_of_five_values_covers_as_its_docstring_says():
    """About 92 of 100 against 84; the deviation over 400 repeats is 1.3 and 1.8 points."""
    ours, plain, _ = covered(5, 400)
    assert 0.90 < ours < 0.97
    assert plain < 0.88


def test_the_interval_of_twenty_values_covers_and_is_as_wide_as_students():
    """The width is the sharper test: the plain interval is 9 % too narrow."""
    ours, _, (width, plain, student) = covered(20, 200)
    assert 0.92 < ours < 0.985
    assert width / student == pytest.approx(1, abs=0.03)
    assert plain / student < 0.94


def test_the_interval_of_three_values_is_their_range():
    found = measure.interval([1.0, 2.0, 6.0], rng=rng())
    assert (found.mean, found.low, found.high, found.n) == (3.0, 1.0, 6.0, 3)


def test_the_interval_holds_its_mean_moves_with_the_values_and_is_equal_for_equal_seeds():
    v = rng().normal(size=12)
    one = measure.interval(v, rng=rng(1))
    assert one.mean == pytest.approx(v.mean(), rel=1e-15) and one.low < one.mean < one.high
    assert measure.interval(torch.from_numpy(v), rng=rng(1)) == one
    moved = measure.interval(100 * v + 7, rng=rng(1))
    assert (moved.low, moved.high) == pytest.approx((100 * one.low + 7, 100 * one.high + 7))
    other = measure.interval(v, rng=rng(2))
    assert other != one and other.low == pytest.approx(one.low, abs=0.05)


def test_a_higher_level_is_wider():
    v = rng().normal(size=20)
    widths = []
    for level in (0.5, 0.8, 0.95, 0.99):
        found = measure.interval(v, rng=rng(1), level=level)
        widths.append(found.high - found.low)
        student = 2 * stats.t.ppf(0.5 + level / 2, 19) * v.std(ddof=1) / np.sqrt(20)
        assert widths[-1] == pytest.approx(student, rel=0.1)
    assert widths == sorted(widths) and widths[-1] > 1.2 * widths[-2]


def test_equal_values_have_an_interval_of_one_point():
    assert measure.interval([0.25] * 5, rng=rng()) == measure.Interval(0.25, 0.25, 0.25, 5)


def test_an_interval_reads_well():
    assert str(measure.Interval(0.12345, 0.1, 0.15, 5)) == "0.123 [0.1, 0.15], n = 5"


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ([1.0, 2.0], {}, "at least 3 finite values, found 2"),
        ([1.0, 2.0, np.nan], {}, r"at least 3 finite values, found 3: \[ ?1\. +2\. +nan\]"),
        ([1.0, 2.0, np.inf], {}, "at least 3 finite values"),
        ([1.0, 2.0, 3.0], {"level": 95}, "a level between 0 and 1, such as 0.95, found 95"),
    ],
)
def test_an_interval_of_nothing_is_refused(values, options, words):
    with pytest.raises(ValueError, match=words):
        measure.interval(values, rng=rng(), **options)


# --- gradients


def test_gradients_are_copies_of_every_layers():
    net, x = build("conv", "relu", "softmax")
    Backprop(net)(net, x, CLASSES)
    found = measure.gradients(net)
    assert [g.shape for g in found] == [tuple(layer.weight.shape) for layer in net.layers]
    keep = [g.copy() for g in found]
    net.layers[0].weight.grad.zero_()
    assert all(np.array_equal(a, b) for a, b in zip(found, keep, strict=True))


def test_missing_gradients_are_named():
    net, x = build("dense", "relu", "softmax")
    with pytest.raises(ValueError, match=r"layer 0 has no gradient yet: call rule\(net, x, y\)"):
        measure.gradients(net)
    Backprop(net)(net, x, CLASSES)
    net.layers[2].weight.grad = None
    with pytest.raises(ValueError, match="layer 2 has no gradient"):
        measure.gradients(net)


# --- finite differences


def one_relu(weight: float) -> Net:
    """y = relu(w . 1): its loss (t = -1) is (y + 1)^2 / 2, kinked at w = 0."""
    w = torch.tensor([[weight]], dtype=F64)
    return Net([Dense(w, torch.zeros(1, dtype=F64), "relu")])


@pytest.mark.parametrize(
    ("weight", "slope"), [(1e-3, 1.001), (-1e-3, 0.0), (2.0, 3.0), (0.5, 1.5), (-2.0, 0.0)]
)
def test_finite_differences_on_both_sides_of_a_kink(weight, slope):
    """dE/dw = y + 1 on the right, 0 on the left; no step reaches over the kink."""
    net, x, y = one_relu(weight), torch.ones(1, 1, dtype=F64), -torch.ones(1, 1, dtype=F64)
    numeric = measure.finite_difference(net, x, y, places=[(0, 0)], eps=1e-5, loss="mse")
    assert numeric.tolist() == pytest.approx([slope], abs=1e-9)
    Backprop(net)(net, x, y)
    assert measure.gradients(net)[0].item() == pytest.approx(slope, abs=1e-12)


def test_at_the_kink_finite_differences_give_the_mean_of_both_sides():
    """Slopes 1 and 0: a half, to first order in eps; Backprop says 0 there."""
    net, x, y = one_relu(0.0), torch.ones(1, 1, dtype=F64), -torch.ones(1, 1, dtype=F64)
    numeric = measure.finite_difference(net, x, y, places=[(0, 0)], eps=1e-6, loss="mse")
    assert numeric.tolist() == pytest.approx([0.5], abs=1e-6)
    Backprop(net)(net, x, y)
    assert measure.gradients(net)[0].item() == 0


def test_finite_differences_are_exact_for_a_parabola_with_any_step():
    """E = (3 w - 1)^2 / 2 at w = 2: dE/dw = 3 . 5."""
    net = Net([Dense(torch.tensor([[2.0]], dtype=F64), torch.zeros(1, dtype=F64), "linear")])
    x, y = torch.full((1, 1), 3.0, dtype=F64), torch.ones(1, 1, dtype=F64)
    for eps in (1.0, 1e-3):
        numeric = measure.finite_difference(net, x, y, places=[(0, 0)], eps=eps, loss="mse")
        assert numeric.tolist() == pytest.approx([15.0], rel=1e-9)


def test_finite_differences_put_every_weight_back_bit_for_bit():
    net, x = build("conv", "relu", "softmax")
    before = nets.fingerprint(net)
    places = [(i, j) for i, layer in enumerate(net.layers) for j in range(layer.weight.numel())]
    measure.finite_difference(net, x, CLASSES, places=places, eps=0.1, loss="cross_entropy")
    assert nets.fingerprint(net) == before
    with pytest.raises(ValueError, match="expected a batch"):
        measure.finite_difference(net, x[:, :3], CLASSES, places=places, eps=0.1, loss="mse")
    assert nets.fingerprint(net) == before


# --- parity


class Times(Rule):
    """Backprop with every gradient multiplied."""

    def __init__(self, net: Net, factor: float) -> None:
        super().__init__(net)
        self.factor = factor

    def teach(self, net, trace, y):
        return self.factor * super().teach(net, trace, y)


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
@pytest.mark.parametrize("output", ["softmax", "linear", "tanh"])
def test_backprop_has_parity(kind, output):
    net, x = build(kind, "relu", output)
    before = nets.fingerprint(net)
    assert measure.parity(net, Backprop(net), x, CLASSES, rng=rng()) < 1e-6
    assert nets.fingerprint(net) == before


def test_backprop_has_parity_in_float32_too():
    net, x = build("dense", "relu", "softmax")
    net.float()
    assert measure.parity(net, Backprop(net), x.float(), CLASSES, rng=rng()) < 1e-5
    numbers = tensor(rng(), 6, 3).float()
    rule = Backprop(net, loss="mse")
    assert measure.parity(net, rule, x.float(), numbers, rng=rng()) < 1e-5


@pytest.mark.parametrize(
    ("fault", "factor", "says"),
    [("a lost 1/2", 2.0, 1.0), ("a 1/2 too many", 0.5, 0.5), ("a sum for a mean", 6.0, 5.0)],
)
def test_parity_tells_the_factor(fault, factor, says):
    net, x = build("dense", "relu", "softmax")
    assert measure.parity(net, Times(net, factor), x, CLASSES, rng=rng()) == pytest.approx(
        says, rel=1e-5
    ), fault


def test_parity_sees_one_wrong_weight_among_those_it_looks_at():
    class Wrong(Backprop):
        def forward(self, net, x, y):
            loss = super().forward(net, x, y)
            grad = net.layers[-1].weight.grad
            grad[1, 2] += 0.1 * grad.abs().max()
            return loss

    net, x = build("dense", "relu", "softmax")
    found = measure.parity(net, Wrong(net), x, CLASSES, rng=rng())
    assert found == pytest.approx(0.1, rel=1e-5)


def test_parity_of_a_silent_output_is_refused():
    net, x = build("dense", "relu", "relu")
    net.layers[-1].bias.data -= 1000
    with pytest.raises(ValueError, match="the output layer's gradient is 0 here"):
        measure.parity(net, Backprop(net), x, CLASSES, rng=rng())
