"""lib.rules.kickback: hand-computed, against autograd, the theorems and where they end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers import F64, autograd, grads, tensor, with_biases
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import data, losses, measure, nets, rules
from lib.influence import cuts
from lib.nets import Dense, Net
from lib.rules import Backprop, Kickback

PROPERTY = settings(deadline=None, derandomize=True, database=None, max_examples=60)
SEEDS = st.integers(0, 10**6)
HIDDEN = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(sizes, seed=0, *, act="signed_relu", out="linear", init="default") -> Net:
    net = nets.mlp(sizes, activation=act, output=out, rng=rng(seed), dtype=F64, init=init)
    return net if init == "coherent" else with_biases(net, rng(seed + 1))


def residual(seed=0, *, blocks=3, n_out=1, width=5, act="signed_relu", scale=None) -> Net:
    net = nets.residual_mlp(
        4, width, n_out, blocks=blocks, activation=act, scale=scale, rng=rng(seed), dtype=F64
    )
    return with_biases(net, rng(seed + 1))


def batch(net, n=6, seed=7):
    return tensor(rng(seed), n, net.layers[0].n_in), tensor(rng(seed + 1), n, net.layers[-1].n_out)


def run(rule, net, x, y) -> list[torch.Tensor]:
    rule(net, x, y)
    return grads(net)


def close(a, b, tol=1e-12):
    assert max(float((p - q).abs().max()) for p, q in zip(a, b, strict=True)) <= tol


def test_by_hand():
    """x = 2; drives (2, 2), outputs (2, -2); drives (4, 2), outputs (4, -2); y = 14, beta = 1.

    tau = (1 - 2, -1 - 1) = (-1, -2) where pi = (3 + 2, -3 + 1) = (5, -2): one sign is wrong.
    """
    t = lambda *rows: torch.tensor(rows, dtype=F64)  # noqa: E731
    sign = torch.tensor([1.0, -1.0], dtype=F64)
    net = Net(
        [
            Dense(t([1.0], [0.5]), t(0.0, 1.0), "relu", sign=sign),
            Dense(t([1.0, -1.0], [2.0, 1.0]), t(0.0, 0.0), "relu", sign=sign),
            Dense(t([3.0, -1.0]), t(0.0), "linear"),
        ]
    )
    rule = Kickback(net)
    assert float(rule(net, t([2.0]), t([13.0]))) == 0.5
    expected = [[-2, 4], [-1, 2], [6, -6, 2, -2], [3, 1], [4, -2], [1]]
    assert [g.flatten().tolist() for g in grads(net)] == expected
    assert [g.flatten().tolist() for g in run(Backprop(net), net, t([2.0]), t([13.0]))][:2] == [
        [10, 4],
        [5, 2],
    ]


def test_registered():
    assert rules.get("kickback") is Kickback and "kickback" in rules.names()


# --- where it must equal backprop


@pytest.mark.parametrize("act", ["relu", "signed_relu", "linear"])
def test_one_hidden_layer_is_backprop(act):
    net = plain([4, 7, 1], act=act)
    x, y = batch(net)
    close(run(Kickback(net), net, x, y), autograd(net, x, y, "mse"), 1e-15)


@pytest.mark.parametrize("above", ["ones", "head", "tags"])
@pytest.mark.parametrize("extra", [-1, 0, 3])
def test_as_many_hops_as_layers_is_backprop(above, extra):
    """Also one fewer, since no stand-in is needed in the lowest layer."""
    n_out = 1 if above == "ones" else 3
    for net in (
        plain([4, 5, 6, 7, n_out], act="relu"),
        plain([4, 5, 5, 5, n_out]),
        residual(blocks=3, n_out=n_out),
    ):
        hops = len(cuts(net)) - 1 + extra
        x, y = batch(net)
        rule = Kickback(net, hops=hops, above=above, rng=rng())
        close(run(rule, net, x, y), autograd(net, x, y, "mse"))


@pytest.mark.parametrize("hops", [0, 1, 2])
def test_top_layers_are_exact(hops):
    net = plain([4, 5, 6, 7, 8, 1])
    x, y = batch(net)
    kicked, exact = run(Kickback(net, hops=hops), net, x, y), autograd(net, x, y, "mse")
    top = 2 * (hops + 1)
    close(kicked[-top:], exact[-top:])
    assert float((kicked[-top - 2] - exact[-top - 2]).abs().max()) > 1e-3


# --- against autograd: what each layer pushes


def pushed(net, x, y, rule, stand_in) -> list[torch.Tensor]:
    """d<e, the values where the hops end>/dW_l by autograd, e held fixed; the loss at the top."""
    at, loss = cuts(net), rule.loss
    trace = net.trace(x)
    beta = losses.output_error(net, trace, y, loss).detach()
    total = losses.value(net, trace, y, loss)
    out = []
    for index, layer in enumerate(net.layers):
        stage = max(i for i, low in enumerate(at[:-1]) if low <= index)
        goal = stage + 1 + rule.hops
        what = (
            total
            if goal >= len(at) - 1
            else (stand_in(beta, at[goal]).detach() * trace.values[at[goal]]).sum()
        )
        out += torch.autograd.grad(what, [layer.weight, layer.bias], retain_graph=True)
    return out


@PROPERTY
@given(SEEDS, HIDDEN, st.integers(0, 3))
def test_each_layer_pushes_the_next_layers_total(seed, hidden, hops):
    """Kickback's change of layer l is -eta d(beta S)/dW_l, S the sum hops layers up."""
    net = plain([3, *hidden, 1], seed)
    x, y = batch(net, 4, seed)
    rule = Kickback(net, hops=hops)
    close(run(rule, net, x, y), pushed(net, x, y, rule, lambda beta, at: beta))


@pytest.mark.parametrize("hops", [0, 1, 2])
@pytest.mark.parametrize("above", ["ones", "head", "tags"])
def test_residual_blocks_against_autograd(above, hops):
    net = residual(blocks=4, n_out=1 if above == "ones" else 3)
    x, y = batch(net)
    rule = Kickback(net, hops=hops, above=above, rng=rng(3))
    stand_in = {
        "ones": lambda beta, at: beta,
        "head": lambda beta, at: beta @ net.layers[-1].weight,
        "tags": lambda beta, at: beta[:, getattr(rule, f"tags{at}")],
    }[above]
    close(run(rule, net, x, y), pushed(net, x, y, rule, stand_in))


@pytest.mark.parametrize("side", [-1e-9, 1e-9])
def test_both_sides_of_a_kink(side):
    """One unit of the second layer a hair below or above its threshold."""
    net = plain([3, 4, 5, 4, 1])
    x, y = batch(net, 1)
    net.layers[1].bias.data[2] += side - net.trace(x).drives[1][0, 2].detach()
    assert (net.trace(x).drives[1][0, 2] > 0) == (side > 0)
    rule = Kickback(net)
    close(run(rule, net, x, y), pushed(net, x, y, rule, lambda beta, at: beta))


# --- the theorem, and where it ends


@settings(PROPERTY, max_examples=300)
@given(SEEDS, HIDDEN, st.sampled_from(["relu", "signed_relu", "mixed"]))
def test_a_coherent_net_descends_on_every_example(seed, hidden, act):
    """Each single weight's change has the sign of minus its gradient, or is 0."""
    signs = [rng(seed).choice([-1, 1], n) for n in hidden] if act == "mixed" else None
    net = nets.mlp(
        [3, *hidden, 1],
        activation="relu" if act == "mixed" else act,
        signs=signs,
        init="coherent",
        rng=rng(seed),
        dtype=F64,
    )
    x, y = batch(net, 4, seed)
    for i in range(4):
        kicked = run(Kickback(net), net, x[i : i + 1], y[i : i + 1])
        exact = autograd(net, x[i : i + 1], y[i : i + 1], "mse")
        assert min(float((k * g).min()) for k, g in zip(kicked, exact, strict=True)) >= 0


def test_a_coherent_residual_net_descends_too():
    net = residual(blocks=4)
    nets.project_coherent(net)
    x, y = batch(net, 20)
    for i in range(20):
        kicked = run(Kickback(net), net, x[i : i + 1], y[i : i + 1])
        exact = autograd(net, x[i : i + 1], y[i : i + 1], "mse")
        assert min(float((k * g).min()) for k, g in zip(kicked, exact, strict=True)) >= 0


def test_without_coherence_it_may_climb():
    net = plain([3, 8, 8, 8, 1])
    x, y = batch(net, 1)
    kicked, exact = run(Kickback(net), net, x, y), autograd(net, x, y, "mse")
    assert min(float((k * g).min()) for k, g in zip(kicked, exact, strict=True)) < 0


def counterexample() -> tuple[Net, torch.Tensor, torch.Tensor]:
    """A coherent net and two examples; each descends alone, both together climb."""
    t = lambda *rows: torch.tensor(rows, dtype=F64)  # noqa: E731
    net = Net(
        [
            Dense(t([1 / 3, 0.0], [0.0, 1.0], [0.0, -1.0]), t(0.0, 0.0, 0.0), "relu"),
            Dense(t([4.0, 1.0, 0.0], [4.0, 0.0, 1.0]), t(-4.5, -4.5), "relu"),
            Dense(t([1.0, 10.0]), t(0.0), "linear"),
        ]
    )
    return net, t([3.0, 1.0], [3.0, -1.0]), t([-0.5], [5.5])


def test_the_theorem_does_not_extend_to_batches():
    net, x, y = counterexample()
    nets.require_coherent(net)
    assert (net(x) - y).flatten().tolist() == [1.0, -0.5]

    def inner(x, y):
        kicked, exact = run(Kickback(net), net, x, y), autograd(net, x, y, "mse")
        return float(sum((k * g).sum() for k, g in zip(kicked, exact, strict=True)))

    one, other, both = inner(x[:1], y[:1]), inner(x[1:], y[1:]), inner(x, y)
    assert one == pytest.approx(191, abs=0.5) and other == pytest.approx(543, abs=0.5)
    assert both == pytest.approx(-14.7, abs=0.05)

    def change(rule):
        trial = copy.deepcopy(net)
        before = float(rule(trial, x, y))
        with torch.no_grad():
            for p in trial.parameters():
                p -= 1e-4 * p.grad
        return float(rule(trial, x, y)) - before

    assert change(Backprop(net)) == pytest.approx(-0.0467, abs=1e-4)
    assert change(Kickback(net)) == pytest.approx(0.0016, abs=1e-4)


def test_positive_tau_is_not_enough():
    """Edges +3 and -1 to units with pi = (0.1, 1): tau = 2 > 0, but pi = -0.7."""
    t = lambda *rows: torch.tensor(rows, dtype=F64)  # noqa: E731
    net = Net(
        [
            Dense(t([1.0]), t(0.0), "relu"),
            Dense(t([3.0], [-1.0]), t(0.0, 2.0), "relu"),
            Dense(t([0.1, 1.0]), t(0.0), "linear"),
        ]
    )
    x = t([1.0])
    found = measure.influence(net, x)
    assert found.tau[0].item() == 2.0 and found.pi[0].item() == pytest.approx(-0.7)
    kicked, exact = run(Kickback(net), net, x, t([0.0])), autograd(net, x, t([0.0]), "mse")
    assert kicked[0].item() * exact[0].item() < 0


# --- invariances


def test_relabelling_units_changes_nothing():
    net = plain([3, 5, 6, 4, 1])
    other, order = copy.deepcopy(net), torch.from_numpy(rng(1).permutation(6))
    layer, above = other.layers[1], other.layers[2]
    layer.weight.data, layer.bias.data = layer.weight.data[order], layer.bias.data[order]
    layer.sign, above.weight.data = layer.sign[order], above.weight.data[:, order]
    x, y = batch(net)
    a, b = run(Kickback(net), net, x, y), run(Kickback(other), other, x, y)
    a[2], a[3], a[4] = a[2][order], a[3][order], a[4][:, order]
    close(a, b, 1e-14)


def flipped(net, index, unit) -> Net:
    """The same function: one unit's sign and its outgoing weights turned round."""
    other = copy.deepcopy(net)
    other.layers[index].sign[unit] *= -1
    other.layers[index + 1].weight.data[:, unit] *= -1
    return other


def test_a_units_sign_is_a_convention_for_its_own_credit_only():
    """Turning a unit round leaves its own change as it is, not what the layer below hears."""
    net = plain([3, 5, 6, 4, 1])
    x, y = batch(net)
    a = run(Kickback(net), net, x, y)
    for index in range(3):
        other = flipped(net, index, 1)
        b = run(Kickback(other), other, x, y)
        b[2 * index + 2][:, 1] *= -1
        kept = range(len(a)) if index == 0 else [i for i in range(8) if i // 2 != index - 1]
        close([a[i] for i in kept], [b[i] for i in kept], 1e-14)
        if 0 < index < 2:  # below a layer with exact credit nothing may change either
            assert float((a[2 * index - 2] - b[2 * index - 2]).abs().max()) > 1e-3
    exact, turned = run(Backprop(net), net, x, y), flipped(net, 1, 1)
    b = run(Backprop(turned), turned, x, y)
    b[4][:, 1] *= -1
    close(exact, b, 1e-14)


def test_only_the_next_layer_and_the_error_are_heard():
    """What lies two layers up matters through beta alone."""
    net = plain([3, 6, 6, 6, 6, 1])
    x, y = batch(net, 1)
    a = run(Kickback(net), net, x, y)
    other = copy.deepcopy(net)
    for layer in other.layers[2:]:
        layer.weight.data += tensor(rng(5), *layer.weight.shape)
    b = run(Kickback(other), other, x, y)
    ratio = ((other(x) - y) / (net(x) - y)).item()
    close([ratio * a[0]], [b[0]])
    assert float((ratio * a[2] - b[2]).abs().max()) > 1e-3


# --- heads, tags, modules


def test_head_in_a_nearly_straight_residual_net_is_the_gradient():
    net = residual(blocks=6, n_out=3, scale=1e-3)
    x, y = batch(net)
    exact = autograd(net, x, y, "mse")
    for hops in (0, 1):
        kicked = run(Kickback(net, hops=hops, above="head"), net, x, y)
        assert max(measure.angle(k, g) for k, g in zip(kicked, exact, strict=True)) < 0.5


def test_head_in_a_plain_net_of_equal_widths():
    net = plain([3, 5, 5, 5, 2])
    x, y = batch(net)
    rule = Kickback(net, hops=1, above="head")
    close(
        run(rule, net, x, y),
        pushed(net, x, y, rule, lambda beta, at: beta @ net.layers[-1].weight),
    )


def test_tags_are_even_fixed_and_travel_with_the_rule():
    net = plain([3, 20, 20, 20, 4], act="relu", out="softmax")
    rule, again = (Kickback(net, above="tags", rng=rng(2)) for _ in range(2))
    assert sorted(rule.state_dict()) == ["tags2", "tags3"]
    assert torch.equal(rule.tags2, again.tags2) and not torch.equal(rule.tags2, rule.tags3)
    assert torch.bincount(rule.tags2).tolist() == [5] * 4
    x, y = batch(net)[0], torch.tensor([0, 1, 2, 3, 0, 1])
    close(
        run(rule, net, x, y),
        pushed(net, x, y, rule, lambda beta, at: beta[:, getattr(rule, f"tags{at}")]),
    )


def ten_modules(seed=0, count=3, output="softmax") -> Net:
    part = lambda i: plain([4, 5, 6, 4, 1], seed + i, init="coherent")  # noqa: E731
    return nets.modules([part(i) for i in range(count)], output=output)


def test_the_theorem_holds_per_module():
    """Also under a softmax, whose errors sum to 0: each module has its own."""
    net = ten_modules()
    nets.require_coherent(net)
    x, y = batch(net, 12)[0], torch.arange(12) % 3
    rule = Kickback(net, above="tags")
    for i in range(12):
        kicked = run(rule, net, x[i : i + 1], y[i : i + 1])
        exact = run(Backprop(net), net, x[i : i + 1], y[i : i + 1])
        assert min(float((k * g).min()) for k, g in zip(kicked, exact, strict=True)) >= 0
        assert sum(float((k * g).sum()) for k, g in zip(kicked, exact, strict=True)) > 0


def test_modules_learn_as_they_would_alone():
    """With squared errors, tags give each module exactly its own Kickback."""
    parts = [plain([4, 5, 6, 1], i) for i in range(3)]
    net = nets.modules(parts)
    x, y = batch(net)
    joint = run(Kickback(net, above="tags"), net, x, y)
    for i, part in enumerate(parts):
        alone = run(Kickback(part), part, x, y[:, i : i + 1])
        close(alone[:2], [joint[0][5 * i : 5 * i + 5], joint[1][5 * i : 5 * i + 5]])
        rows, columns = slice(6 * i, 6 * i + 6), slice(5 * i, 5 * i + 5)
        close(alone[2:4], [joint[2][rows, columns], joint[3][rows]])


# --- errors


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (lambda: plain([3, 4, 4, 2]), {}, r'found 2 outputs: use above="head" or "tags"'),
        (lambda: plain([3, 4, 4, 1], act="sigmoid"), {}, r"layer 0 is sigmoid.*relu"),
        (lambda: plain([3, 4, 4, 1], act="tanh"), {"hops": 9}, r"layer 0 is tanh"),
        (lambda: plain([3, 4, 4, 1]), {"above": "zeros"}, r"unknown above 'zeros'.*ones"),
        (lambda: plain([3, 4, 4, 1]), {"hops": -1}, r"0 or more, found -1"),
        (lambda: plain([3, 4, 4, 1]), {"hops": 1.5}, r"whole number of hops.*1.5"),
        (lambda: plain([3, 4, 4, 4, 2]), {"above": "tags"}, r"give rng="),
        (lambda: plain([3, 9, 5, 4, 2]), {"above": "head"}, r"layer 1 has 5 units.*head reads 4"),
        (lambda: plain([3, 4, 4, 2]), {"loss": "hinge", "above": "head"}, r"unknown loss"),
        (
            lambda: nets.convnet((1, 4, 4), conv=[(2, 2, 1)], dense_sizes=[3, 1], rng=rng()),
            {},
            r"layer 0 is a Conv",
        ),
    ],
)
def test_errors(net, options, message):
    with pytest.raises(ValueError, match=message):
        Kickback(net(), **options)


def test_unequal_widths_out_of_the_heads_reach_are_fine():
    net = plain([3, 9, 4, 4, 2])
    x, y = batch(net)
    assert np.isfinite(float(Kickback(net, above="head")(net, x, y)))


# --- cost and use


def test_one_product_a_layer_as_backprop(monkeypatch):
    calls: list[int] = []
    original = Dense.transpose
    monkeypatch.setattr(Dense, "transpose", lambda self, *a: calls.append(1) or original(self, *a))
    for hidden in (1, 3, 8):
        net = plain([3, *[5] * hidden, 1])
        x, y = batch(net)
        counts = []
        for rule in (Backprop(net), Kickback(net)):
            calls.clear()
            rule(net, x, y)
            counts.append(len(calls))
        assert counts == [hidden, hidden]


@pytest.mark.parametrize("init", ["default", "coherent"])
def test_it_learns(init):
    """A teacher's function, to a tenth of its variance, and a coherent net stays coherent."""
    task = data.teacher([5, 8, 1], activation="relu", n_train=400, n_test=200, rng=rng(0))
    net = plain([5, 24, 24, 24, 1], init=init)
    rule, opt = Kickback(net), torch.optim.Adam(net.parameters(), lr=3e-3)
    order = rng(1)
    for _ in range(40):
        for rows in torch.from_numpy(order.permutation(400)).split(20):
            rule(net, task.x_train[rows], task.y_train[rows])
            opt.step()
            if init == "coherent":
                nets.project_coherent(net)
    assert nets.is_coherent(net) == (init == "coherent")
    assert measure.nmse(net(task.x_test), task.y_test) < 0.1


def test_modules_stay_apart_while_they_learn():
    net = ten_modules(output=None)
    x, y = batch(net, 30)
    rule, opt = Kickback(net, above="tags"), torch.optim.Adam(net.parameters(), lr=1e-2)
    first = float(rule(net, x, y))
    for _ in range(30):
        last = float(rule(net, x, y))
        opt.step()
    assert last < first / 2
    assert all(not layer.weight[layer.mask == 0].any() for layer in net.layers)
