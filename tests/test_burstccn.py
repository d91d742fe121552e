"""lib.rules.burstccn: by hand, the described model in NumPy, its limit, Q's descent, refusals."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import F64, autograd, build, grads, tensor

from lib import data, measure, nets, rules, train
from lib.nets import Dense, Net
from lib.rules import Backprop, BurstCCN, released_sgd

CLASSES = torch.tensor([0, 1, 2, 1, 1, 0])
ONE_HOT = np.eye(3)[CLASSES]


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


def setting(kind="dense", **options):
    net, x = build(kind, "sigmoid", "sigmoid")
    options = {"feedback": "kolen-pollack", "events": "learned", "feedback_std": 0.7, **options}
    return net, BurstCCN(net, rng=rng(1), **options), x


# --- the description, transcribed: one example at a time


def described(net, rule, xs, ts):
    """Means over the batch of ((p - p_b) e) e^T (and bias), and of u e^T, with the text's signs.

    u = Q e - Y b with Y = -(the library's Y) and, since Q ends at p_b Y, Q = -(the library's Q).
    """
    w = [layer.weight.detach().numpy() for layer in net.layers]
    c = [layer.bias.detach().numpy() for layer in net.layers]
    y = [None, *(-rule.feedback(net, i).detach().numpy().T for i in range(1, len(w)))]
    q = [None, *(-rule.get_parameter(f"Q{i}").detach().numpy().T for i in range(1, len(w)))]
    dw, dc = [0 * a for a in w], [0 * a for a in c]
    dq = [None, *(0 * a for a in q[1:])]
    for x, target in zip(xs, ts, strict=True):
        e = [x]
        for weight, bias in zip(w, c, strict=True):
            e.append(sigma(weight @ e[-1] + bias))
        p = 0.5 + 0.5 * (target - e[-1]) * (1 - e[-1])
        for i in reversed(range(len(w))):
            dw[i] += np.outer((p - 0.5) * e[i + 1], e[i]) / len(xs)
            dc[i] += (p - 0.5) * e[i + 1] / len(xs)
            if i:
                u = q[i] @ e[i + 1] - y[i] @ (p * e[i + 1])
                dq[i] += np.outer(u, e[i + 1]) / len(xs)
                p = sigma(4 * u * (1 - e[i]))
    return dw, dc, dq


def test_one_step_equals_the_description():
    """W, c, Y, Q after an update with decay outside the rate, on biases too."""
    net, rule, x = setting(units="released")
    dw, dc, dq = described(net, rule, x.numpy(), ONE_HOT)
    before = {n: p.detach().numpy().copy() for n, p in net.named_parameters()}
    own = {n: p.detach().numpy().copy() for n, p in rule.named_parameters()}
    optimizer = released_sgd(net, rule, lr=0.3, inner_lr=0.02, decay=0.01, decay_biases=True)
    rule(net, x, CLASSES)
    optimizer.step()

    def same(found, expected):
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-14)

    for i, layer in enumerate(net.layers):
        same(layer.weight, 0.99 * before[f"layers.{i}.weight"] + 0.3 * dw[i])
        same(layer.bias, 0.99 * before[f"layers.{i}.bias"] + 0.3 * dc[i])
        if i:
            same(rule.feedback(net, i), 0.99 * own[f"Y{i}"] + 0.3 * dw[i])
            same(rule.get_parameter(f"Q{i}"), own[f"Q{i}"] + 0.02 * dq[i].T)  # -(-dQ) of the text


def test_backprops_units_are_the_released_ones_over_the_baseline():
    net, rule, x = setting(units="released")
    one, q = run(rule, net, x), rule.Q1.grad
    net, rule, x = setting(event_rate=0.25)
    close(run(rule, net, x), [2 * g for g in one], 1e-15)
    close([rule.Q1.grad], [0.25 * q], 1e-15)
    close([rule.Y1.grad, rule.Y2.grad], [layer.weight.grad for layer in net.layers[1:]], 0)
    assert rule.Y1.grad is not net.layers[1].weight.grad


# --- by hand


def test_by_hand():
    """x = 1: e = 1/2 below and on top, t = 1: p = 1/2 + 1/2 . 1/2 . 1/2 = 0.625, b = 0.3125.

    Y = 4, Q = 1: u = 1.25 - 0.5 = 0.75 and p = sigma(4 . 0.75 / 2); dQ = -0.5 . 0.75.
    """
    net = Net([Dense(t([0.0]), t(0.0), "sigmoid"), Dense(t([0.0]), t(0.0), "sigmoid")])
    rule = BurstCCN(net, events="learned", feedback_std=1.0, rng=rng(), units="released")
    rule.Y1[:], rule.Q1.data[:] = 4.0, 1.0
    rule(net, t([1.0]), t([1.0]))
    low = -(sigma(1.5) - 0.5) / 2
    assert [g.item() for g in grads(net)] == pytest.approx([low, low, -0.03125, -0.0625])
    assert rule.Q1.grad.item() == pytest.approx(-0.375)
    one, two = rule.seen
    assert [two.p.item(), two.b.item(), two.e.item()] == pytest.approx([0.625, 0.3125, 0.5])
    assert [one.u.item(), one.p.item()] == pytest.approx([0.75, sigma(1.5)])
    assert one.b.item() == pytest.approx(sigma(1.5) / 2) and two.u is None


def test_relu_units_have_h_1_over_e():
    """e = (2, 0), Q = Y/2: u = 6 . (0.3125 - 0.25) = 0.375; p = sigma(4 u / 2); the other: 1/2."""
    net = Net([Dense(t([2.0], [-1.0]), t(0.0, 0.0), "relu"), Dense(t([0, 0.0]), t(0), "sigmoid")])
    rule = BurstCCN(net, units="released", feedback_std=1, rng=rng())
    rule.Y1[:] = 6.0
    rule(net, t([1.0]), t([1.0]))
    assert net.layers[0].bias.grad.tolist() == pytest.approx([2 * (0.5 - sigma(0.75)), 0.0])


# --- the limit


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize(
    ("activation", "output", "loss"),
    [
        ("sigmoid", "sigmoid", "mse"),
        ("sigmoid", "softmax", "cross_entropy"),
        ("relu", "sigmoid", "cross_entropy"),
    ],
)
def test_for_small_errors_it_is_backprop_to_second_order(kind, activation, output, loss):
    """Y = W, Q = Y/2: halving the error quarters the relative error; no factor between layers."""
    net, x = build(kind, activation, output)
    with torch.no_grad():
        out = net(x)
    push = tensor(rng(3), 6, 3)
    push -= push.mean(1, keepdim=True)  # softmax targets keep their sum
    rule, errors = BurstCCN(net, feedback="symmetric", loss=loss), []
    scale = 0.05 if activation == "sigmoid" else 1e-4  # relu units near 0 have a steep h
    for size in (scale, scale / 2, scale / 4):
        y = out + size * push
        # PyTorch's own losses want classes or probabilities: autograd through the drive instead
        trace = net.trace(x)
        told = rule.teach(net, trace, y).detach()
        exact = torch.autograd.grad((trace.drives[-1] * told).sum(), list(net.parameters()))[::2]
        found = run(rule, net, x, y)[::2]
        rows = zip(found, exact, strict=True)
        errors.append([float((a - b).norm() / b.norm()) for a, b in rows])
    assert all(row[-1] < 1e-14 for row in errors)
    for one, half, quarter in list(zip(*errors, strict=True))[:-1]:
        assert one < 0.05
        assert one / half == pytest.approx(4, rel=0.1)
        assert half / quarter == pytest.approx(4, rel=0.05)


def test_at_any_error_the_output_layer_is_exact_and_the_rest_points_the_same_way():
    net, x = build("dense", "sigmoid", "sigmoid")
    rule = BurstCCN(net, feedback="symmetric")
    found, exact = run(rule, net, x), autograd(net, x, CLASSES, "mse")
    close(found[-2:], exact[-2:], 1e-15)
    assert 0 < measure.angle(found[0], exact[0]) < 10
    assert measure.parity(net, setting()[1], x, CLASSES, rng=rng(1)) < 1e-6


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_learned_events_at_half_y_are_the_symmetric_ones(kind):
    net, rule, x = setting(kind)
    same = BurstCCN(net, feedback_std=0.7, rng=rng(1))
    for index in range(1, len(net.layers)):
        getattr(same, f"Y{index}").copy_(rule.feedback(net, index))
        rule.get_parameter(f"Q{index}").data = 0.5 * rule.feedback(net, index).detach()
    close(run(rule, net, x), run(same, net, x), 1e-14)


def test_symmetric_events_follow_y():
    net, x = build("dense", "sigmoid", "sigmoid")
    rule = BurstCCN(net, feedback="kolen-pollack", rng=rng(1))
    rule(net, x, net(x).detach())
    assert all(not layer.u.any() for layer in rule.seen[:-1])
    rule.Y1.data *= 3
    assert all(not g.any() for g in run(rule, net, x, net(x).detach()))


# --- Q


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_event_weights_have_autograds_gradient(kind):
    """Of the mean of |u|^2 / 2, bursts and events held, times the rate."""
    net, rule, x = setting(kind, event_rate=0.3)
    rule(net, x, CLASSES)
    for index in range(1, len(net.layers)):
        q, above, layer = rule.get_parameter(f"Q{index}"), rule.seen[index], net.layers[index]
        u = layer.transpose(above.b, rule.feedback(net, index)) - layer.transpose(above.e, q)
        close([u.detach().reshape(rule.seen[index - 1].u.shape)], [rule.seen[index - 1].u], 1e-14)
        (exact,) = torch.autograd.grad(0.3 * u.square().sum() / (2 * len(x)), q)
        close([q.grad], [exact], 1e-13)


def test_without_errors_event_weights_end_at_half_the_burst_weights():
    """|u|^2/2 is a parabola in Q with curvature E^T E / n: one Newton step lands on Y/2."""
    net, rule, _ = setting(feedback="fixed", units="released")
    x = tensor(rng(7), 40, 4, scale=3.0)
    y = net(x).detach()
    for index in (2, 1):  # from above: p is 1/2 there only once its own u is 0
        rule(net, x, y)
        e, q = rule.seen[index].e, rule.get_parameter(f"Q{index}")
        assert float(rule.seen[index - 1].u.abs().max()) > 0.1
        q.data -= torch.linalg.solve(e.T @ e / len(x), q.grad)
        close([q.detach()], [rule.feedback(net, index) / 2], 1e-9)
    assert max(float(g.abs().max()) for g in run(rule, net, x, y)) < 1e-10


def test_small_steps_of_q_quiet_the_dendrites():
    net, rule, x = setting(feedback="fixed", units="released")
    optimizer, sizes = released_sgd(net, rule, lr=0.0, inner_lr=0.1), []
    for _ in range(50):
        rule(net, x, CLASSES)
        sizes.append(float(rule.seen[1].u.square().mean()))
        optimizer.step()
    assert all(b < a for a, b in pairwise(sizes)) and sizes[-1] < 0.5 * sizes[0]


# --- what holds in any case


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("units", rules.burstprop.UNITS)
def test_a_batch_is_the_mean_of_its_examples(kind, units):
    net, rule, x = setting(kind, units=units)
    every = [*net.parameters(), *rule.parameters()]
    rows = []
    for i in range(6):
        rule(net, x[i : i + 1], CLASSES[i : i + 1])
        rows.append([p.grad.clone() for p in every])
    rule(net, x, CLASSES)
    close([p.grad for p in every], [torch.stack(r).mean(0) for r in zip(*rows, strict=True)], 1e-13)


def test_a_step_changes_gradients_and_nothing_else():
    net, rule, x = setting("conv")
    before = [p.detach().clone() for p in [*net.parameters(), *rule.parameters()]]
    loss = rule(net, x, CLASSES)
    first = grads(net)
    close(run(rule, net, x), first, 0)
    close([p.detach() for p in [*net.parameters(), *rule.parameters()]], before, 0)
    assert loss.item() == Backprop(net)(net, x, CLASSES).item() and not loss.requires_grad


def test_drawn_weights_have_their_spread():
    net = nets.mlp([50, 80, 60, 10], activation="sigmoid", output="sigmoid", rng=rng(), dtype=F64)
    rule = BurstCCN(net, events="learned", rng=rng(1))
    assert float(rule.Y1.std() / net.layers[1].weight.detach().std()) == pytest.approx(1, abs=0.05)
    assert float(rule.Q1.detach().std() / rule.Y1.std()) == pytest.approx(0.5, abs=0.03)
    assert measure.angle(rule.Q1, rule.Y1) == pytest.approx(90, abs=3)
    assert {n for n, _ in rule.named_parameters()} == {"Q1", "Q2"}
    given = BurstCCN(net, events="learned", feedback_std=2.0, rng=rng(1))
    assert float(given.Y1.std()) == pytest.approx(2, rel=0.05)
    assert float(given.Q1.detach().std()) == pytest.approx(1, rel=0.05)
    assert list(BurstCCN(net, feedback="symmetric").parameters()) == []


@pytest.mark.parametrize("options", [{}, {"feedback": "kolen-pollack"}, {"feedback": "symmetric"}])
def test_it_learns_the_digits(options):
    digits = data.digits()
    net = nets.mlp([64, 50, 10], activation="sigmoid", output="sigmoid", rng=rng())
    rule = BurstCCN(net, rng=rng(1), **options)
    optimizer = torch.optim.SGD([*net.parameters(), *rule.parameters()], lr=0.3, momentum=0.8)
    history = train.fit(
        net, rule, digits, epochs=8, batch_size=32, optimizer=optimizer, rng=rng(2), progress=False
    )
    assert history["test_error"][0] > 0.7 and history["test_error"][-1] < 0.12


def test_what_it_refuses_is_said():
    net, x = build("dense", "sigmoid", "sigmoid")
    for options, words in (
        ({"events": "none"}, "unknown events 'none'; expected one of symmetric, learned"),
        ({"feedback": "none"}, "unknown feedback 'none'; expected one of fixed"),
        ({"units": "none"}, "unknown units 'none'"),
        ({"rng": None}, "weights are drawn: expected rng="),
        ({"rng": None, "feedback": "symmetric", "events": "learned"}, "weights are drawn"),
    ):
        with pytest.raises(ValueError, match=words):
            BurstCCN(net, **{"rng": rng(), **options})
    with pytest.raises(ValueError, match="layer 0 is tanh"):
        BurstCCN(build("dense", "tanh", "sigmoid")[0], rng=rng())
    with pytest.raises(ValueError, match="make a rule for this net"):
        BurstCCN(net, rng=rng())(nets.mlp([4, 6, 6, 3], rng=rng(), dtype=F64), x, CLASSES)
