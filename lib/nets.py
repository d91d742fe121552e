"""Networks as three local maps, so that a learning rule can be written without autograd.

Every layer knows how to compute its *drive* from its input, how to carry a signal back
*through given weights* (its own, or others), and how to *correlate* an error with an input.
What signal is carried back is the business of a rule, not of a network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Activation:
    """A unit's response: ``value(a)`` is f(a), ``slope(a, f)`` is f'(a) given a and f(a)."""

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


def _softmax_has_no_slope(a: Tensor, f: Tensor) -> Tensor:
    raise ValueError("softmax has a Jacobian, not a slope: use layer.pull, or another output")


ACTIVATIONS: dict[str, Activation] = {
    act.name: act
    for act in (
        Activation("linear", lambda a: a, lambda a, f: torch.ones_like(a)),
        Activation("relu", torch.relu, lambda a, f: f.sign()),
        Activation("sigmoid", torch.sigmoid, lambda a, f: f * (1 - f)),
        Activation("tanh", torch.tanh, lambda a, f: 1 - f * f),
        Activation("softmax", lambda a: torch.softmax(a, dim=-1), _softmax_has_no_slope),
    )
}
HIDDEN = ("relu", "signed_relu", "sigmoid", "tanh", "linear")
OUTPUT = ("linear", "sigmoid", "softmax", "tanh", "relu")


class _Own:
    """A module's own part, found at once: torch takes a long detour, and every step asks often."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: nn.Module, owner: type | None = None) -> Tensor:
        try:
            return module.__dict__[self.kind][self.name]
        except KeyError:
            raise AttributeError(self.name) from None


class Layer(nn.Module):
    """One layer: drive a = W * x + b, fired f = s . phi(a), output = f, or skip + gain . f.

    ``sign`` s is +1 or -1 per unit (the plus and minus ReLU units of Balduzzi et al. 2015) or
    None for all +1. ``skip`` = k > 0 adds what the net held k layers before this layer's output
    (k = 1: the layer's own input), and then ``gain`` scales the layer's own part.
    Source: residual form of Veit et al. 2016; signed units of Balduzzi et al. 2015.
    Departs: nothing.
    """

    weight = _Own("_parameters")
    bias = _Own("_parameters")
    sign = _Own("_buffers")

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        activation: str,
        *,
        sign: Tensor | None = None,
        skip: int = 0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {activation!r}; expected one of {', '.join(ACTIVATIONS)}"
            )
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.activation = ACTIVATIONS[activation]
        self.register_buffer("sign", sign)
        self.skip, self.gain = skip, gain

    @property
    def n_in(self) -> int:
        """How many numbers the layer reads for one example."""
        return self.weight.shape[1]

    @property
    def n_out(self) -> int:
        """How many numbers the layer answers for one example."""
        return self.weight.shape[0]

    def drive(self, x: Tensor) -> Tensor:
        """Forward map: a = W * x + b, for a batch x of shape (n, ...)."""
        raise NotImplementedError

    def transpose(self, signal: Tensor, weight: Tensor | None = None) -> Tensor:
        """Backward map: W^T * signal, through ``weight`` if given (same shape as W), else W."""
        raise NotImplementedError

    def correlate(self, error: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Local map: sum over the batch of error x input, as (weight-shaped, bias-shaped)."""
        raise NotImplementedError

    def fire(self, drive: Tensor) -> Tensor:
        """f = s . phi(a)."""
        fired = self.activation.value(drive)
        return fired if self.sign is None else fired * self.sign

    def pull(self, signal: Tensor, drive: Tensor, fired: Tensor) -> Tensor:
        """Carry a signal from the layer's output to its drive: signal . df/da.

        Elementwise for every activation but softmax, whose Jacobian is applied instead:
        f . (signal - <signal, f>).
        """
        name = self.activation.name
        if name == "linear" and self.sign is None:
            return signal
        if name == "softmax":
            return fired * (signal - (signal * fired).sum(-1, keepdim=True))
        if self.sign is not None:
            signal, fired = signal * self.sign, fired * self.sign
        return signal * self.activation.slope(drive, fired)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, {self.activation.name}, skip={self.skip}"


class Dense(Layer):
    """Every unit sees every input: weight (n_out, n_in), bias (n_out)."""

    def drive(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(1), self.weight.t())

    def transpose(self, signal: Tensor, weight: Tensor | None = None) -> Tensor:
        return signal @ (self.weight if weight is None else weight)

    def correlate(self, error: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return error.t() @ x.flatten(1), error.sum(0)


class Conv(Layer):
    """Units share weights over an image: weight (c_out, c_in, k, k), bias (c_out).

    ``in_shape`` = (c_in, height, width); ``stride`` in pixels; no padding.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        activation: str,
        *,
        in_shape: tuple[int, int, int],
        stride: int,
        sign: Tensor | None = None,
    ) -> None:
        super().__init__(weight, bias, activation, sign=sign)
        self.in_shape, self.stride = in_shape, stride

    @property
    def n_in(self) -> int:
        return int(np.prod(self.in_shape))

    @property
    def n_out(self) -> int:
        return int(np.prod(self.out_shape))

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(c_out, height, width) of the layer's output."""
        c_out, _, k, _ = self.weight.shape
        _, h, w = self.in_shape
        return c_out, (h - k) // self.stride + 1, (w - k) // self.stride + 1

    def _images(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.in_shape)

    def drive(self, x: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(self._images(x), self.weight, self.bias, self.stride)

    def transpose(self, signal: Tensor, weight: Tensor | None = None) -> Tensor:
        w = self.weight if weight is None else weight
        shape = (len(signal), *self.in_shape)
        return torch.nn.grad.conv2d_input(shape, w, signal, stride=self.stride)

    def correlate(self, error: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = tuple(self.weight.shape)
        dw = torch.nn.grad.conv2d_weight(self._images(x), shape, error, stride=self.stride)
        return dw, error.sum((0, 2, 3))


@dataclass(frozen=True)
class Trace:
    """What one forward pass left behind, all a rule may read.

    ``values[l]`` is the input of layer l, ``values[l + 1]`` its output (skip included), so
    ``values[0]`` is the data and ``values[-1]`` the answer; ``drives[l]`` and ``fired[l]`` are
    the layer's a and f. Each has the batch as its first axis.
    """

    values: tuple[Tensor, ...]
    drives: tuple[Tensor, ...]
    fired: tuple[Tensor, ...]


Fire = Callable[[int, Tensor], tuple[Tensor, Tensor]]


class _Stack(nn.ModuleList):
    """Layers in order; one is found without torch's detour over its number's name."""

    def __getitem__(self, index):
        if isinstance(index, slice):
            return super().__getitem__(index)
        return tuple(self._modules.values())[index]


class Net(nn.Module):
    """A stack of layers. ``net(x)`` answers, ``net.trace(x)`` also keeps what happened inside.

    Raises ValueError where a layer does not fit the one below, or a skip its two ends.
    """

    layers = _Own("_modules")

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        sizes = [layers[0].n_in] if layers else []
        for index, layer in enumerate(layers):
            if layer.n_in != sizes[-1]:
                raise ValueError(
                    f"layer {index} reads {layer.n_in} numbers, but the layer below gives "
                    f"{sizes[-1]}; build them with the same size"
                )
            sizes.append(layer.n_out)
            if not 0 <= layer.skip <= index + 1 or (layer.skip and index == len(layers) - 1):
                raise ValueError(
                    f"layer {index} cannot skip {layer.skip} layers: a skip starts at the net's "
                    "input or above and ends below the output layer"
                )
            start = index + 1 - layer.skip
            image = layer.skip and start and isinstance(layers[start - 1], Conv)
            if sizes[start] != layer.n_out or image:
                raise ValueError(
                    f"layer {index} cannot add its {layer.n_out} numbers to the {sizes[start]} "
                    f"found {layer.skip} layers before: a skip joins dense layers of one size"
                )
        self.layers = _Stack(layers)

    @property
    def output(self) -> str:
        """The name of the last layer's activation."""
        return self.layers[-1].activation.name

    def trace(self, x: Tensor, *, fire: Fire | None = None) -> Trace:
        """Run the net on a batch x (n, ...) and keep every layer's input, drive and response.

        ``fire(l, a)``: what layer l makes of its drive a, as (drive, response), for noisy units;
        by default (a, layer.fire(a)).
        Raises ValueError where the batch does not fit the first layer's shape or the net's dtype.
        """
        self._check(x)
        values, drives, fired = [x], [], []
        for index, layer in enumerate(self.layers):
            a = layer.drive(values[-1])
            a, f = fire(index, a) if fire else (a, layer.fire(a))
            drives.append(a)
            fired.append(f)
            values.append(values[-layer.skip].flatten(1) + layer.gain * f if layer.skip else f)
        return Trace(tuple(values), tuple(drives), tuple(fired))

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).values[-1]

    def _check(self, x: Tensor) -> None:
        first = self.layers[0]
        fits = x.dim() > 1 and x.shape[1:].numel() == first.n_in
        if fits and x.dim() > 2 and isinstance(first, Conv):
            # channels first; an axis of length 1 may be left out
            fits = [s for s in x.shape[1:] if s > 1] == [s for s in first.in_shape if s > 1]
        if not fits:
            image = isinstance(first, Conv) and f" or (n, {', '.join(map(str, first.in_shape))})"
            raise ValueError(
                f"expected a batch of shape (n, {first.n_in}){image or ''} for this net, found "
                f"{tuple(x.shape)}; add the batch axis, or build the net for this input"
            )
        if x.dtype != first.weight.dtype:
            raise ValueError(
                f"expected {first.weight.dtype} like the net's weights, found {x.dtype}; "
                "convert the data, or build the net with dtype=..."
            )


class Stacked(Dense):
    """The same layer of several nets: weight (nets, n_out, n_in), bias (nets, n_out)."""

    @property
    def n_in(self) -> int:
        return self.weight.shape[2]

    @property
    def n_out(self) -> int:
        return self.weight.shape[1]

    def drive(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], x, self.weight.mT)

    def correlate(self, error: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return error.mT @ x, error.sum(1)


class _Nets(Net):
    def _check(self, x: Tensor) -> None:
        many, _, n_in = self.layers[0].weight.shape
        if x.dim() != 3 or len(x) != many or x.shape[2] != n_in:
            raise ValueError(
                f"expected a batch of shape ({many}, n, {n_in}) for {many} nets, "
                f"found {tuple(x.shape)}; give each net its examples"
            )


def stack(several: Sequence[Net]) -> Net:
    """Nets of one shape as one, which train at once: small nets spend their time on calls.

    A batch is (nets, n, numbers), its targets (nets, n) or (nets, n, k), each net's own. Rules
    that read the net's own weights only (Backprop) give each net the .grad it gets alone; the loss
    is the mean over nets. The stack's weights are a copy.
    Raises ValueError for no nets, nets of different shapes, or layers other than plain dense ones.
    """
    shapes = {
        tuple((type(a), a.weight.shape, a.activation.name) for a in n.layers) for n in several
    }
    if len(shapes) != 1:
        raise ValueError(
            f"expected nets of one shape, found {len(shapes)} shapes; build them alike"
        )
    if any(type(a) is not Dense or a.skip or a.sign is not None for n in several for a in n.layers):
        raise ValueError("expected plain dense layers, found skips, signs or kernels: train apart")
    together = zip(*(net.layers for net in several), strict=True)
    return _Nets(
        [
            Stacked(
                torch.stack([one.weight.detach() for one in layers]),
                torch.stack([one.bias.detach() for one in layers]),
                layers[0].activation.name,
            )
            for layers in together
        ]
    )


def _normal(rng: np.random.Generator, shape: Sequence[int], std: float, dtype: torch.dtype):
    return torch.from_numpy(rng.normal(0.0, std, tuple(shape))).to(dtype)


def _std(activation: str, fan_in: int, fan_out: int) -> float:
    """He's scale sqrt(2/n_in) for rectifiers, Glorot's sqrt(2/(n_in + n_out)) for the others."""
    if activation in ("relu", "signed_relu"):
        return (2.0 / fan_in) ** 0.5
    return (2.0 / (fan_in + fan_out)) ** 0.5


def _check_names(activation: str, output: str) -> None:
    if activation not in HIDDEN:
        raise ValueError(f"unknown activation {activation!r}; expected one of {', '.join(HIDDEN)}")
    if output not in OUTPUT:
        raise ValueError(f"unknown output {output!r}; expected one of {', '.join(OUTPUT)}")


def _alternating(activation: str, n: int, dtype: torch.dtype, trailing: int = 0) -> Tensor | None:
    """+1, -1, +1, ... for signed units, None for the others."""
    if activation != "signed_relu":
        return None
    return torch.tensor([1.0, -1.0]).repeat(n // 2 + 1)[:n].to(dtype).reshape(n, *[1] * trailing)


def dense(
    n_in: int,
    n_out: int,
    activation: str,
    *,
    rng: np.random.Generator,
    dtype: torch.dtype = torch.float32,
    weight_gain: float = 1.0,
    skip: int = 0,
    gain: float = 1.0,
) -> Dense:
    """One dense layer: weights N(0, (weight_gain . std)^2), He's or Glorot's std, biases 0."""
    std = weight_gain * _std(activation, n_in, n_out)
    return Dense(
        _normal(rng, (n_out, n_in), std, dtype),
        torch.zeros(n_out, dtype=dtype),
        "relu" if activation == "signed_relu" else activation,
        sign=_alternating(activation, n_out, dtype),
        skip=skip,
        gain=gain,
    )


def mlp(
    sizes: Sequence[int],
    *,
    activation: str = "relu",
    output: str = "linear",
    rng: np.random.Generator,
    dtype: torch.dtype = torch.float32,
    weight_gain: float = 1.0,
    signs: Sequence[Sequence[int] | None] | None = None,
    init: str = "default",
) -> Net:
    """A dense net of the given layer sizes, data first, answer last.

    ``sizes``: two or more positive whole numbers. ``activation`` of the hidden layers: relu,
    signed_relu (units alternate +ReLU and -ReLU), sigmoid, tanh, linear. ``output``: linear,
    sigmoid, softmax, tanh, relu. ``weight_gain`` multiplies every initial weight.
    ``signs``: for each hidden layer of rectifiers its units' signs (+1 or -1), or None for the
    activation's own. ``init``: "default", or "coherent" for rectifiers whose every effect on the
    answer is positive; it sets a scale of its own (see lib.coherent.prepare).
    Raises ValueError for a bad size, sign or name.
    """
    _check_names(activation, output)
    if len(sizes) < 2 or any(int(n) != n or n < 1 for n in sizes):
        raise ValueError(f"expected two or more positive whole sizes, found {list(sizes)}")
    acts = [activation] * (len(sizes) - 2) + [output]
    net = Net(
        [
            dense(n_in, n_out, act, rng=rng, dtype=dtype, weight_gain=weight_gain)
            for n_in, n_out, act in zip(sizes[:-1], sizes[1:], acts, strict=True)
        ]
    )
    if signs is not None or init != "default":
        from lib import coherent

        coherent.prepare(net, signs=signs, init=init, rng=rng)
    return net


def convnet(
    in_shape: tuple[int, int, int],
    *,
    conv: Sequence[tuple[int, int, int]],
    dense_sizes: Sequence[int],
    activation: str = "relu",
    output: str = "linear",
    rng: np.random.Generator,
    dtype: torch.dtype = torch.float32,
    weight_gain: float = 1.0,
) -> Net:
    """A convolutional net: ``conv`` = (channels, kernel, stride) per layer, then dense layers.

    ``in_shape`` = (channels, height, width) of an image; flat rows of that many numbers are
    accepted too. ``dense_sizes`` ends with the number of outputs. No padding, no pooling.
    Raises ValueError where a kernel is larger than what it looks at, for a count below 1 or an
    unknown name.
    """
    _check_names(activation, output)
    if len(in_shape) != 3 or not dense_sizes:
        raise ValueError(
            "expected in_shape (channels, height, width) and at least one dense size, "
            f"found {in_shape} and {list(dense_sizes)}"
        )
    layers: list[Layer] = []
    shape = tuple(in_shape)
    for channels, kernel, stride in conv:
        if min(channels, kernel, stride) < 1:
            raise ValueError(
                "expected (channels, kernel, stride) of 1 or more, "
                f"found {(channels, kernel, stride)} in convolution {len(layers) + 1}"
            )
        if kernel > min(shape[1:]):
            raise ValueError(
                f"a {kernel} x {kernel} kernel does not fit on {shape[1]} x {shape[2]} pixels "
                f"(convolution {len(layers) + 1}); use a smaller kernel or stride"
            )
        fan_in, fan_out = shape[0] * kernel**2, channels * kernel**2
        std = weight_gain * _std(activation, fan_in, fan_out)
        layer = Conv(
            _normal(rng, (channels, shape[0], kernel, kernel), std, dtype),
            torch.zeros(channels, dtype=dtype),
            "relu" if activation == "signed_relu" else activation,
            in_shape=shape,
            stride=stride,
            sign=_alternating(activation, channels, dtype, trailing=2),
        )
        layers.append(layer)
        shape = layer.out_shape
    sizes = [int(np.prod(shape)), *dense_sizes]
    top = mlp(
        sizes,
        activation=activation,
        output=output,
        rng=rng,
        dtype=dtype,
        weight_gain=weight_gain,
    )
    return Net([*layers, *top.layers])


def residual_mlp(
    n_in: int,
    width: int,
    n_out: int,
    *,
    blocks: int,
    scale: float | None = None,
    activation: str = "relu",
    output: str = "linear",
    rng: np.random.Generator,
    dtype: torch.dtype = torch.float32,
) -> Net:
    """A residual net: a linear embedding, ``blocks`` of h + alpha W2 f(W1 h), a head.

    alpha = ``scale``, by default 1/sqrt(blocks), which keeps the stream's size within a constant
    factor at any depth. Each block is two dense layers; the second has skip 2 and gain alpha.
    Raises ValueError for a bad size or name.
    """
    _check_names(activation, output)
    if min(n_in, width, n_out, blocks) < 1:
        raise ValueError(
            f"expected positive sizes and blocks, found n_in={n_in}, width={width}, "
            f"n_out={n_out}, blocks={blocks}"
        )
    alpha = blocks**-0.5 if scale is None else scale
    layers = [dense(n_in, width, "linear", rng=rng, dtype=dtype)]
    for _ in range(blocks):
        layers.append(dense(width, width, activation, rng=rng, dtype=dtype))
        layers.append(dense(width, width, "linear", rng=rng, dtype=dtype, skip=2, gain=alpha))
    return Net([*layers, dense(width, n_out, output, rng=rng, dtype=dtype)])


def fingerprint(net: nn.Module) -> str:
    """Eight hex digits of the SHA-256 of all parameters.

    Equal for parameters equal bit for bit, in other cases equal once in four billion. Only the
    numbers count: not the activations, the signs or where a skip goes.
    """
    digest = hashlib.sha256()
    for p in net.parameters():
        digest.update(p.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


_COHERENT = "calibrate dual_rail is_coherent modules project_coherent require_coherent".split()


def __getattr__(name: str) -> object:
    """The functions of lib.coherent, which builds on this module, by their names here too."""
    if name not in _COHERENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lib import coherent

    return getattr(coherent, name)
