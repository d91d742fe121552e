"""lib.nets: activations, the three maps of a layer, skips, builders, fingerprints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import BUILDERS, F64, build, tensor
from torch.nn import functional as F

from lib import nets, rules
from lib.nets import ACTIVATIONS, HIDDEN, OUTPUT, Conv, Dense, Net

# Near the kink at 0 from both sides, between 0 and 1, and beyond 1 in both directions.
POINTS = [-40.0, -3.7, -1.0, -0.3, -1e-3, 1e-3, 0.2, 0.5, 0.99, 1.01, 2.5, 17.0, 40.0]
ELEMENTWISE = ["linear", "relu", "sigmoid", "tanh"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- activations


@pytest.mark.parametrize(
    ("name", "a", "f", "slope"),
    [
        ("linear", -2.0, -2.0, 1.0),
        ("relu", -0.5, 0.0, 0.0),
        ("relu", 0.25, 0.25, 1.0),
        ("relu", 3.0, 3.0, 1.0),
        ("sigmoid", 0.0, 0.5, 0.25),
        ("sigmoid", np.log(3.0), 0.75, 0.1875),
        ("tanh", 0.0, 0.0, 1.0),
        ("tanh", 0.5 * np.log(3.0), 0.5, 0.75),
    ],
)
def test_activation_by_hand(name, a, f, slope):
    act, drive = ACTIVATIONS[name], torch.tensor([a], dtype=F64)
    fired = act.value(drive)
    assert fired.item() == pytest.approx(f, abs=1e-15)
    assert act.slope(drive, fired).item() == pytest.approx(slope, abs=1e-15)


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("a", POINTS)
def test_slope_equals_finite_differences(name, a):
    """Also on both sides of the kink: the step is far smaller than the distance to it."""
    act, eps = ACTIVATIONS[name], 1e-6
    drive = torch.tensor([a - eps, a, a + eps], dtype=F64)
    fired = act.value(drive)
    numeric = (fired[2] - fired[0]) / (2 * eps)
    assert act.slope(drive, fired)[1].item() == pytest.approx(numeric.item(), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_slope_equals_autograd(name):
    drive = torch.tensor([*POINTS, 0.0], dtype=F64, requires_grad=True)
    fired = ACTIVATIONS[name].value(drive)
    (exact,) = torch.autograd.grad(fired.sum(), drive)
    found = ACTIVATIONS[name].slope(drive.detach(), fired.detach())
    assert torch.allclose(found, exact, rtol=0, atol=1e-14)


def test_relu_has_slope_0_at_the_kink_itself():
    zero = torch.zeros(1, dtype=F64)
    assert ACTIVATIONS["relu"].slope(zero, zero).item() == 0


def test_saturated_units_have_slope_0():
    drive = torch.tensor([-800.0, 800.0], dtype=F64)
    for name in ("sigmoid", "tanh"):
        fired = ACTIVATIONS[name].value(drive)
        assert ACTIVATIONS[name].slope(drive, fired).tolist() == [0, 0]


def test_softmax_has_no_slope_but_says_what_to_use():
    f = torch.tensor([[0.3, 0.7]])
    with pytest.raises(ValueError, match=r"Jacobian, not a slope: use layer\.pull"):
        ACTIVATIONS["softmax"].slope(f, f)


# --- fire and pull


def dense_layer(activation: str, n: int = 3, sign: list[float] | None = None) -> Dense:
    signs = None if sign is None else torch.tensor(sign, dtype=F64)
    return Dense(torch.eye(n, dtype=F64), torch.zeros(n, dtype=F64), activation, sign=signs)


def test_softmax_pull_by_hand():
    """f = (1/2, 1/4, 1/4), signal (1, 0, 0): f . (s - 1/2) = (1/4, -1/8, -1/8)."""
    layer = dense_layer("softmax")
    drive = torch.log(torch.tensor([[2.0, 1.0, 1.0]], dtype=F64))
    fired = layer.fire(drive)
    signal = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    expected = torch.tensor([[0.25, -0.125, -0.125]], dtype=F64)
    assert torch.allclose(layer.pull(signal, drive, fired), expected, rtol=0, atol=1e-15)


def test_softmax_pull_ignores_what_is_equal_for_all_units():
    layer, r = dense_layer("softmax"), rng()
    drive, signal = tensor(r, 4, 3), tensor(r, 4, 3)
    fired = layer.fire(drive)
    one, other = (layer.pull(s, drive, fired) for s in (signal, signal + 5.0))
    assert torch.allclose(one, other, atol=1e-14)
    assert torch.allclose(one.sum(1), torch.zeros(4, dtype=F64), atol=1e-14)


SIGNED = [(name, [1.0, -1.0, -1.0]) for name in ELEMENTWISE]


@pytest.mark.parametrize(
    ("activation", "sign"), [*SIGNED, *((a, None) for a, _ in SIGNED), ("softmax", None)]
)
def test_pull_is_the_vector_jacobian_product(activation, sign):
    layer, r = dense_layer(activation, sign=sign), rng()
    drive, signal = tensor(r, 5, 3, scale=2).requires_grad_(), tensor(r, 5, 3)
    fired = layer.fire(drive)
    (exact,) = torch.autograd.grad(fired, drive, signal)
    found = layer.pull(signal, drive.detach(), fired.detach())
    assert torch.allclose(found, exact, rtol=0, atol=1e-14)


def test_minus_units_fire_downwards_and_pull_downwards():
    layer = dense_layer("relu", sign=[1.0, -1.0, -1.0])
    drive = torch.tensor([[2.0, 2.0, -2.0]], dtype=F64)
    fired = layer.fire(drive)
    assert fired.tolist() == [[2.0, -2.0, 0.0]]
    assert layer.pull(torch.ones(1, 3, dtype=F64), drive, fired).tolist() == [[1.0, -1.0, 0.0]]


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match=r"unknown activation 'swish'; expected one of linear, "):
        dense_layer("swish")


# --- the three maps


def test_dense_maps_by_hand():
    layer = Dense(
        torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=F64),
        torch.tensor([10.0, 20.0], dtype=F64),
        "linear",
    )
    x = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]], dtype=F64)
    d = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=F64)
    assert layer.drive(x).tolist() == [[8.0, 18.0], [12.0, 25.0]]
    assert layer.transpose(d).tolist() == [[9.0, 12.0, 15.0], [-4.0, -5.0, -6.0]]
    dw, db = layer.correlate(d, x)
    assert dw.tolist() == [[1.0, 0.0, -1.0], [2.0, -1.0, -2.0]]
    assert db.tolist() == [1.0, 1.0]


def test_conv_maps_by_hand():
    """A 2 x 2 kernel on 3 x 3 pixels: the upper left window is 0 1 3 4, the lower right 4 5 7 8."""
    layer = Conv(
        torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=F64),
        torch.tensor([100.0], dtype=F64),
        "linear",
        in_shape=(1, 3, 3),
        stride=1,
    )
    x = torch.arange(9, dtype=F64).reshape(1, 1, 3, 3)
    assert layer.drive(x).flatten().tolist() == [127.0, 137.0, 157.0, 167.0]
    d = torch.tensor([[[[1.0, 0.0], [0.0, 10.0]]]], dtype=F64)
    assert layer.transpose(d).flatten().tolist() == [1, 2, 0, 3, 14, 20, 0, 30, 40]
    dw, db = layer.correlate(d, x)
    assert dw.flatten().tolist() == [40.0, 51.0, 73.0, 84.0]
    assert db.tolist() == [11.0]


def a_conv(stride: int, in_shape=(2, 7, 6), k: int = 3, c_out: int = 4) -> Conv:
    r = rng(stride)
    weight, bias = tensor(r, c_out, in_shape[0], k, k), tensor(r, c_out)
    return Conv(weight, bias, "tanh", in_shape=in_shape, stride=stride)


def a_dense() -> Dense:
    return Dense(tensor(rng(7), 5, 8), tensor(rng(8), 5), "tanh")


LAYERS = {
    "dense": a_dense,
    "conv, stride 1": lambda: a_conv(1),
    "conv, stride 2 (7 x 6: the last column is never seen)": lambda: a_conv(2),
    "conv, stride 3": lambda: a_conv(3),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_transpose_and_correlate_are_the_adjoints_of_drive(kind):
    """<W x, d> = <x, W^T d> = <W, d (x) x>, with the bias left out of W x."""
    layer, r = LAYERS[kind](), rng(1)
    x = tensor(r, 3, layer.n_in)
    wx = layer.drive(x) - layer.drive(torch.zeros_like(x))
    d = tensor(r, *wx.shape)
    forward = (wx * d).sum().item()
    back = layer.transpose(d)
    dw, db = layer.correlate(d, x)
    assert (x * back.reshape(x.shape)).sum().item() == pytest.approx(forward, abs=1e-11)
    assert (dw * layer.weight).sum().item() == pytest.approx(forward, abs=1e-11)
    assert dw.shape == layer.weight.shape and db.shape == layer.bias.shape
    exact = torch.autograd.grad(layer.drive(x), [layer.weight, layer.bias], d)
    assert torch.allclose(dw, exact[0], atol=1e-12) and torch.allclose(db, exact[1], atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_transpose_goes_through_the_weights_it_is_given(kind):
    layer, r = LAYERS[kind](), rng(2)
    d = tensor(r, *layer.drive(tensor(r, 3, layer.n_in)).shape)
    other = tensor(r, *layer.weight.shape)
    own = layer.weight.detach().clone()
    through = layer.transpose(d, other)
    assert torch.equal(layer.weight, own)
    layer.weight.data = other
    assert torch.allclose(through, layer.transpose(d), atol=1e-14)
    layer.weight.data = own
    assert torch.allclose(layer.transpose(d), layer.transpose(d, own))
    assert not torch.allclose(through, layer.transpose(d))


def unrolled(conv: Conv) -> Dense:
    """The dense layer whose rows are the convolution's windows, weight by weight in a loop."""
    c_out, _, k, _ = conv.weight.shape
    _, rows, cols = conv.out_shape
    weight = torch.zeros(c_out, rows, cols, *conv.in_shape, dtype=F64)
    for i in range(rows):
        for j in range(cols):
            top, left = i * conv.stride, j * conv.stride
            weight[:, i, j, :, top : top + k, left : left + k] = conv.weight.detach()
    bias = conv.bias.detach()[:, None, None].expand(c_out, rows, cols)
    return Dense(
        weight.reshape(c_out * rows * cols, -1), bias.reshape(-1).clone(), conv.activation.name
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_equals_an_unrolled_dense_layer(stride):
    conv, r = a_conv(stride, in_shape=(2, 5, 4), k=2), rng(3)
    dense = unrolled(conv)
    x = tensor(r, 3, conv.n_in)
    a = conv.drive(x)
    assert torch.allclose(a.flatten(1), dense.drive(x), atol=1e-13)
    assert torch.allclose(conv.fire(a).flatten(1), dense.fire(dense.drive(x)), atol=1e-13)
    d = tensor(r, *a.shape)
    assert torch.allclose(
        conv.transpose(d).flatten(1), dense.transpose(d.flatten(1)), rtol=0, atol=1e-13
    )
    assert (conv.n_in, conv.n_out) == (dense.n_in, dense.n_out)


@pytest.mark.parametrize(
    ("in_shape", "k", "stride", "expected"),
    [
        ((1, 28, 28), 5, 1, (4, 24, 24)),
        ((3, 8, 8), 3, 2, (4, 3, 3)),
        ((2, 7, 6), 3, 2, (4, 3, 2)),
        ((1, 4, 4), 4, 3, (4, 1, 1)),
    ],
)
def test_the_shape_of_a_convolution(in_shape, k, stride, expected):
    layer = a_conv(stride, in_shape=in_shape, k=k)
    assert layer.out_shape == expected
    assert tuple(layer.drive(tensor(rng(), 2, layer.n_in)).shape) == (2, *expected)


# --- nets: the trace and its skips


def two_layers(skip: int, gain: float) -> Net:
    """1 unit: a = 2 x + 1, then a = 3 h - 4 (with the skip), then the answer a = h."""

    def layer(w: float, b: float, **options) -> Dense:
        w, b = torch.tensor([[w]], dtype=F64), torch.tensor([b], dtype=F64)
        return Dense(w, b, "relu", **options)

    return Net([layer(2.0, 1.0), layer(3.0, -4.0, skip=skip, gain=gain), layer(1.0, 0.0)])


@pytest.mark.parametrize(
    ("skip", "gain", "expected"),
    [(0, 9.0, 5.0), (1, 1.0, 8.0), (1, 0.5, 5.5), (2, 1.0, 6.0), (2, 0.5, 3.5), (2, 0.0, 1.0)],
)
def test_a_skip_by_hand(skip, gain, expected):
    """x = 1: h = 3, own part 5; a skip of 1 adds h = 3, of 2 adds x = 1; gain scales the 5."""
    trace = two_layers(skip, gain).trace(torch.ones(1, 1, dtype=F64))
    assert [v.item() for v in trace.values] == [1.0, 3.0, expected, expected]
    assert [a.item() for a in trace.drives] == [3.0, 5.0, expected]
    assert [f.item() for f in trace.fired] == [3.0, 5.0, expected]


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_trace_holds_what_each_layer_read_and_gave(kind):
    net, x = build(kind, "signed_relu", "tanh")
    trace = net.trace(x)
    assert torch.equal(trace.values[0], x) and torch.equal(trace.values[-1], net(x))
    assert len(trace.values) == len(net.layers) + 1
    for i, layer in enumerate(net.layers):
        assert torch.equal(trace.drives[i], layer.drive(trace.values[i]))
        assert torch.equal(trace.fired[i], layer.fire(trace.drives[i]))
        below = trace.values[i + 1 - layer.skip] if layer.skip else 0
        own = layer.gain * trace.fired[i] if layer.skip else trace.fired[i]
        assert torch.allclose(trace.values[i + 1], below + own, rtol=0, atol=1e-15)


def test_a_residual_net_by_its_formula():
    """h = E x; h = h + alpha W2 f(W1 h), twice; y = H h: written out with matrices."""
    net, x = build("residual", "tanh", "sigmoid")
    w = [(layer.weight.detach(), layer.bias.detach()) for layer in net.layers]
    h = x @ w[0][0].T + w[0][1]
    for one, two in ((1, 2), (3, 4)):
        inner = torch.tanh(h @ w[one][0].T + w[one][1])
        h = h + 0.7 * (inner @ w[two][0].T + w[two][1])
    answer = torch.sigmoid(h @ w[5][0].T + w[5][1])
    assert torch.allclose(net(x), answer, rtol=0, atol=1e-14)


def test_with_scale_0_a_residual_net_is_its_plain_part():
    net = nets.residual_mlp(4, 5, 3, blocks=3, scale=0.0, rng=rng(), dtype=F64)
    plain = Net([net.layers[0], net.layers[-1]])
    x = tensor(rng(1), 6, 4)
    assert torch.equal(net(x), plain(x))


def test_the_default_scale_keeps_the_stream_at_any_depth():
    """alpha = 1/sqrt(blocks): the stream's mean square grows by about (1 + c/B)^B, not 2^B."""
    x = tensor(rng(5), 200, 20)
    growth = []
    for blocks in (1, 64):
        net = nets.residual_mlp(20, 60, 3, blocks=blocks, rng=rng(6), dtype=F64)
        assert net.layers[2].gain == pytest.approx(blocks**-0.5, rel=1e-15)
        values = net.trace(x).values
        growth.append((values[-2].square().mean() / values[1].square().mean()).item())
    assert 1.5 < growth[0] < 2.5
    assert 1.5 < growth[1] < 6


@pytest.mark.parametrize("kind", BUILDERS)
def test_an_example_is_answered_alike_alone_and_in_a_batch(kind):
    net, x = build(kind, "relu", "softmax")
    alone = torch.cat([net(row) for row in x.split(1)])
    assert torch.allclose(net(x), alone, rtol=0, atol=1e-14)


def test_images_and_flat_rows_give_one_answer():
    net, x = build("conv", "relu", "linear")
    assert torch.equal(net(x), net(x.reshape(-1, 2, 7, 6)))
    gray = nets.convnet((1, 4, 5), conv=[(2, 2, 1)], dense_sizes=[2], rng=rng(), dtype=F64)
    x = tensor(rng(), 3, 4, 5)
    assert torch.equal(gray(x), gray(x.flatten(1)))
    flat = nets.Net([nets.dense(20, 20, "tanh", rng=rng(), dtype=F64, skip=1), a_readout()])
    assert torch.equal(flat(x), flat(x.flatten(1)))


def a_readout() -> Dense:
    return nets.dense(20, 2, "linear", rng=rng(), dtype=F64)


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        ("dense", (4,), r"expected a batch of shape \(n, 4\) for this net, found \(4,\)"),
        ("dense", (2, 5), r"found \(2, 5\); add the batch axis, or build the net for this input"),
        ("conv", (84,), r"shape \(n, 84\) or \(n, 2, 7, 6\) for this net, found \(84,\)"),
        ("conv", (3, 7, 6, 2), r"or \(n, 2, 7, 6\) for this net, found \(3, 7, 6, 2\)"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(kind, shape, words):
    net, _ = build(kind, "relu", "linear")
    with pytest.raises(ValueError, match=words):
        net(torch.zeros(shape, dtype=F64))


def test_a_batch_of_another_dtype_is_refused():
    net, x = build("dense", "relu", "linear")
    with pytest.raises(ValueError, match=r"expected torch\.float64 like .* found torch\.float32"):
        net(x.float())


@pytest.mark.parametrize("at", [(0, 2), (1, 3), (0, -1)])
def test_a_skip_from_below_the_data_is_refused(at):
    index, skip = at
    layers = [nets.dense(3, 3, "relu", rng=rng()) for _ in range(3)]
    layers[index].skip = skip
    with pytest.raises(ValueError, match=f"layer {index} cannot skip {skip} layers: a skip starts"):
        Net(layers)


def test_a_skip_into_the_output_layer_is_refused():
    layers = [nets.dense(3, 3, "relu", rng=rng(), skip=int(i == 2)) for i in range(3)]
    with pytest.raises(ValueError, match="ends below the output layer"):
        Net(layers)


def test_a_skip_between_layers_of_different_size_is_refused():
    """Also from one number to many, which would broadcast without a word."""
    layers = [
        nets.dense(1, 4, "relu", rng=rng()),
        nets.dense(4, 4, "relu", rng=rng(), skip=2),
        nets.dense(4, 2, "linear", rng=rng()),
    ]
    with pytest.raises(ValueError, match="layer 1 cannot add its 4 numbers to the 1 found 2 layer"):
        Net(layers)


def test_layers_that_do_not_fit_are_refused():
    layers = [nets.dense(3, 4, "relu", rng=rng()), nets.dense(5, 2, "relu", rng=rng())]
    with pytest.raises(ValueError, match="layer 1 reads 5 numbers, but the layer below gives 4"):
        Net(layers)


# --- builders


def test_mlp_has_the_sizes_activations_and_zero_biases_it_was_asked_for():
    net = nets.mlp([4, 6, 5, 3], activation="tanh", output="softmax", rng=rng(), dtype=F64)
    assert [tuple(layer.weight.shape) for layer in net.layers] == [(6, 4), (5, 6), (3, 5)]
    assert [layer.activation.name for layer in net.layers] == ["tanh", "tanh", "softmax"]
    assert net.output == "softmax"
    assert all(not layer.bias.any() for layer in net.layers)
    assert {p.dtype for p in net.parameters()} == {F64}


@pytest.mark.parametrize("activation", HIDDEN)
@pytest.mark.parametrize("output", OUTPUT)
def test_every_pair_of_activations_builds_and_answers(activation, output):
    for net, x in (build(kind, activation, output) for kind in BUILDERS):
        y = net(x)
        assert y.shape == (6, 3) and torch.isfinite(y).all() and net.output == output


@pytest.mark.parametrize(
    ("activation", "variance"),
    [
        ("relu", 2 / 300),
        ("signed_relu", 2 / 300),
        ("sigmoid", 2 / 500),
        ("tanh", 2 / 500),
        ("linear", 2 / 500),
    ],
)
def test_initial_weights_have_he_or_glorot_variance(activation, variance):
    """60,000 normal weights: their variance is known to about 0.6 % (one deviation)."""
    for gain in (1.0, 3.0):
        net = nets.mlp([300, 200, 5], activation=activation, rng=rng(), weight_gain=gain, dtype=F64)
        w = net.layers[0].weight.detach()
        assert w.var().item() == pytest.approx(gain**2 * variance, rel=0.025)
        assert abs(w.mean().item()) < 5 * gain * (variance / w.numel()) ** 0.5


def test_initial_kernels_have_he_variance():
    """Fan-in 10 x 5 x 5 = 250; 50,000 weights."""
    net = nets.convnet(
        (10, 6, 6), conv=[(200, 5, 1)], dense_sizes=[2], rng=rng(), dtype=F64, weight_gain=2.0
    )
    assert net.layers[0].weight.var().item() == pytest.approx(4 * 2 / 250, rel=0.03)


def test_signed_units_alternate():
    net = nets.mlp([4, 5, 3], activation="signed_relu", rng=rng(), dtype=F64)
    assert net.layers[0].sign.tolist() == [1, -1, 1, -1, 1]
    assert net.layers[-1].sign is None
    images = nets.convnet(
        (1, 4, 4), conv=[(3, 2, 1)], dense_sizes=[2], activation="signed_relu", rng=rng()
    )
    assert images.layers[0].sign.shape == (3, 1, 1)
    assert images.layers[0].sign.flatten().tolist() == [1, -1, 1]
    fired = net.trace(tensor(rng(1), 50, 4)).fired[0]
    assert (fired[:, ::2] >= 0).all() and (fired[:, 1::2] <= 0).all() and (fired != 0).any()


def test_the_convnet_stacks_what_it_was_asked_for():
    net = nets.convnet(
        (3, 9, 9), conv=[(4, 3, 2), (5, 2, 1)], dense_sizes=[7, 2], rng=rng(), output="softmax"
    )
    assert [tuple(layer.weight.shape) for layer in net.layers] == [
        (4, 3, 3, 3),
        (5, 4, 2, 2),
        (7, 45),
        (2, 7),
    ]
    assert net(torch.zeros(2, 3, 9, 9)).shape == (2, 2)


def test_equal_generators_make_equal_nets_and_global_state_has_no_say():
    def make(seed: int) -> Net:
        return nets.residual_mlp(4, 5, 3, blocks=2, rng=rng(seed))

    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = make(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert nets.fingerprint(one) == nets.fingerprint(make(0)) != nets.fingerprint(make(1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda r: nets.mlp([4], rng=r), r"two or more positive whole sizes, found \[4\]"),
        (lambda r: nets.mlp([4, 0, 2], rng=r), r"whole sizes, found \[4, 0, 2\]"),
        (lambda r: nets.mlp([4, 2.5, 2], rng=r), r"whole sizes, found \[4, 2\.5, 2\]"),
        (
            lambda r: nets.mlp([4, 2], activation="softmax", rng=r),
            "unknown activation 'softmax'; expected one of relu, signed_relu, sigmoid, tanh, lin",
        ),
        (
            lambda r: nets.mlp([4, 2], output="signed_relu", rng=r),
            "unknown output 'signed_relu'; expected one of linear, sigmoid, softmax, tanh, relu",
        ),
        (
            lambda r: nets.convnet((1, 5, 5), conv=[(2, 3, 2), (2, 3, 1)], dense_sizes=[2], rng=r),
            r"3 x 3 kernel does not fit on 2 x 2 pixels \(convolution 2\); use a smaller kernel",
        ),
        (
            lambda r: nets.convnet((1, 5, 5), conv=[(2, 3, 0)], dense_sizes=[2], rng=r),
            r"of 1 or more, found \(2, 3, 0\) in convolution 1",
        ),
        (
            lambda r: nets.convnet((5, 5), conv=[], dense_sizes=[2], rng=r),
            r"expected in_shape \(channels, height, width\) .* found \(5, 5\) and \[2\]",
        ),
        (
            lambda r: nets.convnet((1, 5, 5), conv=[], dense_sizes=[], rng=r),
            "at least one dense size",
        ),
        (
            lambda r: nets.residual_mlp(4, 5, 3, blocks=0, rng=r),
            "expected positive sizes and blocks, found n_in=4, width=5, n_out=3, blocks=0",
        ),
        (lambda r: nets.residual_mlp(4, 5, 3, blocks=1, output="x", rng=r), "unknown output 'x'"),
    ],
)
def test_a_net_that_cannot_be_built_says_why(make, words):
    with pytest.raises(ValueError, match=words):
        make(rng())


# --- fingerprint


def test_the_fingerprint_sees_one_changed_bit_and_nothing_else():
    net, _ = build("dense", "relu", "linear")
    before = nets.fingerprint(net)
    assert len(before) == 8 and int(before, 16) >= 0
    bias = net.layers[1].bias.data
    keep = bias[0].item()
    bias[0] = np.nextafter(keep, 1)
    assert nets.fingerprint(net) != before
    bias[0] = keep
    net.layers[0].weight.grad = torch.ones_like(net.layers[0].weight)
    assert nets.fingerprint(net) == before
    assert nets.fingerprint(net.float()) != before


def test_the_fingerprint_of_known_parameters():
    """SHA-256 of the eight bytes of 1.0 and of 0.0, little-endian doubles: sha256sum says so."""
    net = Net([Dense(torch.ones(1, 1, dtype=F64), torch.zeros(1, dtype=F64), "linear")])
    assert nets.fingerprint(net) == "3239b05c"


def test_relabelling_hidden_units_changes_no_answer():
    net, x = build("dense", "relu", "softmax")
    before = net(x)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    first, second = net.layers[0], net.layers[1]
    first.weight.data = first.weight.data[order]
    first.bias.data = first.bias.data[order]
    second.weight.data = second.weight.data[:, order]
    assert torch.allclose(net(x), before, rtol=0, atol=1e-14)
    assert torch.equal(before.sum(1).round(decimals=12), torch.ones(6, dtype=F64))
    assert torch.allclose(before, F.softmax(net.trace(x).drives[-1], dim=1))


# ---------------------------------------------------------------- many nets at once


def several(n=3, sizes=(6, 5, 4), **options):
    return [
        nets.mlp([*sizes], rng=np.random.default_rng(k), dtype=torch.float64, **options)
        for k in range(n)
    ]


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_net_in_a_stack_gets_what_it_gets_alone(output, shared):
    """Answers, loss and gradients, each with its own examples; targets its own or all the same."""
    rng, three = np.random.default_rng(1), several(output=output)
    x = torch.from_numpy(rng.normal(size=(3, 7, 6)))
    y = torch.from_numpy(rng.integers(4, size=7 if shared else (3, 7)))
    together = nets.stack(three)
    loss, alone = rules.Backprop(together)(together, x, y), []
    for k, net in enumerate(three):
        own = y if shared else y[k]
        torch.testing.assert_close(together(x)[k], net(x[k]), rtol=1e-13, atol=1e-14)
        alone.append(float(rules.Backprop(net)(net, x[k], own)))
        for p, many in zip(net.parameters(), together.parameters(), strict=True):
            torch.testing.assert_close(many.grad[k], p.grad, rtol=1e-12, atol=1e-14)
    assert float(loss) == pytest.approx(np.mean(alone), rel=1e-13)


def test_a_stack_has_weights_of_its_own():
    three = several()
    together = nets.stack(three)
    together.layers[0].weight.data += 1
    moved = together.layers[0].weight[2] - three[2].layers[0].weight
    assert float(moved.detach().min()) > 0.99


def test_what_does_not_stack_is_refused():
    with pytest.raises(ValueError, match="nets of one shape, found 2 shapes"):
        nets.stack(several(2) + several(1, sizes=(6, 5, 3)))
    with pytest.raises(ValueError, match="nets of one shape, found 0 shapes"):
        nets.stack([])
    with pytest.raises(ValueError, match="found skips, signs or kernels"):
        nets.stack(several(2, activation="signed_relu"))
    with pytest.raises(ValueError, match=r"shape \(3, n, 6\) for 3 nets, found \(7, 6\)"):
        nets.stack(several())(torch.zeros(7, 6, dtype=torch.float64))
