"""lib.coherent: signs, initialisation, projection, the dual rail, modules."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers import F64, tensor, with_biases
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import coherent, measure, nets
from lib.nets import Dense, Net
from lib.rules import Backprop

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)
SEEDS = st.integers(0, 10**6)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mlp(sizes, seed=0, **options) -> Net:
    return nets.mlp(sizes, rng=rng(seed), dtype=F64, **options)


def t(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=F64)


def test_names_are_also_found_in_nets():
    for name in nets._COHERENT:
        assert getattr(nets, name) is getattr(coherent, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = nets.no_such_name


# --- signs and initialisation


def test_default_init_is_what_it_was():
    """The same weights, from the same draws, as layer by layer with ``dense``."""
    net, draws = mlp([3, 5, 4, 2], 3, activation="signed_relu"), rng(3)
    for layer, act in zip(net.layers, ["signed_relu"] * 2 + ["linear"], strict=True):
        again = nets.dense(layer.n_in, layer.n_out, act, rng=draws, dtype=F64)
        assert torch.equal(layer.weight, again.weight) and not layer.bias.any()


def test_signs_are_set_per_layer():
    net = mlp([3, 2, 4, 2, 1], activation="signed_relu", signs=[[-1, -1], None, np.array([1, -1])])
    assert [la.sign.tolist() for la in net.layers[:3]] == [[-1, -1], [1, -1, 1, -1], [1, -1]]
    assert net.layers[3].sign is None
    fired = net.trace(tensor(rng(), 20, 3)).fired[0]
    assert (fired <= 0).all() and (fired < 0).any()
    assert mlp([3, 2, 1], signs=[[1, -1]]).layers[0].sign.dtype == F64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signs": [[1, -1]]}, r"signs for 2 hidden layers, found 1"),
        ({"signs": [None, [1, -1, 1]]}, r"4 signs \+1 or -1 for layer 1"),
        ({"signs": [[1, 0, 1], None]}, r"3 signs \+1 or -1 for layer 0"),
        ({"signs": [[1, 1, 1], None], "activation": "tanh"}, r"layer 0 is tanh"),
        ({"init": "coherent", "activation": "sigmoid"}, r"layer 0 is sigmoid"),
        ({"init": "he"}, r"unknown init 'he'"),
    ],
)
def test_bad_signs_and_inits(options, message):
    with pytest.raises(ValueError, match=message):
        mlp([2, 3, 4, 1], **options)


@pytest.mark.parametrize("act", ["relu", "signed_relu"])
@pytest.mark.parametrize("hidden", range(1, 9))
def test_coherent_nets_are_coherent_and_of_the_he_nets_size(act, hidden):
    """Root mean square and deviation of the output, over ten nets, within a factor 2 of He's."""
    rms, std = [], []
    for seed in range(10):
        x, sizes = tensor(rng(seed + 50), 500, 21), [21, *[48] * hidden, 1]
        he, ours = (mlp(sizes, seed, activation=act, init=i) for i in ("default", "coherent"))
        nets.require_coherent(ours)
        assert all(layer.bias.unique().numel() > 1 for layer in ours.layers[:-1])
        with torch.no_grad():
            rms.append([float(net(x).square().mean().sqrt()) for net in (he, ours)])
            std.append([float(net(x).std()) for net in (he, ours)])
    for pairs in (rms, std):
        he, ours = np.mean(pairs, axis=0)
        assert 0.5 < ours / he < 2


def test_without_the_scale_it_explodes():
    """What calibrating cures: absolute He weights grow by about sqrt(n/pi) a layer."""
    net = mlp([20, *[64] * 6, 1], activation="signed_relu")
    for layer in net.layers[1:]:
        s = 1.0 if layer.sign is None else layer.sign[:, None]
        layer.weight.data = s * layer.weight.data.abs()
    with torch.no_grad():
        trace = net.trace(tensor(rng(1), 300, 20))
    values = [float(v.abs().mean()) for v in trace.values[1:-1]]
    growth = np.array(values[2:]) / np.array(values[1:-1])
    assert (growth > 2.5).all()  # sqrt(64 / pi) = 4.5


def test_calibrate_gives_unit_drives_and_keeps_signs():
    net, x = mlp([6, 40, 30, 2], activation="signed_relu"), 3 + 2 * tensor(rng(1), 400, 6)
    before = copy.deepcopy(net)
    nets.calibrate(net, x, rng=rng(2))
    for a, b, drive in zip(before.layers, net.layers, net.trace(x).drives, strict=True):
        drive = (drive - drive.mean(0)).detach()
        assert float(drive.square().mean().sqrt()) == pytest.approx(1, abs=1e-12)
        ratio = (a.weight / b.weight).detach()
        assert float(ratio.min()) == pytest.approx(float(ratio.max())) and float(ratio.min()) > 0
    means = net.trace(x).drives[0].mean(0)  # the thresholds: random, of size 1
    assert 0.6 < float(means.detach().std()) < 1.5
    assert float(net(x).detach().mean(0).abs().max()) < 1e-12


def test_calibrate_survives_a_silent_layer_and_refuses_skips():
    net = mlp([3, 4, 1])
    net.layers[0].weight.data.zero_()
    nets.calibrate(net, tensor(rng(), 10, 3), rng=rng())
    assert all(torch.isfinite(p).all() for p in net.parameters())
    with pytest.raises(ValueError, match="layer 2 has a skip"):
        nets.calibrate(
            nets.residual_mlp(3, 4, 1, blocks=1, rng=rng(), dtype=F64), t([1.0, 2, 3]), rng=rng()
        )


# --- the check and the projection


def small() -> Net:
    """Coherent: a positive and a negative unit over a positive one."""
    return Net(
        [
            Dense(t([-1.0], [2.0]), t(0.5, -0.5), "relu", sign=t(1.0, -1.0)),
            Dense(t([1.0, 0.0], [-2.0, -3.0]), t(-1.0, 1.0), "relu", sign=t(1.0, -1.0)),
            Dense(t([1.0, 2.0]), t(-9.0), "linear"),
        ]
    )


@pytest.mark.parametrize(
    ("layer", "k", "j", "value"), [(1, 0, 1, -0.25), (1, 1, 0, 0.25), (2, 0, 1, -1.5)]
)
def test_one_wrong_sign_is_found_and_mended(layer, k, j, value):
    net = small()
    assert nets.is_coherent(net)
    net.layers[layer].weight.data[k, j] = value
    assert not nets.is_coherent(net)
    found = rf"in layer {layer}, 1 of \d weights .*the one from {j} into unit {k}, {value}"
    with pytest.raises(ValueError, match=found):
        nets.require_coherent(net)
    wanted = [p.clone() for p in net.parameters()]
    wanted[2 * layer][k, j] = 0
    nets.project_coherent(net)
    assert all(torch.equal(a, b) for a, b in zip(wanted, net.parameters(), strict=True))
    nets.require_coherent(net)


def test_what_else_is_not_coherent():
    net = small()
    net.layers[1].weight.data[0, 0] = float("nan")
    assert not nets.is_coherent(net)
    net = nets.residual_mlp(3, 4, 1, blocks=1, scale=-0.5, rng=rng(), dtype=F64)
    nets.project_coherent(net)
    with pytest.raises(ValueError, match=r"layer 2, its gain is -0\.5"):
        nets.require_coherent(net)
    net = Net(
        [Dense(t([1.0], [1.0]), t(0.0, 0.0), "softmax"), Dense(t([1.0, 1.0]), t(0.0), "relu")]
    )
    with pytest.raises(ValueError, match="layer 0, softmax"):
        nets.require_coherent(net)


def test_projection_of_images():
    net = nets.convnet(
        (1, 6, 6),
        conv=[(2, 3, 1), (4, 2, 1)],
        dense_sizes=[3, 1],
        activation="signed_relu",
        rng=rng(),
        dtype=F64,
    )
    first = net.layers[0].weight.detach().clone()
    assert not nets.is_coherent(net)
    nets.project_coherent(net)
    nets.require_coherent(net)
    assert torch.equal(first, net.layers[0].weight) and (net.layers[1].weight[1] <= 0).all()
    assert net.layers[1].weight.any()


@PROPERTY
@given(SEEDS, st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_coherent_means_no_negative_influence(seed, hidden):
    net = mlp([3, *hidden, 1], seed, activation="signed_relu")
    nets.project_coherent(net)
    found = measure.influence(net, tensor(rng(seed), 5, 3))
    assert all((a >= 0).all() for a in (*found.tau, *found.pi))


# --- the dual rail


@PROPERTY
@given(
    SEEDS,
    st.lists(st.integers(1, 12), min_size=0, max_size=6),
    st.integers(1, 3),
    st.sampled_from(["relu", "signed_relu"]),
)
def test_dual_rail_is_exact_and_coherent(seed, hidden, n_out, act):
    net = with_biases(mlp([4, *hidden, n_out], seed, activation=act), rng(seed))
    dual, x = nets.dual_rail(net), tensor(rng(seed + 1), 8, 4)
    nets.require_coherent(dual)
    assert float((dual(x) - net(x)).detach().abs().max()) < 1e-10
    doubled = hidden if n_out > 1 else hidden[:-1]
    wanted = [2 * n for n in doubled] + hidden[len(doubled) :] + [n_out]
    assert [layer.n_out for layer in dual.layers] == wanted


@pytest.mark.parametrize("depth", range(1, 7))
def test_dual_rail_at_depth(depth):
    """Width 24, biases, ten nets: equal within 1e-10; the difference grows with depth."""
    for seed in range(10):
        net = with_biases(mlp([6, *[24] * depth, 1], seed), rng(seed))
        x = tensor(rng(seed + 1), 50, 6)
        assert float((nets.dual_rail(net)(x) - net(x)).detach().abs().max()) < 1e-10


def test_dual_rail_by_hand():
    """|relu(x) - 1| with widths 1, 2 becomes widths 2, 2."""
    net = Net(
        [
            Dense(t([1.0]), t(0.0), "relu"),
            Dense(t([1.0], [-1.0]), t(-1.0, 1.0), "relu"),
            Dense(t([1.0, -2.0]), t(0.0), "linear"),
        ]
    )
    dual = nets.dual_rail(net)
    assert [la.weight.tolist() for la in dual.layers] == [
        [[1], [1]],
        [[1, 0], [-1, 0]],
        [[1, 2]],
    ]
    assert [la.bias.tolist() for la in dual.layers] == [[0, 0], [-1, 1], [0]]
    assert dual.layers[0].sign.tolist() == dual.layers[1].sign.tolist() == [1, -1]
    assert dual(t([3.0], [0.25])).flatten().tolist() == [2.0, -1.5]


def test_the_two_rails_credit_differs_by_the_signed_credit():
    """pi_p - pi_q = pi of the unit, and both rails have the same tau."""
    net = with_biases(mlp([4, 6, 5, 7, 1]), rng(1))
    x = tensor(rng(2), 9, 4)
    one, two = measure.influence(net, x), measure.influence(nets.dual_rail(net), x)
    for pi, rails in zip(one.pi[:2], two.pi, strict=False):
        p, q = rails.chunk(2, dim=1)
        assert float((p - q - pi).abs().max()) < 1e-13
    for tau in two.tau[:1]:
        p, q = tau.chunk(2, dim=1)
        assert torch.allclose(p, q, atol=1e-14)


def test_dual_rail_is_a_copy():
    net = mlp([3, 4, 4, 1])
    dual = nets.dual_rail(net)
    for p in dual.parameters():
        p.data.add_(1.0)
    assert nets.fingerprint(net) == nets.fingerprint(mlp([3, 4, 4, 1]))
    assert all(p.requires_grad and p.is_leaf for p in dual.parameters())


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: nets.residual_mlp(3, 4, 1, blocks=1, rng=rng()), r"layer 0 .*linear"),
        (lambda: mlp([3, 4, 4, 1], activation="tanh"), r"layer 0 .*tanh"),
        (lambda: nets.modules([mlp([3, 4, 1])]), r"layer 0 is Modules"),
        (
            lambda: Net(
                [nets.dense(3, 3, "relu", rng=rng(), skip=1), nets.dense(3, 1, "linear", rng=rng())]
            ),
            r"layer 0 .*skip=1",
        ),
        (
            lambda: nets.convnet((1, 4, 4), conv=[(2, 2, 1)], dense_sizes=[1], rng=rng()),
            r"layer 0 is Conv",
        ),
    ],
)
def test_what_the_dual_rail_refuses(net, message):
    with pytest.raises(ValueError, match=message):
        nets.dual_rail(net())


# --- modules


def parts(count=3, act="signed_relu") -> list[Net]:
    return [with_biases(mlp([4, 5, 3, 1], i, activation=act), rng(i + 9)) for i in range(count)]


@pytest.mark.parametrize("act", ["relu", "signed_relu", "tanh"])
def test_modules_answer_side_by_side(act):
    ps = parts(act=act)
    net, x = nets.modules(ps), tensor(rng(5), 7, 4)
    assert torch.allclose(net(x), torch.cat([p(x) for p in ps], dim=1), atol=1e-14)
    assert [la.tag.tolist() for la in net.layers][1:] == [[0] * 3 + [1] * 3 + [2] * 3, [0, 1, 2]]
    assert nets.modules(ps, output="softmax").output == "softmax"
    assert [p.output for p in ps] == ["linear"] * 3


def test_backprop_through_modules_is_backprop_in_each():
    ps = parts()
    net, x, y = nets.modules(ps), tensor(rng(5), 7, 4), tensor(rng(6), 7, 3)
    Backprop(net)(net, x, y)
    for i, part in enumerate(ps):
        Backprop(part)(part, x, y[:, i : i + 1])
    for index, layer in enumerate(net.layers):
        alone = [p.layers[index].weight.grad for p in ps]
        wanted = torch.block_diag(*alone) if index else torch.cat(alone)
        assert torch.allclose(layer.weight.grad, wanted, atol=1e-14)
        assert torch.equal(layer.weight.grad != 0, (wanted != 0))


@pytest.mark.parametrize(
    "bad",
    [
        lambda: [],
        lambda: [mlp([4, 5, 1]), mlp([4, 6, 1])],
        lambda: [mlp([4, 5, 1]), mlp([4, 5, 1], activation="tanh")],
        lambda: [mlp([4, 5, 2])],
        lambda: [nets.residual_mlp(3, 4, 1, blocks=1, rng=rng())],
        lambda: [nets.convnet((1, 4, 4), conv=[(2, 2, 1)], dense_sizes=[1], rng=rng())],
    ],
)
def test_what_modules_refuses(bad):
    with pytest.raises(ValueError, match="expected one or more plain dense nets of equal sizes"):
        nets.modules(bad())


def test_parity_looks_only_at_weights_that_modules_have():
    draw = rng()
    net = nets.modules([nets.mlp([4, 3, 1], rng=draw, dtype=torch.float64) for _ in range(5)])
    x = torch.from_numpy(draw.normal(size=(9, 4)))
    y = torch.from_numpy(draw.normal(size=(9, 5)))
    assert measure.parity(net, Backprop(net), x, y, rng=draw) < 1e-6
