"""lib.rules: the registry, what every rule shares, and Backprop against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import BUILDERS, F64, autograd, build, grads, tensor

from lib import losses, measure, nets, rules
from lib.nets import HIDDEN, OUTPUT, Dense, Net
from lib.rules import Backprop, Rule, base

LOSSES = [(out, "mse") for out in OUTPUT] + [
    (out, "cross_entropy") for out in ("softmax", "sigmoid")
]
CLASSES = torch.tensor([0, 1, 2, 1, 1, 0])


def same(one, other, atol=1e-12) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=atol) for a, b in zip(one, other, strict=True))


# --- Backprop


def test_backprop_by_hand():
    """x = 1, w = 2, b = 1: h = 3 (relu); v = 0.5: y = 1.5; t = 1: delta = 0.5.

    dv = 0.5 . 3, dc = 0.5; below: 0.5 . 0.5 = 0.25, times x = 1.
    """
    one = Dense(torch.tensor([[2.0]], dtype=F64), torch.tensor([1.0], dtype=F64), "relu")
    two = Dense(torch.tensor([[0.5]], dtype=F64), torch.tensor([0.0], dtype=F64), "linear")
    net = Net([one, two])
    x = torch.ones(1, 1, dtype=F64)
    assert Backprop(net)(net, x, x).item() == 0.125
    assert [g.item() for g in grads(net)] == [0.25, 0.25, 1.5, 0.5]


def test_backprop_through_a_skip_by_hand():
    """h1 = 2 (w = 2, x = 1), h2 = h1 + 0.5 relu(3 h1) = 5, y = h2, t = 4: delta = 1 on top.

    The middle layer's delta is 0.5 . 1, so its dw = 0.5 . 2 = 1; below arrive
    1 (through the skip) + 3 . 0.5 = 2.5, and dw = 2.5 . x.
    """

    def layer(w: float, act: str, **options) -> Dense:
        return Dense(torch.tensor([[w]], dtype=F64), torch.zeros(1, dtype=F64), act, **options)

    net = Net([layer(2.0, "relu"), layer(3.0, "relu", skip=1, gain=0.5), layer(1.0, "linear")])
    one = torch.ones(1, 1, dtype=F64)
    assert Backprop(net)(net, one, 4 * one).item() == 0.5
    assert [layer.weight.grad.item() for layer in net.layers] == [2.5, 1.0, 5.0]
    assert [layer.bias.grad.item() for layer in net.layers] == [2.5, 0.5, 1.0]


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize(("output", "loss"), LOSSES)
def test_backprop_equals_autograd(kind, activation, output, loss):
    """To 1e-12 in float64, for class numbers and for targets given as numbers."""
    net, x = build(kind, activation, output)
    for y in (CLASSES, torch.softmax(tensor(np.random.default_rng(1), 6, 3), dim=1)):
        if y.dim() == 2 and (output, loss) == ("softmax", "cross_entropy"):
            y = torch.eye(3, dtype=F64)[CLASSES]
            exact = autograd(net, x, CLASSES, loss)
        else:
            exact = autograd(net, x, y, loss)
        Backprop(net, loss=loss)(net, x, y)
        assert same(grads(net), exact)


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("activation", HIDDEN)
def test_backprop_equals_finite_differences(kind, activation):
    """A second oracle, which shares nothing with autograd: 12 weights of every layer."""
    net, x = build(kind, activation, "softmax", seed=3)
    Backprop(net)(net, x, CLASSES)
    r = np.random.default_rng(0)
    for index, layer in enumerate(net.layers):
        picks = r.permutation(layer.weight.numel())[:12].tolist()
        numeric = measure.finite_difference(
            net, x, CLASSES, places=[(index, i) for i in picks], eps=1e-6, loss="cross_entropy"
        )
        found = layer.weight.grad.flatten()[picks].numpy()
        assert found == pytest.approx(numeric, abs=2e-8)


def test_the_loss_it_returns_is_the_loss_before_the_step():
    net, x = build("dense", "tanh", "softmax")
    expected = losses.value(net, net.trace(x), CLASSES, "cross_entropy").item()
    found = Backprop(net)(net, x, CLASSES)
    assert found.shape == () and not found.requires_grad
    assert found.item() == pytest.approx(expected, rel=1e-15)


# --- what holds for every rule that keeps the defaults


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_second_call_overwrites_the_gradients(kind):
    net, x = build(kind, "relu", "softmax")
    rule = Backprop(net)
    rule(net, x, CLASSES)
    first = grads(net)
    rule(net, x, CLASSES)
    assert same(grads(net), first, atol=0)
    rule(net, 2 * x, CLASSES.flip(0))
    assert not same(grads(net), first)


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize(("output", "loss"), [("softmax", "cross_entropy"), ("tanh", "mse")])
def test_the_gradient_of_a_batch_is_the_mean_over_its_examples(kind, output, loss):
    net, x = build(kind, "signed_relu", output)
    rule = Backprop(net, loss=loss)
    singles = []
    for i in range(6):
        rule(net, x[i : i + 1], CLASSES[i : i + 1])
        singles.append(grads(net))
    rule(net, x, CLASSES)
    means = [torch.stack(parts).mean(0) for parts in zip(*singles, strict=True)]
    assert same(grads(net), means, atol=1e-14)


def test_the_order_of_the_examples_does_not_matter():
    net, x = build("conv", "relu", "softmax")
    rule = Backprop(net)
    rule(net, x, CLASSES)
    first, order = grads(net), [4, 2, 0, 5, 1, 3]
    rule(net, x[order], CLASSES[order])
    assert same(grads(net), first, atol=1e-14)


def test_relabelling_hidden_units_relabels_their_gradients():
    net, x = build("dense", "tanh", "softmax")
    rule, order = Backprop(net), torch.tensor([3, 0, 5, 1, 4, 2])
    rule(net, x, CLASSES)
    w1, b1, w2, *rest = grads(net)
    one, two = net.layers[0], net.layers[1]
    one.weight.data, one.bias.data = one.weight.data[order], one.bias.data[order]
    two.weight.data = two.weight.data[:, order]
    rule(net, x, CLASSES)
    assert same(grads(net), [w1[order], b1[order], w2[:, order], *rest], atol=1e-14)


def test_with_scale_0_the_blocks_hear_nothing_and_the_stream_is_the_plain_net():
    r = np.random.default_rng(0)
    net = nets.residual_mlp(4, 5, 3, blocks=2, scale=0.0, output="softmax", rng=r, dtype=F64)
    plain = Net([net.layers[0], net.layers[-1]])
    x = tensor(r, 6, 4)
    Backprop(net)(net, x, CLASSES)
    found = [net.layers[0].weight.grad, net.layers[-1].weight.grad]
    assert all(not layer.weight.grad.any() for layer in net.layers[1:-1])
    Backprop(plain)(plain, x, CLASSES)
    assert same(found, [layer.weight.grad for layer in plain.layers], atol=1e-15)


def test_a_convolution_learns_like_dense_layers_that_share_weights():
    """1 x 1 pixels and a 1 x 1 kernel: the convolution is a dense layer."""
    r = np.random.default_rng(0)
    conv = nets.convnet(
        (4, 1, 1), conv=[(5, 1, 1)], dense_sizes=[3], activation="tanh", rng=r, dtype=F64
    )
    dense = nets.mlp([4, 5, 3], activation="tanh", rng=r, dtype=F64)
    for one, other in zip(conv.layers, dense.layers, strict=True):
        other.weight.data = one.weight.data.reshape(other.weight.shape)
    x = tensor(r, 6, 4)
    for net in (conv, dense):
        Backprop(net)(net, x, CLASSES)
    flat = [g.flatten() for g in grads(conv)]
    assert same(flat, [g.flatten() for g in grads(dense)], atol=1e-14)


def test_minus_units_are_plus_units_with_turned_weights_above():
    """A unit that fires -relu(a) into weight w is one that fires relu(a) into -w."""
    r = np.random.default_rng(0)
    signed = nets.mlp([4, 6, 3], activation="signed_relu", output="softmax", rng=r, dtype=F64)
    plain = nets.mlp([4, 6, 3], output="softmax", rng=r, dtype=F64)
    sign = signed.layers[0].sign
    plain.layers[0].weight.data = signed.layers[0].weight.data.clone()
    plain.layers[1].weight.data = signed.layers[1].weight.data * sign
    x = tensor(r, 6, 4)
    for net in (signed, plain):
        Backprop(net)(net, x, CLASSES)
    expected = grads(plain)
    expected[2] = expected[2] * sign
    assert same(grads(signed), expected, atol=1e-14)


def test_a_rule_changes_gradients_and_nothing_else():
    net, x = build("residual", "relu", "softmax")
    before, state = nets.fingerprint(net), torch.get_rng_state()
    given = x.clone()
    Backprop(net)(net, x, CLASSES)
    assert nets.fingerprint(net) == before
    assert torch.equal(x, given) and torch.equal(torch.get_rng_state(), state)
    assert all(p.grad.shape == p.shape and p.grad.dtype == p.dtype for p in net.parameters())


def test_gradients_serve_any_optimizer():
    """One step of SGD is w - 0.1 dw."""
    net, x = build("conv", "relu", "softmax")
    before = [p.detach().clone() for p in net.parameters()]
    exact = autograd(net, x, CLASSES, "cross_entropy")
    Backprop(net)(net, x, CLASSES)
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    expected = [w - 0.1 * g for w, g in zip(before, exact, strict=True)]
    assert same([p.detach() for p in net.parameters()], expected)


def test_float32_works_and_is_as_exact_as_float32_can_be():
    net, x = build("dense", "tanh", "softmax")
    exact = autograd(net, x, CLASSES, "cross_entropy")
    net.float()
    Backprop(net)(net, x.float(), CLASSES)
    assert grads(net)[0].dtype == torch.float32
    assert same([g.double() for g in grads(net)], exact, atol=1e-6)


# --- the protocol: three small steps


class Taught(Rule):
    def teach(self, net, trace, y):
        return 10 * super().teach(net, trace, y)


class Mute(Rule):
    def send(self, net, index, delta):
        return torch.zeros_like(super().send(net, index, delta))


class Ungated(Rule):
    def gate(self, net, index, signal, trace):
        return signal


def test_teach_sets_the_scale_of_every_layer():
    net, x = build("dense", "tanh", "linear")
    Taught(net)(net, x, CLASSES)
    assert same(grads(net), [10 * g for g in autograd(net, x, CLASSES, "mse")], atol=1e-12)


def test_send_decides_what_lower_layers_hear():
    """Where nothing is sent only the output layer learns; a skip still carries its share."""
    net, x = build("dense", "tanh", "linear")
    Mute(net)(net, x, CLASSES)
    exact = autograd(net, x, CLASSES, "mse")
    assert same(grads(net)[-2:], exact[-2:])
    assert all(not g.any() for g in grads(net)[:-2])


def test_gate_is_asked_once_per_hidden_layer():
    net, x = build("dense", "tanh", "linear")
    linear, _ = build("dense", "linear", "linear")
    trace = net.trace(x)
    top = torch.ones(6, 3, dtype=F64)
    found = Ungated(net).credit(net, trace, top)
    expected = Backprop(linear).credit(linear, linear.trace(x), top)
    assert same(found, expected, atol=1e-14)
    assert [tuple(d.shape) for d in found] == [(6, 6), (6, 5), (6, 3)]


@pytest.mark.parametrize("kind", BUILDERS)
def test_each_delta_is_the_derivative_at_its_drive(kind):
    """Autograd's answer to what every layer should be told, in the shape of its drive."""
    net, x = build(kind, "tanh", "tanh")
    trace = net.trace(x)
    loss = losses.value(net, trace, CLASSES, "mse")
    exact = torch.autograd.grad(loss, list(trace.drives))
    rule = Backprop(net)
    with torch.no_grad():
        found = rule.credit(net, trace, rule.teach(net, trace, CLASSES))
    assert same(found, exact, atol=1e-14)


def test_a_rule_takes_the_nets_loss_unless_it_is_given_one():
    net, _ = build("dense", "relu", "softmax")
    assert Backprop(net).loss == "cross_entropy"
    assert Backprop(net, loss="mse").loss == "mse"
    with pytest.raises(ValueError, match="unknown loss 'l1'"):
        Backprop(net, loss="l1")


def test_a_batch_that_does_not_fit_is_refused_and_gradients_stay():
    net, x = build("dense", "relu", "softmax")
    rule = Backprop(net)
    rule(net, x, CLASSES)
    before = grads(net)
    with pytest.raises(ValueError, match=r"expected a batch of shape \(n, 4\)"):
        rule(net, x[:, :3], CLASSES)
    with pytest.raises(ValueError, match=r"\(6,\) whole class numbers, found \(5,\)"):
        rule(net, x, CLASSES[:5])
    assert same(grads(net), before, atol=0)


# --- the registry


def test_every_rule_has_a_name_and_a_docstring_with_its_source():
    assert rules.names() == sorted(set(rules.names())) and "backprop" in rules.names()
    assert rules.get("backprop") is Backprop
    for name in rules.names():
        cls = rules.get(name)
        assert issubclass(cls, Rule)
        assert "Source:" in cls.__doc__ and "Departs:" in cls.__doc__, name


def test_an_unknown_rule_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown rule 'hebb'; expected one of .*backprop"):
        rules.get("hebb")


def test_registering_adds_a_name_and_refuses_one_that_is_taken(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    assert rules.register("mute")(Mute) is Mute
    assert rules.get("mute") is Mute and "mute" in rules.names()
    with pytest.raises(ValueError, match="the rule name 'backprop' is taken by Backprop"):
        rules.register("backprop")(Mute)
    assert rules.get("backprop") is Backprop
