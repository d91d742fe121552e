"""lib.influence: tau and pi against autograd and explicit paths; coherence and sign flips."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from helpers import F64, tensor, with_biases
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import losses, measure, nets
from lib.influence import cuts, walk
from lib.nets import Dense, Net
from lib.rules import Backprop

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=40)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(sizes, seed=0, act="signed_relu", out="linear") -> Net:
    net = nets.mlp(sizes, activation=act, output=out, rng=rng(seed), dtype=F64)
    return with_biases(net, rng(seed + 1))


def residual(n_out=1, seed=0) -> Net:
    net = nets.residual_mlp(
        3, 4, n_out, blocks=3, activation="signed_relu", rng=rng(seed), dtype=F64
    )
    return with_biases(net, rng(seed + 1))


def skips(plan) -> Net:
    layers = [nets.dense(3, 3, "relu", rng=rng(i), dtype=F64, skip=k) for i, k in enumerate(plan)]
    return with_biases(Net([*layers, nets.dense(3, 1, "linear", rng=rng(9), dtype=F64)]), rng(1))


def test_measure_offers_them():
    from lib import influence

    for name in ("influence", "coherence", "sign_flips", "Influence", "Coherence"):
        assert getattr(measure, name) is getattr(influence, name)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (lambda: plain([3, 4, 4, 1]), [0, 1, 2, 3]),
        (residual, [0, 1, 3, 5, 7, 8]),
        (lambda: skips([1, 0, 1]), [0, 1, 2, 3, 4]),
        (lambda: skips([0, 2, 2, 2]), [0, 4, 5]),
        (lambda: skips([0, 2, 0, 2]), [0, 2, 4, 5]),
        (lambda: skips([0, 0, 2, 2]), [0, 1, 4, 5]),
        (lambda: skips([0, 0, 3]), [0, 3, 4]),
    ],
)
def test_cuts(net, expected):
    assert cuts(net()) == expected


def test_by_hand():
    """Two inputs to two units (+, -) to two units (+, -): each quantity worked out on paper."""
    t = lambda *rows: torch.tensor(rows, dtype=F64)  # noqa: E731
    sign = torch.tensor([1.0, -1.0], dtype=F64)
    net = Net(
        [
            Dense(t([1.0, 0.0], [0.0, 1.0]), t(0.0, 0.0), "relu", sign=sign),
            Dense(t([1.0, -1.0], [2.0, 1.0]), t(0.0, 0.0), "relu", sign=sign),
            Dense(t([3.0, -1.0]), t(0.0), "linear"),
        ]
    )
    x = t([2.0, 2.0], [2.0, -1.0], [-1.0, 3.0])  # hidden: (2, -2), (2, 0), (0, -3)
    found = measure.influence(net, x)  # second drives: (4, 2), (2, 4), (3, -3)
    assert found.tau[0].tolist() == [[-1, -2], [-1, -2], [1, -1]]
    assert found.pi[0].tolist() == [[5, -2], [5, -2], [3, -3]]
    assert found.tau[1].tolist() == found.pi[1].tolist() == [[3, -1]] * 3
    assert found.active[0].tolist() == [[True, True], [True, False], [False, True]]
    assert found.active[1].tolist() == [[True, True], [True, True], [True, False]]
    shares = measure.coherence(net, x)
    assert shares.positive.tolist() == [2 / 4, 3 / 5]  # (+, -), (+), (-); (+, -) twice, (+)
    assert shares.agreement.tolist() == [2 / 4, 1.0]  # tau pi < 0 for the first unit, twice
    assert measure.sign_flips(net, x).tolist() == [0, 0]


@pytest.mark.parametrize("output", [0, 2, "each"])
@pytest.mark.parametrize("out", ["linear", "softmax"])
@pytest.mark.parametrize("kind", ["plain", "residual", "tanh", "conv"])
def test_against_autograd(kind, out, output):
    if kind == "conv":
        net = nets.convnet((1, 5, 4), conv=[(3, 2, 1)], dense_sizes=[5, 3], rng=rng(), dtype=F64)
    elif kind == "residual":
        net = residual(3)
    else:
        net = plain([3, 5, 4, 6, 3], act="tanh" if kind == "tanh" else "signed_relu", out=out)
    x = tensor(rng(4), 6, net.layers[0].n_in)
    output = torch.tensor([0, 1, 2, 2, 1, 0]) if output == "each" else output
    found, trace, at = measure.influence(net, x, output=output), net.trace(x), cuts(net)
    answer = trace.drives[-1][torch.arange(6), output].sum()
    for value, tau, pi in zip(trace.values[1:-1], found.tau, found.pi, strict=True):
        exact = torch.autograd.grad(answer, value, retain_graph=True)[0]
        assert float((pi - exact).abs().max()) < 1e-13
        index = next(i for i, v in enumerate(trace.values) if v is value)
        goal = min(c for c in at if c > index)
        total = answer if goal == at[-1] else trace.values[goal].sum()
        exact = torch.autograd.grad(total, value, retain_graph=True)[0]
        assert float((tau - exact).abs().max()) < 1e-13


@PROPERTY
@given(st.integers(0, 10**6), st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_factorisation(seed, hidden):
    """Backprop's error at every unit is beta times pi: one number for all, one for each."""
    net = plain([3, *hidden, 1], seed)
    x, y = tensor(rng(seed), 5, 3), tensor(rng(seed + 1), 5, 1)
    trace, rule = net.trace(x), Backprop(net)
    beta = losses.output_error(net, trace, y, "mse")
    deltas = rule.credit(net, trace, beta)
    found = measure.influence(net, x)
    for layer, delta, pi, on in zip(net.layers, deltas, found.pi, found.active, strict=False):
        assert float((delta - beta * pi * layer.sign * on).detach().abs().max()) < 1e-12


def test_pi_is_the_sum_over_paths():
    net = plain([3, 4, 5, 4, 1])
    x = tensor(rng(2), 1, 3)
    on = [(d[0] > 0).double() for d in net.trace(x).drives]
    sign = [layer.sign for layer in net.layers[:3]]
    w = [layer.weight.detach() for layer in net.layers]
    pi = measure.influence(net, x).pi[0][0]
    for j in range(4):
        total = sum(
            sign[1][k] * on[1][k] * w[1][k, j] * sign[2][m] * on[2][m] * w[2][m, k] * w[3][0, m]
            for k, m in itertools.product(range(5), range(4))
        )
        assert abs(float(total - pi[j])) < 1e-14


@pytest.mark.parametrize("side", [-1e-9, 1e-9])
def test_on_both_sides_of_a_kink(side):
    """A unit a hair above its threshold passes its weight on, a hair below nothing."""
    net, x = plain([2, 3, 3, 1]), tensor(rng(1), 1, 2)
    net.layers[1].bias.data[1] += side - net.trace(x).drives[1][0, 1].detach()
    trace, found = net.trace(x), measure.influence(net, x)
    exact = torch.autograd.grad(trace.drives[-1].sum(), trace.values[1])[0]
    assert float((found.pi[0] - exact).abs().max()) < 1e-14
    assert bool(found.active[1][0, 1]) == (side > 0)


def test_walk_is_backprop():
    for plan in ([1, 0, 2, 2, 1], [0, 1, 2, 3], [0, 2, 0, 2]):
        net = skips(plan)
        x, y = tensor(rng(1), 4, 3), tensor(rng(2), 4, 1)
        trace = net.trace(x)
        beta = losses.output_error(net, trace, y, "mse")
        deltas, _ = walk(net, trace, beta, len(net.layers), 0)
        wanted = Backprop(net).credit(net, trace, beta)
        assert all(torch.allclose(deltas[i], d, atol=1e-14) for i, d in enumerate(wanted))


def test_several_outputs_need_a_choice():
    net = plain([3, 4, 4, 2])
    for call in (measure.influence, measure.coherence, measure.sign_flips):
        with pytest.raises(ValueError, match="2 outputs: say output="):
            call(net, tensor(rng(), 3, 3))


def test_a_coherent_and_a_random_net():
    x = tensor(rng(1), 200, 10)
    net = nets.mlp([10, 40, 40, 40, 1], init="coherent", rng=rng(), dtype=F64)
    found = measure.coherence(net, x)
    assert found.positive.tolist() == found.agreement.tolist() == [1, 1, 1]
    assert measure.sign_flips(net, x).tolist() == [0, 0, 0]
    free = measure.coherence(plain([10, 40, 40, 40, 1]), x)
    assert (np.abs(free.positive - 0.5) < 0.25).all() and free.agreement[-1] == 1
    silent = copy.deepcopy(net)
    silent.layers[1].weight.data.zero_()
    silent.layers[1].bias.data.fill_(-1.0)
    assert np.isnan(measure.coherence(silent, x).positive[0])
    assert np.isnan(measure.sign_flips(silent, x)[0])


# --- sign flips


def by_pairs(pi, group=None) -> float:
    differ = pairs = 0
    for a, b in itertools.combinations(range(len(pi)), 2):
        if group is not None and group[a] != group[b]:
            continue
        both = (pi[a] != 0) & (pi[b] != 0)
        differ += int(((pi[a] > 0) != (pi[b] > 0))[both].sum())
        pairs += int(both.sum())
    return differ / pairs


@pytest.mark.parametrize("grouped", [False, True])
def test_flips_count_every_pair_once(grouped):
    net, x = plain([3, 6, 6, 6, 1], act="relu"), tensor(rng(3), 15, 3)
    group = torch.arange(15) % 3 if grouped else None
    wanted = [by_pairs(pi, group) for pi in measure.influence(net, x).pi]
    found = measure.sign_flips(net, x, group=group)
    assert found == pytest.approx(np.array(wanted), abs=1e-14)
    assert found[-1] == 0 < found[0]


def test_flips_between_two_times():
    net, x = plain([3, 6, 6, 1]), tensor(rng(3), 15, 3)
    assert measure.sign_flips(net, x, other=net).tolist() == [0, 0]
    turned = copy.deepcopy(net)
    turned.layers[2].weight.data *= -1
    assert measure.sign_flips(net, x, other=turned).tolist() == [1, 1]
    turned.layers[2].weight.data[0, :3] *= -1
    assert measure.sign_flips(net, x, other=turned)[1] == 0.5


def test_flips_follow_the_arccos_law():
    """Wide and random, two layers below the output: about arccos(c)/pi, c the gates' overlap."""
    net, x = plain([30, 400, 400, 1], act="relu"), tensor(rng(3), 60, 30)
    for layer in net.layers:
        layer.bias.data.zero_()
    on = (net.trace(x).drives[1] > 0).double()
    c = (on @ on.T) / torch.sqrt(on.sum(1)[:, None] * on.sum(1)[None])
    law = (torch.arccos(c.clamp(-1, 1)) / np.pi)[~torch.eye(60, dtype=torch.bool)].mean()
    assert measure.sign_flips(net, x)[0] == pytest.approx(float(law), abs=0.03)
