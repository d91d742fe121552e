"""lib.rules.predictive: by hand, the free energy by autograd, its descent, limits, refusals."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import F64, autograd, build, grads, reference_loss

from lib import data, losses, measure, nets, train
from lib.nets import Dense, Net, Trace
from lib.rules import Backprop, PredictiveCoding

CLASSES = torch.tensor([0, 1, 2, 1, 1, 0])
LOSSES = [("linear", "mse"), ("sigmoid", "mse"), ("softmax", "cross_entropy")]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def close(one, other, tol=1e-12):
    assert max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) <= tol


def t(*rows):
    return torch.tensor(rows, dtype=F64)


def run(rule, net, x, y=CLASSES):
    rule(net, x, y)
    return grads(net)


def chain(*weights: float) -> Net:
    return Net([Dense(t([w]), t(0.0), "linear") for w in weights])


# --- by hand


def test_two_steps_by_hand():
    """w = 2, then 3; x = 1: v = 2, y = 6; t = 7, rate 0.1.

    First the output's delta is -1 and dF/dv = 0 - 3: v = 2.3, which says 6.9.
    Then delta = -0.1 and dF/dv = 0.3 - 0.3 = 0: it has settled. F = 0.5, then 0.045 + 0.005.
    """
    net = chain(2.0, 3.0)
    rule = PredictiveCoding(net, steps=2, rate=0.1)
    assert float(rule(net, t([1.0]), t([7.0]))) == 0.5
    assert [g.item() for g in grads(net)] == pytest.approx([-0.3, -0.3, -0.23, -0.1])
    assert rule.energies == pytest.approx([0.5, 0.05, 0.05])


@pytest.mark.parametrize("precision", [0.1, 1.0, 5.0])
def test_a_linear_chain_settles_where_algebra_says(precision):
    """v = (w1 x + k w2 t) / (1 + k w2^2): the error is shared out, 1 part to k w2^2."""
    net = chain(2.0, 3.0)
    rule = PredictiveCoding(net, steps=4000, rate=0.02, precision=precision)
    rule(net, t([1.0]), t([7.0]))
    v = (2 + precision * 3 * 7) / (1 + precision * 9)
    expected = [(2 - v) / precision, (2 - v) / precision, (3 * v - 7) * v, 3 * v - 7]
    assert [g.item() for g in grads(net)] == pytest.approx(expected, rel=1e-9)
    assert rule.energies[-1] == pytest.approx(0.5 * precision / (1 + precision * 9), rel=1e-9)


def test_fixed_predictions_by_hand():
    """Errors move, predictions do not: v goes from 2 by 0.5 . 3 to 3.5, by 0.5 . (3 - 1.5) to 4.25.

    In the limit v - 2 = 3, Backprop's. F counts those errors: 0.5, then + 1.5^2/2, + 2.25^2/2.
    """
    net = chain(2.0, 3.0)
    rule = PredictiveCoding(net, steps=2, rate=0.5, fixed=True)
    rule(net, t([1.0]), t([7.0]))
    assert [g.item() for g in grads(net)] == pytest.approx([-2.25, -2.25, -2.0, -1.0])
    assert rule.energies == pytest.approx([0.5, 1.625, 3.03125])


# --- the free energy, by autograd


def free_energy(net, x, y, values, precision, loss):
    """F summed over the batch, from its definition."""
    below, total = (x, *values), 0.0
    drives = [layer.drive(v) for layer, v in zip(net.layers, below, strict=True)]
    fired = [layer.fire(a) for layer, a in zip(net.layers, drives, strict=True)]
    for v, f in zip(values, fired, strict=False):
        total = total + (v - f).square().sum() / 2
    seen = Trace((*below, fired[-1]), tuple(drives), tuple(fired))
    return total + precision * losses.value(net, seen, y, loss) * len(x)


def settled(net, x, y, steps, rate, precision, loss):
    """The values after gradient descent on F by autograd, and the mean F on the way."""
    values, energies = [v.detach() for v in net.trace(x).values[1:-1]], []
    for step in range(steps + 1):
        values = [v.requires_grad_() for v in values]
        energy = free_energy(net, x, y, values, precision, loss)
        energies.append(energy.item() / len(x))
        if step < steps:
            slopes = torch.autograd.grad(energy, values)
            values = [(v - rate * s).detach() for v, s in zip(values, slopes, strict=True)]
    return energy, energies


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "signed_relu"])
@pytest.mark.parametrize(("output", "loss"), LOSSES)
def test_it_descends_the_free_energy_and_learns_its_gradient(kind, activation, output, loss):
    """Every step and the weights' gradients are autograd's, at a precision of 0.6."""
    net, x = build(kind, activation, output)
    rule = PredictiveCoding(net, steps=5, rate=0.2, precision=0.6)
    found = run(rule, net, x)
    energy, energies = settled(net, x, CLASSES, 5, 0.2, 0.6, loss)
    exact = torch.autograd.grad(energy, list(net.parameters()))
    close(found, [g / (6 * 0.6) for g in exact], 1e-13)
    assert rule.energies == pytest.approx(energies, rel=1e-12)


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize(("output", "loss"), LOSSES)
def test_the_free_energy_falls_at_every_step(kind, output, loss):
    """From the precision times the loss, for a rate small enough for the net's weights."""
    net, x = build(kind, "tanh", output)
    rule = PredictiveCoding(net, steps=40, rate=0.1, precision=2.0, loss=loss)
    value = rule(net, x, CLASSES)
    assert rule.energies[0] == pytest.approx(2 * value.item(), rel=1e-12)
    assert all(after < before for before, after in pairwise(rule.energies))
    assert rule.energies[-1] < 0.9 * rule.energies[0]


def test_the_returned_loss_is_that_of_the_forward_pass():
    net, x = build("dense", "tanh", "softmax")
    value = PredictiveCoding(net)(net, x, CLASSES)
    assert value.item() == pytest.approx(reference_loss(net, x, CLASSES, "cross_entropy").item())
    assert not value.requires_grad


# --- limits


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "signed_relu"])
@pytest.mark.parametrize(("output", "loss"), LOSSES)
def test_with_fixed_predictions_it_is_backprop(kind, activation, output, loss):
    """At any precision, at rate 1, in as many steps as hidden layers: one fewer and one is deaf."""
    net, x = build(kind, activation, output)
    hidden, exact = len(net.layers) - 1, autograd(net, x, CLASSES, loss)
    for precision in (1.0, 3.0):
        rule = PredictiveCoding(net, steps=hidden, rate=1.0, fixed=True, precision=precision)
        close(run(rule, net, x), exact)
    short = run(PredictiveCoding(net, steps=hidden - 1, rate=1.0, fixed=True), net, x)
    assert not short[0].any() and not short[1].any()
    close(short[2:], exact[2:])


def test_with_fixed_predictions_any_rate_gets_there():
    net, x = build("dense", "tanh", "softmax")
    exact = autograd(net, x, CLASSES, "cross_entropy")
    rule = PredictiveCoding(net, steps=60, rate=0.5, fixed=True)
    close(run(rule, net, x), exact, 1e-12)
    rule = PredictiveCoding(net, steps=3, rate=0.5, fixed=True)  # the top hidden layer: 1 - 1/2^3
    assert torch.allclose(run(rule, net, x)[2], 0.875 * exact[2], rtol=1e-12)


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize(("output", "loss"), LOSSES)
def test_a_weak_teacher_makes_it_backprop_to_first_order(kind, output, loss):
    """Settled, the relative error halves with the output's precision, in every layer."""
    net, x = build(kind, "tanh", output)
    for layer in net.layers:
        layer.weight.data *= 0.5  # so that 100 steps settle it
    exact, errors = autograd(net, x, CLASSES, loss), []
    for precision in (4e-3, 2e-3, 1e-3):
        rule = PredictiveCoding(net, steps=100, rate=0.5, precision=precision)
        rows = zip(run(rule, net, x), exact, strict=True)
        errors.append([float((a - b).norm() / b.norm()) for a, b in rows])
    for one, half, quarter in zip(*errors, strict=True):
        assert 1e-6 < one < 0.05
        assert one / half == pytest.approx(2, rel=0.05)
        assert half / quarter == pytest.approx(2, rel=0.03)


def test_a_small_error_alone_does_not_make_it_backprop():
    """The angle to Backprop stays as the targets come near: what counts is the precision."""
    net, x = build("dense", "tanh", "linear")
    for layer in net.layers:
        layer.weight.data *= 2
    with torch.no_grad():
        out = net(x)
    found = []
    for size in (1e-4, 1e-5):
        y = out + size
        one = run(PredictiveCoding(net, steps=200, rate=0.1), net, x, y)[0]
        found.append(measure.angle(one, autograd(net, x, y, "mse")[0]))
    assert found[0] > 2 and found[1] == pytest.approx(found[0], rel=1e-2)


# --- what holds in any case


def test_without_hidden_layers_it_is_backprop():
    net = nets.mlp([4, 3], output="softmax", rng=rng(), dtype=F64)
    x = torch.from_numpy(rng(1).normal(size=(6, 4)))
    close(run(PredictiveCoding(net), net, x), autograd(net, x, CLASSES, "cross_entropy"))


@pytest.mark.parametrize("fixed", [True, False])
def test_a_batch_is_the_mean_of_its_examples(fixed):
    net, x = build("conv", "tanh", "softmax")
    rule, rows, energies = PredictiveCoding(net, steps=5, fixed=fixed), [], []
    for i in range(6):
        rows.append(run(rule, net, x[i : i + 1], CLASSES[i : i + 1]))
        energies.append(rule.energies)
    close(run(rule, net, x), [torch.stack(r).mean(0) for r in zip(*rows, strict=True)], 1e-14)
    assert rule.energies == pytest.approx(np.mean(energies, axis=0), rel=1e-12)


def test_a_step_changes_gradients_and_nothing_else():
    net, x = build("conv", "tanh", "softmax")
    before, given, state = nets.fingerprint(net), x.clone(), torch.get_rng_state()
    rule = PredictiveCoding(net)
    first = run(rule, net, x)
    close(run(rule, net, x), first, 0)
    assert nets.fingerprint(net) == before and torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(rule.parameters()) == [] and len(rule.energies) == 21
    assert not any(g.requires_grad for g in first)


def test_it_learns_the_digits_as_well_as_backprop():
    digits, errors = data.digits(), []
    for cls in (PredictiveCoding, Backprop):
        net = nets.mlp([64, 50, 10], activation="tanh", output="softmax", rng=rng())
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.8)
        history = train.fit(
            net,
            cls(net),
            digits,
            epochs=5,
            batch_size=32,
            optimizer=optimizer,
            rng=rng(2),
            progress=False,
        )
        errors.append(history["test_error"][-1])
    assert errors[0] < 0.1 and errors[0] < errors[1] + 0.03


def test_what_it_refuses_is_said():
    net, x = build("dense", "tanh", "linear")
    for options, words in (
        ({"steps": 0}, "expected whole steps >= 1.*found steps=0"),
        ({"steps": 2.5}, "found steps=2.5"),
        ({"rate": 0.0}, "found steps=20, rate=0.0"),
        ({"rate": 1.5}, "rate=1.5"),
        ({"precision": 0.0}, "precision=0.0"),
        ({"loss": "l1"}, "unknown loss 'l1'"),
    ):
        with pytest.raises(ValueError, match=words):
            PredictiveCoding(net, **options)
    with pytest.raises(ValueError, match="expected a net without skips"):
        PredictiveCoding(build("overlapping skips", "tanh", "linear")[0])
    one = nets.mlp([4, 6, 1], rng=rng())
    with pytest.raises(ValueError, match="expected Dense and Conv layers"):
        PredictiveCoding(nets.modules([one, one]))
    with pytest.raises(ValueError, match="whole class numbers, found"):
        PredictiveCoding(net)(net, x, CLASSES[:5])
