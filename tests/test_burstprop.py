"""lib.rules.burstprop: by hand, the described code in NumPy, two limits, the laws, refusals.

``Described`` is written from the description of the released code alone: NumPy, one example and
one phase at a time, convolutions as loops. It shares nothing with the library.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers import F64, autograd, build, grads, tensor

from lib import data, measure, nets, rules, train
from lib.nets import Dense, Net
from lib.rules import Backprop, Burstprop, released_sgd

CLASSES = torch.tensor([0, 1, 2, 1, 1, 0])
ONE_HOT = torch.eye(3, dtype=F64)[CLASSES]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sigma(a):
    return 1 / (1 + np.exp(-a))


def close(one, other, tol=1e-12):
    assert max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) <= tol


def t(*rows):
    return torch.tensor(rows, dtype=F64)


def run(rule, net, x, y=CLASSES):
    rule(net, x, y)
    return grads(net)


def everything(net, rule) -> dict[str, np.ndarray]:
    named = {**dict(net.named_parameters()), **dict(rule.state_dict())}
    return {name: p.detach().numpy().copy() for name, p in named.items()}


# --- the description, transcribed


class Described:
    """State and one update of the released mean-field code, as described; lists by layer."""

    def __init__(self, net: Net, rule: Burstprop, **options: float) -> None:
        self.w = [layer.weight.detach().numpy().copy() for layer in net.layers]
        self.c = [layer.bias.detach().numpy().copy() for layer in net.layers]
        self.stride = [getattr(layer, "stride", 0) for layer in net.layers]
        self.shape = [getattr(layer, "in_shape", None) for layer in net.layers]
        state = rule.state_dict()
        self.y = [None if i == 0 else state[f"Y{i}"].numpy().copy() for i in range(len(self.w))]
        self.z = [state[f"Z{i}"].numpy().copy() if f"Z{i}" in state else None for i in self.index()]
        self.learned = "Y1" in dict(rule.named_parameters())
        self.v = [np.zeros_like(w) for w in self.w]
        self.vc = [np.zeros_like(c) for c in self.c]
        self.vy = [np.zeros_like(w) for w in self.w]
        self.o = {"p0": 0.2, "conv_h": True, "still_h": False, "sign": 1.0, "beta": 1.0, **options}

    def index(self):
        return range(len(self.w))

    def patches(self, i):
        """Where the kernel of layer i lies: (row, column) out, (rows, columns) in."""
        k, s = self.w[i].shape[-1], self.stride[i]
        _, h, w = self.shape[i]
        for r in range((h - k) // s + 1):
            for q in range((w - k) // s + 1):
                yield r, q, slice(r * s, r * s + k), slice(q * s, q * s + k)

    def up(self, i, e):
        if not self.stride[i]:
            return self.w[i] @ e.ravel() + self.c[i]
        where = list(self.patches(i))
        out = np.zeros((len(self.w[i]), where[-1][0] + 1, where[-1][1] + 1))
        for r, q, rows, columns in where:
            seen = e.reshape(self.shape[i])[:, rows, columns]
            out[:, r, q] = (self.w[i] * seen).sum((1, 2, 3)) + self.c[i]
        return out

    def down(self, i, b):
        """b @ Y."""
        if not self.stride[i]:
            return b.ravel() @ self.y[i]
        out = np.zeros(self.shape[i])
        for r, q, rows, columns in self.patches(i):
            out[:, rows, columns] += np.tensordot(b[:, r, q], self.y[i], 1)
        return out

    def outer(self, i, d, e):
        if not self.stride[i]:
            return np.outer(d, e.ravel()), d
        out = np.zeros_like(self.w[i])
        for r, q, rows, columns in self.patches(i):
            seen = e.reshape(self.shape[i])[:, rows, columns]
            out += d[:, r, q][:, None, None, None] * seen
        return out, d.sum((1, 2))

    def hidden(self, i, e, f, rest):
        """b of hidden layer i for feedback f, with the recurrent input of feedback ``rest``."""
        h = 1 - e if self.o["conv_h"] or not self.stride[i] else 1.0
        u, pre = f * h, None
        if self.z[i] is not None:
            pre = sigma(self.o["beta"] * rest * (h if self.o["still_h"] else 1.0)) * e
            u = u - self.z[i] @ pre
        p = sigma(self.o["beta"] * u)
        return u, pre, p, p * e

    def gradients(self, xs, ts):
        """Sums over the batch: of delta e^T, of delta, and of u b_pre^T."""
        g = [np.zeros_like(w) for w in self.w]
        gc = [np.zeros_like(c) for c in self.c]
        gz = [None if z is None else np.zeros_like(z) for z in self.z]
        for x, target in zip(xs, ts, strict=True):
            e = [x]
            for i in self.index():
                e.append(sigma(self.up(i, e[-1])))
            out = e[-1]
            b = self.o["p0"] * out
            b_t = self.o["p0"] * ((target - out) * (1 - out) + 1) * out
            for i in reversed(self.index()):
                dw, dc = self.outer(i, -(b_t - b), e[i])
                g[i] += dw
                gc[i] += dc
                if i:
                    f = self.down(i, b).reshape(e[i].shape)
                    f_t = self.down(i, b_t).reshape(e[i].shape)
                    u, pre, _, b = self.hidden(i - 1, e[i], f, f)
                    _, _, _, b_t = self.hidden(i - 1, e[i], f_t, f)
                    if pre is not None:
                        gz[i - 1] += np.outer(u, pre)
        return g, gc, gz

    def update(self, xs, ts, *, lr, output_lr, inner_lr, momentum, wd):
        g, gc, gz = self.gradients(xs, ts)
        for i in self.index():
            rate = output_lr if i == len(self.w) - 1 else lr
            self.v[i] = -rate * g[i] + momentum * self.v[i]
            self.vc[i] = -rate * gc[i] + momentum * self.vc[i]
            self.w[i] = self.w[i] + self.v[i] - wd * self.w[i]
            self.c[i] = self.c[i] + self.vc[i]
            if i and self.learned:
                self.vy[i] = -rate * g[i] + momentum * self.vy[i]
                self.y[i] = self.y[i] + self.vy[i] - wd * self.y[i]
            if self.z[i] is not None:
                self.z[i] = self.z[i] + self.o["sign"] * inner_lr * gz[i]

    def state(self) -> dict[str, np.ndarray]:
        out = {}
        for i in self.index():
            out |= {f"layers.{i}.weight": self.w[i], f"layers.{i}.bias": self.c[i]}
            out |= {f"Y{i}": self.y[i]} if i else {}
            out |= {} if self.z[i] is None else {f"Z{i}": self.z[i]}
        return out


def setting(kind, *, seed=0, **options):
    """A net with biases, a rule as released, a batch."""
    net, x = build(kind, "sigmoid", "sigmoid", seed=seed)
    options = {"feedback": "kolen-pollack", "units": "released", "feedback_std": 1.0, **options}
    return net, Burstprop(net, rng=rng(seed + 1), **options), x


SWITCHES = [
    {},
    {"conv_h": False},
    {"still_h": True},
    {"p0": 0.35},
    {"beta": 2.5},
    {"printed_sign": True},
    {"feedback": "fixed"},
    {"recurrent": False},
]


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("switch", SWITCHES, ids=lambda s: str(*s) if s else "released")
def test_three_steps_equal_the_description(kind, switch):
    """W, c, Y and Z after each of three updates: rates, momentum and decay as in the code."""
    net, rule, x = setting(kind, **switch)
    code = Described(net, rule, sign=-1.0 if "printed_sign" in switch else 1.0, **switch)
    optimizer = released_sgd(
        net, rule, lr=0.5, output_lr=0.2, inner_lr=0.01, momentum=0.8, decay=1e-3
    )
    for step in range(3):
        xs = x + step
        rule(net, xs, CLASSES.roll(step))
        optimizer.step()
        code.update(
            xs.numpy(),
            ONE_HOT.roll(step, 0).numpy(),
            lr=0.5,
            output_lr=0.2,
            inner_lr=0.01,
            momentum=0.8,
            wd=1e-3,
        )
        found, expected = everything(net, rule), code.state()
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-12)
    zs = [] if "recurrent" in switch else ["Z0", "Z1"] if kind == "dense" else ["Z2"]
    assert [name for name in expected if name[0] == "Z"] == zs


def test_float32_is_the_description_to_1e_6():
    """A step of the released rates from the same float32 weights."""
    net, _, x = setting("dense")
    net.float()
    rule = Burstprop(net, feedback="kolen-pollack", units="released", feedback_std=1, rng=rng(1))
    code = Described(copy.deepcopy(net).double(), copy.deepcopy(rule).double())
    rates = {"lr": 0.1, "output_lr": 0.01, "inner_lr": 1e-4, "momentum": 0.8}
    optimizer = released_sgd(net, rule, decay=1e-6, **rates)
    rule(net, x.float(), CLASSES)
    optimizer.step()
    code.update(x.float().double().numpy(), ONE_HOT.numpy(), wd=1e-6, **rates)
    for name, value in everything(net, rule).items():
        np.testing.assert_allclose(value, code.state()[name], rtol=0, atol=1e-6)


# --- by hand


def chain(beta=1.0, **options):
    """x = 1: e = sigma(0) = 1/2 below and on top; Y = 4, p0 = 0.2, t = 1.

    On top b = 0.1 and, as p = 0.2 (1 + 1/2 . 1/2) = 0.25, with the teacher 0.125. Below f = 0.4
    and 0.5, times 1 - e: u = 0.2 and 0.25.
    """
    net = Net([Dense(t([0.0]), t(0.0), "sigmoid"), Dense(t([0.0]), t(0.0), "sigmoid")])
    options = {"feedback": "kolen-pollack", "feedback_std": 1.0, **options}
    rule = Burstprop(net, beta=beta, rng=rng(), **options)
    rule.Y1.data[:] = 4.0
    return net, rule


def test_without_recurrent_input_by_hand():
    net, rule = chain(recurrent=False, units="released")
    rule(net, t([1.0]), t([1.0]))
    low, high = sigma(0.2) / 2, sigma(0.25) / 2
    assert [g.item() for g in grads(net)] == pytest.approx([low - high] * 2 + [-0.0125, -0.025])
    assert rule.Y1.grad.item() == pytest.approx(-0.0125)
    one, two = rule.seen
    assert two.p.flatten().tolist() == pytest.approx([0.2, 0.25])
    assert two.b.flatten().tolist() == pytest.approx([0.1, 0.125])
    assert one.p.flatten().tolist() == pytest.approx([sigma(0.2), sigma(0.25)])
    assert one.b.flatten().tolist() == pytest.approx([low, high])
    assert one.u.item() == pytest.approx(0.2) and one.e.item() == 0.5
    assert one.still is None and two.u is None and two.still is None


@pytest.mark.parametrize("still_h", [False, True])
@pytest.mark.parametrize("printed", [False, True])
def test_recurrent_input_by_hand(still_h, printed):
    """Z = 1: s = sigma(0.4) / 2, or sigma(0.2) / 2 with h; u = 0.2 - s, taught 0.25 - s."""
    net, rule = chain(units="released", still_h=still_h, printed_sign=printed)
    rule.Z0.data[:] = 1.0
    rule(net, t([1.0]), t([1.0]))
    s = sigma(0.2 if still_h else 0.4) / 2
    expected = (sigma(0.2 - s) - sigma(0.25 - s)) / 2
    assert net.layers[0].weight.grad.item() == pytest.approx(expected, rel=1e-12)
    assert rule.seen[0].still.item() == pytest.approx(s)
    assert rule.Z0.grad.item() == pytest.approx((1 if printed else -1) * (0.2 - s) * s, rel=1e-12)


def test_units_and_slope_by_hand():
    """Backprop's units: 1 / p0 on top, 1 / (p0 beta / 4) below, the mean of the batch, not the sum.

    Z's: the mean times its rate.
    """
    net, rule = chain(beta=3.0, recurrent_rate=0.5)
    rule.Z0.data[:] = 1.0
    rule(net, t([1.0], [1.0]), t([1.0], [1.0]))
    s = sigma(3 * 0.4) / 2
    delta = (sigma(3 * (0.2 - s)) - sigma(3 * (0.25 - s))) / 2
    expected = [delta / (0.2 * 0.75)] * 2 + [-0.0625, -0.125]
    assert [g.item() for g in grads(net)] == pytest.approx(expected, rel=1e-12)
    assert rule.Y1.grad.item() == pytest.approx(-0.0625)
    assert rule.Z0.grad.item() == pytest.approx(-0.5 * (0.2 - s) * s, rel=1e-12)


def test_relu_units_have_h_1_over_e_and_silent_ones_hear_nothing():
    """e = (2, 0), Y b = (0.6, 0.6): u = 0.3 and, taught, 0.6 . 1.25 / 2; the silent unit: 0."""
    net = Net([Dense(t([2.0], [-1.0]), t(0.0, 0.0), "relu"), Dense(t([0, 0.0]), t(0), "sigmoid")])
    rule = Burstprop(net, feedback="fixed", units="released", feedback_std=1, rng=rng())
    rule.Y1[:] = 6.0
    rule(net, t([1.0]), t([1.0]))
    assert rule.seen[0].u.flatten().tolist() == pytest.approx([0.3, 0.0])
    expected = [2 * (sigma(0.3) - sigma(0.375)), 0.0]
    assert net.layers[0].bias.grad.tolist() == pytest.approx(expected)
    assert list(rule.parameters()) == []  # no recurrent input for relu, and Y is a buffer


# --- limits


def scaled_error(net, x, y, **options):
    """Relative distance from Backprop's gradient, layer by layer, with Y = W."""
    loss = options.pop("loss", None)
    exact = autograd(net, x, y, loss or "mse")[::2]
    rule = Burstprop(net, feedback="symmetric", rng=rng(5), loss=loss, **options)
    found = run(rule, net, x, y)[::2]
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("recurrent", [True, False])
def test_linear_and_aligned_it_is_backprop_to_second_order_in_beta(kind, recurrent):
    """Halving beta quarters the relative error; the output layer is exact at any beta."""
    net, x = build(kind, "sigmoid", "sigmoid")
    for layer in net.layers:
        layer.weight.data *= 2
    errors = [scaled_error(net, x, CLASSES, beta=b, recurrent=recurrent) for b in (0.2, 0.1, 0.05)]
    assert all(row[-1] < 1e-14 for row in errors)
    for one, half, quarter in list(zip(*errors, strict=True))[:-1]:
        assert 1e-5 < one < 0.05
        assert one / half == pytest.approx(4, rel=0.05)
        assert half / quarter == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize(
    ("activation", "output", "loss"),
    [
        ("sigmoid", "softmax", "cross_entropy"),
        ("sigmoid", "sigmoid", "cross_entropy"),
        ("relu", "sigmoid", "mse"),
        ("relu", "softmax", "cross_entropy"),
    ],
)
def test_the_same_limit_for_other_units_and_losses(activation, output, loss):
    net, x = build("dense", activation, output)
    net.layers[0].bias.data += 1.0  # relu units well away from e = 0, where h = 1/e is large
    net.layers[1].bias.data += 1.0
    errors = [scaled_error(net, x, CLASSES, beta=b, loss=loss) for b in (0.01, 0.005)]
    assert errors[0][-1] < 1e-14 and max(errors[0]) < 0.05
    assert [a / b for a, b in zip(*errors, strict=True)][:-1] == pytest.approx([4, 4], rel=0.1)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_small_errors_are_multiplied_by_p_1_minus_p_at_every_hop(kind):
    """delta_l = 4 p (1 - p) f' (Y^T delta_{l+1}), up to a part that halves with the error."""
    net, x = build(kind, "sigmoid", "sigmoid")
    rule = Burstprop(net, feedback_std=1.0, rng=rng(2))
    out, push = net(x).detach(), tensor(rng(3), 6, 3)
    trace, errors = net.trace(x), []
    for size in (1e-2, 5e-3):
        rule(net, x, out + size * push)
        delta = rule.teach(net, trace, out + size * push)
        found = rule.credit(net, trace, delta)
        row = []
        for index in reversed(range(1, len(net.layers))):
            layer, e, p = net.layers[index], trace.values[index], rule.seen[index - 1].p[0]
            delta = layer.transpose(delta, rule.feedback(net, index)).reshape(e.shape)
            delta = delta * 4 * p * (1 - p) * e * (1 - e)
            row.append(float(((found[index - 1] - delta).norm() / delta.norm()).detach()))
        errors.append(row)
    assert max(errors[0]) < 0.01
    for one, half in zip(*errors, strict=True):
        assert one / half == pytest.approx(2, rel=0.02)


def test_one_hop_shrinks_by_p_1_minus_p_so_silenced_dendrites_make_it_backprop():
    """Z s = u for one example makes p = 1/2: small errors then give Backprop's gradient itself."""
    net, x = build("dense", "sigmoid", "sigmoid", n=1)
    rule = Burstprop(net, feedback="symmetric", rng=rng())
    y = net(x).detach() + 1e-6
    rule(net, x, y)
    for index in (1, 0):  # from above: what a layer sends depends on its own Z
        rule(net, x, y)
        seen, z = rule.seen[index], rule.get_parameter(f"Z{index}")
        z.data += seen.u.T @ seen.still / seen.still.square().sum()
    found = run(rule, net, x, y)
    assert all(layer.p[0].sub(0.5).abs().max() < 1e-12 for layer in rule.seen[:-1])
    for a, b in zip(found, autograd(net, x, y, "mse"), strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


def test_the_output_layer_is_on_the_losses_scale():
    net, x = build("dense", "sigmoid", "sigmoid")
    assert measure.parity(net, Burstprop(net, rng=rng()), x, CLASSES, rng=rng(1)) < 1e-6


# --- Kolen-Pollack, and the recurrent weights


def test_weights_and_feedback_approach_each_other_as_decay_says():
    """W - Y = (1 - wd)^n (W_0 - Y_0), whatever the data and the momentum."""
    net, rule, x = setting("dense")
    gap = [net.layers[i].weight.detach() - rule.feedback(net, i).detach() for i in (1, 2)]
    first = net.layers[1].weight.detach().clone()
    optimizer = released_sgd(net, rule, lr=0.5, momentum=0.9, decay=0.01, inner_lr=0.01)
    for step in range(40):
        rule(net, x, CLASSES.roll(step))
        optimizer.step()
    now = [net.layers[i].weight.detach() - rule.feedback(net, i).detach() for i in (1, 2)]
    close(now, [0.99**40 * g for g in gap])
    assert float((net.layers[1].weight.detach() - first).norm()) > 0.1
    rule(net, x, CLASSES)
    assert rule.Y1.grad is not net.layers[1].weight.grad  # clipping one leaves the other
    assert torch.equal(rule.Y1.grad, net.layers[1].weight.grad)


def test_released_sgd_spares_biases_unless_told_and_inner_weights_always():
    for biases in (False, True):
        net, rule, x = setting("dense")
        rule(net, x, CLASSES)
        for p in [*net.parameters(), *rule.parameters()]:
            p.grad.zero_()
        before = everything(net, rule)
        released_sgd(net, rule, lr=1.0, inner_lr=1.0, decay=0.25, decay_biases=biases).step()
        for name, value in everything(net, rule).items():
            keeps = name[0] == "Z" or (name.endswith("bias") and not biases)
            np.testing.assert_array_equal(value, before[name] * (1 if keeps else 0.75))


def test_fixed_and_symmetric_feedback_have_nothing_to_learn():
    net, x = build("dense", "sigmoid", "sigmoid")
    fixed = Burstprop(net, rng=rng(), recurrent=False)
    assert list(fixed.parameters()) == [] and set(fixed.state_dict()) == {"Y1", "Y2"}
    same = Burstprop(net, feedback="symmetric", recurrent=False)
    assert same.state_dict() == {}
    assert same.feedback(net, 1) is net.layers[1].weight
    before = nets.fingerprint(net)
    fixed(net, x, CLASSES)
    assert nets.fingerprint(net) == before


@pytest.mark.parametrize("still_h", [False, True])
def test_recurrent_gradient_is_autograds(still_h):
    """Of the mean of |u|^2 / 2, with s and the feedback held, times the rate."""
    net, x = build("dense", "sigmoid", "sigmoid")
    rule = Burstprop(net, feedback_std=1.0, recurrent_rate=0.7, still_h=still_h, rng=rng())
    rule(net, x, CLASSES)
    for index in (0, 1):
        z, seen = rule.get_parameter(f"Z{index}"), rule.seen[index]
        drive = (seen.u + seen.still @ z.T).detach()
        u = drive - seen.still @ z.T
        (exact,) = torch.autograd.grad(0.7 * u.square().sum() / (2 * len(x)), z)
        close([z.grad], [exact], 1e-14)


@pytest.mark.parametrize("printed", [False, True])
def test_the_described_sign_quiets_the_dendrites_the_printed_one_does_not(printed):
    net, rule, x = setting("dense", feedback="fixed", printed_sign=printed)
    optimizer = released_sgd(net, rule, lr=0.0, inner_lr=0.02)
    sizes = []
    for _ in range(100):
        rule(net, x, CLASSES)
        sizes.append(float(rule.seen[1].u.square().mean()))
        optimizer.step()
    assert (sizes[-1] > 2 * sizes[0]) if printed else (sizes[-1] < 0.5 * sizes[0])


# --- what holds in any case


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("units", rules.burstprop.UNITS)
def test_a_batch_is_the_mean_of_its_examples_or_their_sum(kind, units):
    net, rule, x = setting(kind, units=units)
    names = [p for p in [*net.parameters(), *rule.parameters()]]
    rows = []
    for i in range(6):
        rule(net, x[i : i + 1], CLASSES[i : i + 1])
        rows.append([p.grad.clone() for p in names])
    rule(net, x, CLASSES)
    parts = [torch.stack(part).sum(0) for part in zip(*rows, strict=True)]
    close([p.grad for p in names], [p / (6 if units == "backprop" else 1) for p in parts], 1e-13)


def test_where_the_teacher_agrees_nothing_is_learned_and_z_is():
    net, rule, x = setting("dense")
    found = run(rule, net, x, net(x).detach())
    assert all(not g.any() for g in found)
    assert rule.Z0.grad.any()


def test_the_teacher_does_not_touch_the_recurrent_gradient():
    net, rule, x = setting("dense")
    rule(net, x, CLASSES)
    first = rule.Z0.grad.clone()
    rule(net, x, CLASSES.flip(0))
    close([rule.Z0.grad], [first], 0)


def test_the_teachers_probability_stays_in_its_range():
    """0.75 p0 at t = 0, e = 1/2; 2 p0 at t = 1, e = 0."""
    net = Net([Dense(t([1.0]), t(0.0), "sigmoid")])
    rule = Burstprop(net, p0=0.5)
    x = t(*[[a] for a in np.linspace(-30, 30, 61)])
    for target, low, high in ((0.0, 0.375, 0.5), (1.0, 0.5, 1.0)):
        rule(net, x, torch.full_like(x, target))
        p = rule.seen[0].p[1]
        assert float(p.min()) == pytest.approx(low, abs=1e-9)
        assert float(p.max()) == pytest.approx(high, abs=1e-9)


def test_a_step_changes_gradients_and_nothing_else():
    net, rule, x = setting("conv")
    before, state = everything(net, rule), torch.get_rng_state()
    loss = rule(net, x, CLASSES)
    first = grads(net)
    rule(net, x, CLASSES)
    close(grads(net), first, 0)
    for name, value in everything(net, rule).items():
        np.testing.assert_array_equal(value, before[name])
    assert torch.equal(torch.get_rng_state(), state)
    assert loss.item() == Backprop(net)(net, x, CLASSES).item() and not loss.requires_grad
    assert all(not g.requires_grad for g in first)


def test_drawn_weights_have_their_spread_and_come_from_rng_alone():
    net = nets.mlp([50, 80, 60, 10], activation="sigmoid", output="sigmoid", rng=rng(), dtype=F64)
    one, two = (Burstprop(net, rng=rng(3)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    like = net.layers[1].weight.detach().std()
    assert float(one["Y1"].detach().std() / like) == pytest.approx(1, abs=0.05)
    narrow = Burstprop(net, feedback_std=0.3, rng=rng())
    assert float(narrow.Y1.detach().std()) == pytest.approx(0.3, rel=0.05)
    assert 0.0095 < float(one["Z0"].max()) <= 0.01 and -0.01 <= float(one["Z0"].min()) < -0.0095
    assert measure.angle(one["Y1"], net.layers[1].weight) == pytest.approx(90, abs=3)


@pytest.mark.parametrize("feedback", rules.burstprop.FEEDBACK)
def test_it_learns_the_digits(feedback):
    """As Backprop does with the plan's own call: one optimizer, one rate; far above chance."""
    digits = data.digits()
    net = nets.mlp([64, 50, 10], activation="sigmoid", output="sigmoid", rng=rng())
    rule = Burstprop(net, feedback=feedback, rng=rng(1))
    optimizer = torch.optim.SGD([*net.parameters(), *rule.parameters()], lr=0.3, momentum=0.8)
    history = train.fit(
        net, rule, digits, epochs=8, batch_size=32, optimizer=optimizer, rng=rng(2), progress=False
    )
    assert history["test_error"][0] > 0.7 and history["test_error"][-1] < 0.12
    if feedback == "kolen-pollack":
        assert measure.angle(rule.Y1, net.layers[1].weight) < 60


# --- what it refuses


def test_what_it_refuses_is_said():
    net, x = build("dense", "sigmoid", "sigmoid")
    for options, words in (
        ({"feedback": "random"}, "unknown feedback 'random'; expected one of fixed, kolen-pollack"),
        ({"units": "mean"}, "unknown units 'mean'; expected one of backprop, released"),
        ({"p0": 0.6}, "expected 0 < p0 <= 0.5 and beta > 0, found p0=0.6"),
        ({"p0": 0.0}, "found p0=0.0"),
        ({"beta": 0.0}, "found p0=0.2, beta=0.0"),
        ({"rng": None}, "weights are drawn: expected rng=.*found None"),
        ({"rng": 3}, "found 3"),
        ({"feedback_std": 0.0}, "a spread above 0, found 0"),
        ({"feedback_std": float("nan")}, "a spread above 0, found nan"),
        ({"loss": "l1"}, "unknown loss 'l1'"),
    ):
        with pytest.raises(ValueError, match=words):
            Burstprop(net, **{"rng": rng(), **options})
    for kind, activation, words in (
        ("dense", "tanh", "layer 0 is tanh with skip=0: events need hidden units that are never"),
        ("dense", "linear", "layer 0 is linear"),
        ("dense", "signed_relu", "layer 0 is signed_relu"),
        ("overlapping skips", "sigmoid", "layer 0 is sigmoid with skip=1"),
    ):
        with pytest.raises(ValueError, match=words):
            Burstprop(build(kind, activation, "sigmoid")[0], rng=rng())
    one = nets.mlp([4, 6, 1], rng=rng())
    with pytest.raises(ValueError, match="expected Dense and Conv layers"):
        Burstprop(nets.modules([one, one]), rng=rng())
    with pytest.raises(ValueError, match=r"expected a Y2 of shape \(3, 6\): make a rule for this"):
        wide = nets.mlp([4, 6, 6, 3], activation="sigmoid", rng=rng(), dtype=F64)
        Burstprop(net, rng=rng())(wide, x, CLASSES)
