"""lib.losses: values, derivatives at the output drive, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import F64, build, reference_loss, tensor

from lib import losses, nets
from lib.nets import OUTPUT, Trace

CASES = [(out, "mse") for out in OUTPUT] + [
    (out, "cross_entropy") for out in ("softmax", "sigmoid")
]


def net_with(output: str, n_in: int = 4, n_out: int = 3) -> nets.Net:
    return nets.mlp([n_in, n_out], output=output, rng=np.random.default_rng(0), dtype=F64)


def answered(net: nets.Net, drive: list[list[float]]) -> Trace:
    """A trace whose output layer has this drive."""
    a = torch.tensor(drive, dtype=F64)
    f = net.layers[-1].fire(a)
    return Trace((torch.zeros(len(a), net.layers[0].n_in, dtype=F64), f), (a,), (f,))


def ends(trace: Trace) -> tuple[torch.Tensor, torch.Tensor]:
    return trace.values[-1], trace.drives[-1]


# --- by hand


def test_mse_by_hand():
    """Half the sum over outputs, mean over examples: (1/2)(1 + 4) and (1/2)(9 + 0), mean 3.5."""
    net = net_with("linear", n_out=2)
    trace = answered(net, [[1.0, 2.0], [0.0, 5.0]])
    y = torch.tensor([[0.0, 0.0], [3.0, 5.0]], dtype=F64)
    assert losses.value(net, trace, y, "mse").item() == 3.5
    delta = losses.output_error(net, trace, y, "mse")
    assert delta.tolist() == [[0.5, 1.0], [-1.5, 0.0]]


def test_softmax_cross_entropy_by_hand():
    """Answers (1/2, 1/4, 1/4), class 1: -log(1/4); delta = (1/2, -3/4, 1/4)."""
    net = net_with("softmax")
    trace = answered(net, [[np.log(2.0), 0.0, 0.0]])
    y = torch.tensor([1])
    assert losses.value(net, trace, y, "cross_entropy").item() == pytest.approx(np.log(4))
    delta = losses.output_error(net, trace, y, "cross_entropy")
    assert delta[0].tolist() == pytest.approx([0.5, -0.75, 0.25])


def test_sigmoid_cross_entropy_by_hand():
    """Answers 3/4 and 1/2, targets 1 and 0: -log(3/4) - log(1/2); delta = (-1/4, 1/2)."""
    net = net_with("sigmoid", n_out=2)
    trace = answered(net, [[np.log(3.0), 0.0]])
    y = torch.tensor([[1.0, 0.0]], dtype=F64)
    expected = -np.log(0.75) - np.log(0.5)
    assert losses.value(net, trace, y, "cross_entropy").item() == pytest.approx(expected)
    delta = losses.output_error(net, trace, y, "cross_entropy")
    assert delta[0].tolist() == pytest.approx([-0.25, 0.5])


def test_sigmoid_mse_by_hand():
    """Answer 3/4, target 1: E = 1/32, delta = (3/4 - 1) . 3/4 . 1/4 = -3/64."""
    net = net_with("sigmoid", n_out=1)
    trace = answered(net, [[np.log(3.0)]])
    y = torch.ones(1, 1, dtype=F64)
    assert losses.value(net, trace, y, "mse").item() == pytest.approx(1 / 32)
    assert losses.output_error(net, trace, y, "mse").item() == pytest.approx(-3 / 64)


# --- against PyTorch's losses, autograd and finite differences


@pytest.mark.parametrize(("output", "loss"), CASES)
@pytest.mark.parametrize("targets", ["classes", "numbers"])
def test_value_equals_pytorchs_loss(output, loss, targets):
    net, x = build("dense", "tanh", output)
    y = torch.tensor([0, 1, 2, 1, 1, 0])
    if targets == "numbers":
        y = torch.softmax(tensor(np.random.default_rng(3), 6, 3), dim=1)
    if (output, loss, targets) == ("softmax", "cross_entropy", "numbers"):
        expected = -(y * torch.log(net(x))).sum(1).mean()
    else:
        expected = reference_loss(net, x, y, loss)
    found = losses.value(net, net.trace(x), y, loss)
    assert found.item() == pytest.approx(expected.item(), rel=1e-13)


@pytest.mark.parametrize(("output", "loss"), CASES)
def test_each_is_the_loss_of_one_example_also_in_a_stack_of_nets(output, loss):
    """Two nets' answers at once, (2, 6, 3): row by row what each example costs alone."""
    net, x = build("dense", "tanh", output)
    y = torch.tensor([0, 1, 2, 1, 1, 0])
    one, other = net.trace(x), net.trace(2 * x)
    both = (torch.stack([a, b]) for a, b in zip(*map(ends, (one, other)), strict=True))
    values, drives = both
    stack = losses.each(net, Trace((values,), (drives,), (values,)), y, loss)
    assert stack.shape == (2, 6)
    for trace, row in zip((one, other), stack, strict=True):
        assert losses.each(net, trace, y, loss).tolist() == pytest.approx(row.tolist(), rel=1e-14)
    alone = losses.value(net, net.trace(2 * x[4:5]), y[4:5], loss).item()
    assert stack[1, 4].item() == pytest.approx(alone, rel=1e-12)
    with pytest.raises(ValueError, match="expected targets of shape"):
        losses.each(net, Trace((values,), (drives,), (values,)), y[:5], loss)


@pytest.mark.parametrize(("output", "loss"), CASES)
@pytest.mark.parametrize("targets", ["classes", "numbers"])
def test_output_error_equals_autograd_and_finite_differences(output, loss, targets):
    net, r, eps = net_with(output), np.random.default_rng(4), 1e-6
    y = torch.tensor([0, 2, 1, 1, 0])
    if targets == "numbers":
        y = torch.softmax(tensor(r, 5, 3), dim=1)
    a = tensor(r, 5, 3, scale=2).requires_grad_()
    f = net.layers[-1].fire(a)
    trace = Trace((a, f), (a,), (f,))
    (exact,) = torch.autograd.grad(losses.value(net, trace, y, loss), a)
    delta = losses.output_error(net, trace, y, loss).detach()
    assert torch.allclose(delta, exact, rtol=0, atol=1e-14)
    drives, numeric = a.detach().flatten(), []
    for i in range(drives.numel()):
        sides = []
        for step in (eps, -eps):
            moved = drives.clone()
            moved[i] += step
            sides.append(losses.value(net, answered(net, moved.reshape(5, 3).tolist()), y, loss))
        numeric.append((sides[0] - sides[1]).item() / (2 * eps))
    assert delta.flatten().tolist() == pytest.approx(numeric, abs=1e-8)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_cross_entropy_stays_finite_and_exact_for_answers_that_round_to_0(output):
    """log(e^-800) is -inf through the answer, and -800 through the drive."""
    net = net_with(output, n_out=2)
    trace = answered(net, [[400.0, -400.0]])
    y = torch.tensor([1])
    assert losses.value(net, trace, y, "cross_entropy").item() == pytest.approx(800)
    delta = losses.output_error(net, trace, y, "cross_entropy")
    assert delta.tolist() == [[1.0, -1.0]]


# --- limits and invariances


@pytest.mark.parametrize(("output", "loss"), CASES)
def test_the_loss_is_the_mean_over_examples(output, loss):
    net, x = build("dense", "relu", output)
    y = torch.tensor([0, 1, 2, 1, 1, 0])
    parts = [losses.value(net, net.trace(x[i : i + 1]), y[i : i + 1], loss) for i in range(6)]
    assert losses.value(net, net.trace(x), y, loss).item() == pytest.approx(
        torch.stack(parts).mean().item(), rel=1e-13
    )


@pytest.mark.parametrize(("output", "loss"), CASES)
def test_a_batch_given_twice_has_the_same_loss_and_half_the_error(output, loss):
    net, x = build("dense", "relu", output)
    y = torch.tensor([0, 1, 2, 1, 1, 0])
    once, twice = net.trace(x), net.trace(torch.cat([x, x]))
    yy = torch.cat([y, y])
    assert losses.value(net, twice, yy, loss).item() == pytest.approx(
        losses.value(net, once, y, loss).item(), rel=1e-13
    )
    half = losses.output_error(net, once, y, loss) / 2
    assert torch.allclose(losses.output_error(net, twice, yy, loss)[:6], half, atol=1e-15)


def test_a_right_answer_costs_nothing():
    net, x = build("dense", "relu", "linear")
    trace = net.trace(x)
    y = trace.values[-1].detach()
    assert losses.value(net, trace, y, "mse").item() == 0
    assert not losses.output_error(net, trace, y, "mse").any()


# --- targets


def test_class_numbers_become_one_hot_rows():
    out = torch.zeros(3, 4, dtype=F64)
    rows = losses.as_targets(torch.tensor([2, 0, 3], dtype=torch.int32), out)
    assert rows.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert rows.dtype == F64
    numbers = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(losses.as_targets(numbers, out), numbers.double())


@pytest.mark.parametrize(
    ("y", "shape", "words"),
    [
        (torch.tensor([0, 3]), (2, 3), "class numbers from 0 to 2 for 3 outputs, found 0 to 3"),
        (torch.tensor([-1, 1]), (2, 3), "found -1 to 1; build the net with one output per class"),
        (torch.tensor([0, 1]), (2, 1), r"0/1 targets of shape \(n, 1\) to a single output"),
        (torch.zeros(2), (2, 1), r"expected targets of shape \(2, 1\), or \(2,\) whole class"),
        (torch.zeros(3, 3), (2, 3), r"or \(2,\) whole class numbers, found \(3, 3\) of torch\.flo"),
        (torch.tensor([0, 1, 1]), (2, 3), r"found \(3,\) of torch\.int64"),
        (torch.zeros(2, 1), (2, 3), r"shape \(2, 3\), .* found \(2, 1\)"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, shape, words):
    with pytest.raises(ValueError, match=words):
        losses.as_targets(y, torch.zeros(shape))


@pytest.mark.parametrize("function", [losses.value, losses.output_error])
def test_target_rows_that_are_no_probabilities_are_refused_under_softmax(function):
    net, x = build("dense", "relu", "softmax")
    y = torch.full((6, 3), 0.5, dtype=F64)
    with pytest.raises(ValueError, match=r"sum to 1, found sums from 1\.5 to 1\.5; normalise"):
        function(net, net.trace(x), y, "cross_entropy")
    function(net, net.trace(x), y, "mse")


# --- which loss


def test_the_loss_follows_the_outputs_unless_it_is_named():
    for output in OUTPUT:
        expected = "cross_entropy" if output == "softmax" else "mse"
        assert losses.resolve(net_with(output), None) == expected
    assert losses.resolve(net_with("softmax"), "mse") == "mse"
    assert losses.resolve(net_with("sigmoid"), "cross_entropy") == "cross_entropy"


def test_an_unknown_loss_is_named_with_those_there_are():
    with pytest.raises(
        ValueError, match="unknown loss 'hinge'; expected one of mse, cross_entropy"
    ):
        losses.resolve(net_with("linear"), "hinge")


@pytest.mark.parametrize("output", ["linear", "tanh", "relu"])
def test_cross_entropy_needs_probabilities(output):
    words = f'softmax or sigmoid outputs, found {output}; use loss="mse" or build the net with'
    with pytest.raises(ValueError, match=words):
        losses.resolve(net_with(output), "cross_entropy")
