"""lib.rules.perturb: four global scores, each an estimate of the gradient that is only noisy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from helpers import BUILDERS, F64, autograd, build, grads, tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lib import losses, nets, rules
from lib.nets import OUTPUT, Dense, Net
from lib.rules import BernoulliReinforce, EvolutionStrategy, WeightPerturbation, perturb

CLASSES = torch.tensor([0, 1, 2, 1, 1, 0])
LOSSES = [(out, "mse") for out in OUTPUT] + [(o, "cross_entropy") for o in ("softmax", "sigmoid")]


def make(name: str, net: Net, *, seed: int = 0, sigma: float = 1e-4, m: int = 1, **more):
    """A rule by name with m draws (an evolution strategy: m pairs)."""
    count = {"population": 2 * m} if name == "evolution" else {"samples": m}
    rng = np.random.default_rng(seed)
    return rules.get(name)(net, rng=rng, sigma=sigma, **count, **more)


NAMES = ("node perturbation", "weight perturbation", "evolution", "reinforce")
SMALL = NAMES[:3]  # those that are right for a small sigma


def flat(net: Net) -> torch.Tensor:
    return torch.cat([g.flatten() for g in grads(net)])


def one_weight(w: float = 2.0, b: float = 1.0, act: str = "linear") -> Net:
    return Net([Dense(torch.tensor([[w]], dtype=F64), torch.tensor([b], dtype=F64), act)])


def linear_task(seed: int = 0, sizes=(5, 4, 3), n: int = 8):
    """A linear net, n inputs, targets as numbers."""
    r = np.random.default_rng(seed)
    net = nets.mlp(list(sizes), activation="linear", rng=r, dtype=F64)
    return net, tensor(r, n, sizes[0]), tensor(r, n, sizes[-1])


# --- by hand: y = 2x + 1, one or two examples, a draw that is known


def test_node_perturbation_by_hand():
    """x = 3: y = 7, t = 5, E = 2. With noise z the answer is 7 + z, the rise 2 z + z^2 / 2."""
    net, x = one_weight(), torch.tensor([[3.0]], dtype=F64)
    z = 0.5 * np.random.default_rng(4).standard_normal()
    rule = make("node perturbation", net, seed=4, sigma=0.5)
    assert rule(net, x, x + 2).item() == 2.0
    delta = (2 * z + z**2 / 2) * z / 0.25
    assert flat(net).numpy() == pytest.approx([3 * delta, delta], rel=1e-12)


def test_weight_perturbation_by_hand():
    """The same task: steps dw and db move the answer by 3 dw + db, for both examples alike."""
    net, x = one_weight(), torch.tensor([[3.0], [3.0]], dtype=F64)
    dw, db = 0.5 * np.random.default_rng(4).standard_normal(2)
    rule = make("weight perturbation", net, seed=4, sigma=0.5)
    assert rule(net, x, x + 2).item() == 2.0
    up = 3 * dw + db
    rise = 2 * up + up**2 / 2
    assert flat(net).numpy() == pytest.approx([rise * dw / 0.25, rise * db / 0.25], rel=1e-12)


def test_evolution_by_hand():
    """Antithetic pairs cancel the square: the difference is 2 . 2 . (3 dw + db), halved."""
    net, x = one_weight(), torch.tensor([[3.0]], dtype=F64)
    dw, db = 0.5 * np.random.default_rng(4).standard_normal(2)
    rule = make("evolution", net, seed=4, sigma=0.5)
    assert rule(net, x, x + 2).item() == 2.0
    rise = 2 * (3 * dw + db)
    assert flat(net).numpy() == pytest.approx([rise * dw / 0.25, rise * db / 0.25], rel=1e-12)


@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_by_hand(baseline):
    """Two examples; a baseline is the other's cost. The score is noise / sigma^2 times x."""
    net, x = one_weight(), torch.tensor([[3.0], [1.0]], dtype=F64)
    z = 0.5 * np.random.default_rng(4).standard_normal(2)
    rule = make("reinforce", net, seed=4, sigma=0.5, baseline=baseline)
    cost = (np.array([7, 3]) + z - np.array([5, 3])) ** 2 / 2
    assert rule(net, x, x + 2).item() == pytest.approx(cost.mean(), rel=1e-12)
    credit = (cost - baseline * cost[::-1]) * z / 0.25 / 2
    assert flat(net).numpy() == pytest.approx([credit @ [3, 1], credit.sum()], rel=1e-12)


@pytest.mark.parametrize(("outputs", "second"), [(1, 0.3), (2, -2.0)])
def test_the_reward_for_being_correct_by_hand(outputs, second):
    """Small noise cannot change who wins: the cost is 1 for the first example, 0 for the second."""
    w = torch.tensor([[1.0], [-1.0]], dtype=F64)[:outputs]
    net = Net([Dense(w, torch.zeros(outputs, dtype=F64), "linear")])
    x = torch.tensor([[3.0], [second]], dtype=F64)
    y = torch.zeros(2, 1, dtype=F64) if outputs == 1 else torch.tensor([1, 1])
    z = 1e-3 * np.random.default_rng(4).standard_normal((2, outputs))
    rule = make("reinforce", net, seed=4, sigma=1e-3, baseline=False, reward="correct")
    loss = rule(net, x, y)
    expected = np.array([1, 0]) @ (z * x.numpy()) / 1e-6 / 2
    assert net.layers[0].weight.grad[:, 0].numpy() == pytest.approx(expected, rel=1e-9)
    assert loss.item() == pytest.approx(losses.value(net, net.trace(x), y, "mse").item(), rel=0.01)


# --- noise that runs through the net


@pytest.mark.parametrize("kind", BUILDERS)
def test_noise_runs_through_every_layer(kind):
    """Each noisy drive is the layer's drive of the noisy input, plus its noise; skips carry it."""
    net, x = build(kind, "tanh", "linear")
    trace, noises = perturb.noisy_trace(net, x, sigma=0.3, rng=np.random.default_rng(0))
    clean, r = net.trace(x), np.random.default_rng(0)
    h = [x]
    for layer, a, noise, rest in zip(net.layers, trace.drives, noises, clean.drives, strict=True):
        assert a.shape == noise.shape == rest.shape
        assert torch.equal(noise, 0.3 * torch.from_numpy(r.standard_normal(tuple(a.shape))))
        assert torch.allclose(a, layer.drive(h[-1]) + noise, rtol=0, atol=1e-14)
        own = layer.fire(a)
        h.append(h[-layer.skip].flatten(1) + layer.gain * own if layer.skip else own)
    assert all(torch.equal(a, b) for a, b in zip(trace.values, h, strict=True))
    assert not torch.allclose(trace.values[-1] - noises[-1], clean.values[-1])


@pytest.mark.parametrize("kind", BUILDERS)
def test_noise_of_size_0_is_the_plain_net(kind):
    net, x = build(kind, "signed_relu", "softmax")
    trace, _ = perturb.noisy_trace(net, x, sigma=0.0, rng=np.random.default_rng(0))
    plain = net.trace(x)
    for one, other in zip(trace.values + trace.drives, plain.values + plain.drives, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("output", "loss"), LOSSES)
def test_the_loss_of_each_example_has_the_batchs_loss_as_its_mean(output, loss):
    net, x = build("dense", "tanh", output)
    trace = net.trace(x)
    each = losses.each(net, trace, CLASSES, loss)
    assert each.shape == (6,)
    assert each.mean().item() == pytest.approx(losses.value(net, trace, CLASSES, loss).item())
    one = losses.value(net, net.trace(x[2:3]), CLASSES[2:3], loss).item()
    assert each[2].item() == pytest.approx(one)


# --- the mean of many draws


@pytest.mark.parametrize("name", SMALL)
def test_the_error_falls_as_one_over_the_root_of_the_draws(name):
    """Root mean square distance to Backprop's gradient, of 24 estimates per number of draws."""
    net, x, y = linear_task()
    exact = torch.cat([g.flatten() for g in autograd(net, x, y, "mse")])
    counts, far = [1, 4, 16, 64, 256], []
    for m in counts:
        rule, square = make(name, net, seed=m, m=m), 0.0
        for _ in range(24):
            rule(net, x, y)
            square += float((flat(net) - exact).square().sum()) / 24
        far.append(square**0.5)
    slope = np.polyfit(np.log(counts), np.log(far), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.07)
    assert far[-1] < 0.6 * float(exact.norm())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize(("output", "loss"), [("softmax", "cross_entropy"), ("sigmoid", "mse")])
def test_the_mean_is_backprops_gradient_on_any_net(kind, name, output, loss):
    """20 independent estimates: their mean is within its own standard errors, on every layer."""
    net, x = build(kind, "tanh", output)
    exact = torch.cat([g.flatten() for g in autograd(net, x, CLASSES, loss)])
    rule, found = make(name, net, m=60, loss=loss), []
    for _ in range(20):
        rule(net, x, CLASSES)
        found.append(flat(net))
    found = torch.stack(found)
    z = (found.mean(0) - exact) / (found.std(0) / 20**0.5 + 1e-12)
    assert 0.6 < float(z.square().mean()) < 1.7  # Student's t with 19: 1.12
    share = float(found.mean(0) @ exact / exact.square().sum())
    assert share == pytest.approx(1, abs=0.2)  # the scale is Backprop's


@pytest.mark.parametrize("name", SMALL)
def test_samples_average(name):
    """m draws at once are the mean of m single draws from the same generator."""
    net, x = build("dense", "tanh", "softmax")
    make(name, net, m=5)(net, x, CLASSES)
    together, single, total = flat(net), make(name, net), 0
    for _ in range(5):
        single(net, x, CLASSES)
        total = total + flat(net) / 5
    assert torch.allclose(together, total, rtol=1e-6, atol=1e-9)


def test_more_than_64_draws_run_in_several_passes():
    net, x = build("dense", "tanh", "softmax")
    make("weight perturbation", net, m=150)(net, x, CLASSES)
    together, one, total = flat(net), np.random.default_rng(0), 0
    for m in (64, 64, 22):
        WeightPerturbation(net, rng=one, sigma=1e-4, samples=m)(net, x, CLASSES)
        total = total + flat(net) * m / 150
    assert torch.allclose(together, total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("m", [1, 8, 64])
def test_the_cosine_law_of_antithetic_pairs(m):
    """sqrt(m / (m + D + 1)), D = 39 weights, 150 repeats: within 4 %; a single pair apart."""
    net, x, y = linear_task()
    exact = torch.cat([g.flatten() for g in autograd(net, x, y, "mse")])
    size = len(exact)
    assert size == 39
    rule, found = make("evolution", net, m=m), []
    for _ in range(600 if m == 1 else 150):
        rule(net, x, y)
        found.append(float(torch.cosine_similarity(flat(net), exact, dim=0)))
    law = (m / (m + size + 1)) ** 0.5
    # a single direction: E|cos| = sqrt(2 / (pi D)), which the law overstates
    law = (2 / np.pi / size) ** 0.5 if m == 1 else law
    assert np.mean(found) == pytest.approx(law, rel=0.1 if m == 1 else 0.04)


def test_node_perturbation_needs_fewer_draws_than_weight_perturbation():
    """Its squared error is less than a fifth for one draw: 7 units here, but 39 weights."""
    net, x, y = linear_task()
    exact = torch.cat([g.flatten() for g in autograd(net, x, y, "mse")])
    square = {}
    for name in SMALL[:2]:
        rule, square[name] = make(name, net), 0.0
        for _ in range(200):
            rule(net, x, y)
            square[name] += float((flat(net) - exact).square().sum())
    assert square["weight perturbation"] > 5 * square["node perturbation"]


# --- reinforce


def smoothed(net: Net, x, y, *, sigma: float, cost: str) -> np.ndarray:
    """Central differences of the expected cost of a tiny net, with common random numbers."""
    many = 4000
    rows, told = x.repeat(many, 1), y.repeat(many, 1)

    def expected() -> float:
        rng = np.random.default_rng(99)
        trace, _ = perturb.noisy_trace(net, rows, sigma=sigma, rng=rng)
        if cost == "correct":
            return float(((trace.values[-1] > 0.5) != (told > 0.5)).double().mean())
        return float(losses.value(net, trace, told, "mse"))

    eps, found = 1e-4 if cost == "loss" else 0.1, []
    with torch.no_grad():
        for p in net.parameters():
            for i in range(p.numel()):
                kept = p.flatten()[i].item()
                p.view(-1)[i] = kept + eps
                up = expected()
                p.view(-1)[i] = kept - eps
                found.append((up - expected()) / (2 * eps))
                p.view(-1)[i] = kept
    return np.array(found)


@pytest.mark.parametrize("cost", ["loss", "correct"])
def test_reinforce_is_the_gradient_of_the_smoothed_cost_and_a_baseline_steadies_it(cost):
    """At a sigma so large that the smoothed gradient is not Backprop's."""
    r = np.random.default_rng(2)
    net = nets.mlp([2, 2, 1], activation="tanh", rng=r, dtype=F64, weight_gain=2.0)
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=F64)
    y = torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=F64)
    wanted = smoothed(net, x, y, sigma=0.8, cost=cost)
    exact = torch.cat([g.flatten() for g in autograd(net, x, y, "mse")]).numpy()
    spread = {}
    for baseline in (True, False):
        rule = make("reinforce", net, sigma=0.8, m=200, baseline=baseline, reward=cost)
        found = []
        for _ in range(200):
            rule(net, x, y)
            found.append(flat(net).numpy())
        spread[baseline] = np.var(found, axis=0).sum()
        off = np.abs(np.mean(found, axis=0) - wanted)
        bound = 4.5 * np.std(found, axis=0) / 200**0.5
        assert (off < bound + 0.02).all()
        assert (np.abs(np.mean(found, axis=0) - exact) > bound + 0.02).any()
    assert spread[True] < 0.8 * spread[False]


def test_the_baseline_is_not_the_examples_own():
    """Adding a constant to every cost changes nothing, and the estimate is not shrunk by 1/n."""
    net, x = one_weight(0.0, 0.0), torch.ones(2, 1, dtype=F64)
    rule, found = make("reinforce", net, sigma=0.1), []
    for _ in range(4000):
        rule(net, x, 0 * x + 1)  # dE/db = -1 for both
        found.append(net.layers[0].bias.grad.item())
    assert np.mean(found) == pytest.approx(-1, abs=5 * np.std(found) / 4000**0.5)
    assert 5 * np.std(found) / 4000**0.5 < 0.25


def test_samples_of_reinforce_repeat_the_batch():
    net, x = build("dense", "tanh", "softmax")
    make("reinforce", net, sigma=0.1, m=3)(net, x, CLASSES)
    first = flat(net)
    make("reinforce", net, sigma=0.1)(net, x.repeat(3, 1), CLASSES.repeat(3))
    assert torch.allclose(first, flat(net), rtol=1e-12, atol=1e-14)


# --- what holds for each of them


class Turned:
    """A generator whose every draw has the other sign."""

    def __new__(cls, seed: int):
        class Minus(np.random.Generator):
            def standard_normal(self, *args, **options):
                return -super().standard_normal(*args, **options)

        return Minus(np.random.PCG64(seed))


def test_pairs_do_not_care_about_the_sign_of_the_noise():
    net, x = build("skips from the data", "relu", "softmax")
    found = {}
    for name in SMALL:
        for rng in (np.random.Generator(np.random.PCG64(5)), Turned(5)):
            rule = make(name, net, sigma=0.1)
            rule.rng = rng
            rule(net, x, CLASSES)
            found.setdefault(name, []).append(flat(net))
    assert torch.allclose(*found["evolution"], rtol=1e-10, atol=1e-13)
    assert not torch.allclose(*found["weight perturbation"], rtol=1e-3)
    assert not torch.allclose(*found["node perturbation"], rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", BUILDERS)
def test_a_step_writes_gradients_and_nothing_else(kind, name):
    net, x = build(kind, "signed_relu", "softmax")
    before, owned, state = nets.fingerprint(net), list(net.parameters()), torch.get_rng_state()
    given = x.clone()
    loss = make(name, net, sigma=0.1, m=3)(net, x, CLASSES)
    assert nets.fingerprint(net) == before and torch.equal(x, given)
    assert all(a is b for a, b in zip(owned, net.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert loss.shape == () and not loss.requires_grad
    assert all(p.grad.shape == p.shape and p.grad.dtype == p.dtype for p in net.parameters())
    assert all(p.grad.is_contiguous() and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_it_returns_is_the_loss_without_noise(name):
    net, x = build("dense", "tanh", "softmax")
    expected = losses.value(net, net.trace(x), CLASSES, "cross_entropy").item()
    found = make(name, net, sigma=1.0)(net, x, CLASSES).item()
    assert found == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_gradients_survive_an_exception(name, monkeypatch):
    """The loss fails in the middle of the perturbed passes."""
    net, x = build("dense", "tanh", "softmax")
    rule = make(name, net, m=3)
    rule(net, x, CLASSES)
    before, kept, owned = nets.fingerprint(net), flat(net), list(net.parameters())
    calls, softmax = [], torch.log_softmax

    def fails(*args, **options):
        calls.append(1)
        if len(calls) > (0 if name == "reinforce" else 1):
            raise RuntimeError("out of memory")
        return softmax(*args, **options)

    monkeypatch.setattr(torch, "log_softmax", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        rule(net, x, CLASSES)
    assert nets.fingerprint(net) == before and torch.equal(flat(net), kept)
    assert all(a is b for a, b in zip(owned, net.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_one_estimate(name):
    net, x = build("conv", "relu", "softmax")
    found = []
    for seed in (7, 7, 8):
        make(name, net, seed=seed, sigma=0.1, m=2)(net, x, CLASSES)
        found.append(flat(net))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64(name):
    net, x = build("residual", "tanh", "softmax")
    make(name, net, sigma=0.1, m=4)(net, x, CLASSES)
    wide = flat(net)
    net.float()
    make(name, net, sigma=0.1, m=4)(net, x.float(), CLASSES)
    assert flat(net).dtype == torch.float32
    assert torch.allclose(flat(net).double(), wide, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns(name):
    """A linear map of three inputs: 300 steps of SGD bring the loss below 5 % of where it was."""
    r = np.random.default_rng(0)
    net = nets.mlp([3, 2], rng=r, dtype=F64)
    x = tensor(r, 16, 3)
    y = x @ tensor(r, 3, 2)
    noisy = name == "reinforce"  # never sees the loss without its noise
    rule = make(name, net, sigma=0.3 if noisy else 0.05, m=64 if noisy else 8)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    first = rule(net, x, y).item()
    for _ in range(300):
        rule(net, x, y)
        opt.step()
    assert losses.value(net, net.trace(x), y, "mse").item() < 0.05 * first


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize(("output", "loss"), [("softmax", "cross_entropy"), ("tanh", "mse")])
def test_a_population_in_one_pass_has_the_losses_of_a_loop_over_members(kind, output, loss):
    """Both signs of every step, large enough that a weight left out would show."""
    net, x = build(kind, "signed_relu", output)
    r = np.random.default_rng(0)
    rule = EvolutionStrategy(net, rng=r, sigma=0.1, population=6, loss=loss)
    w = parameters_to_vector(net.parameters()).detach()
    step = 0.3 * tensor(r, 3, len(w))
    with torch.no_grad():
        found = rule._losses(net, x, CLASSES, step, signs=(1, -1))
        assert torch.equal(rule._losses(net, x, CLASSES, step), found[:1])
        for row, sign in zip(found, (1, -1), strict=True):
            for one, d in zip(row, step, strict=True):
                vector_to_parameters(w + sign * d, net.parameters())
                assert one.item() == pytest.approx(
                    losses.value(net, net.trace(x), CLASSES, loss).item(), rel=1e-12
                )


# --- units that fire or not


def expected_cost(net: Net, x, t, output: str) -> torch.Tensor:
    """The exact mean over everything the net can do: every pattern of every hidden layer."""
    total = 0.0
    for row, told in zip(x, t, strict=True):
        states = [(torch.ones((), dtype=F64), row)]
        for layer in net.layers[:-1]:
            after = []
            for chance, h in states:
                p = torch.sigmoid(layer.weight @ h + layer.bias)
                for bits in product([0.0, 1.0], repeat=len(p)):
                    z = torch.tensor(bits, dtype=F64)
                    after.append((chance * (z * p + (1 - z) * (1 - p)).prod(), z))
            states = after
        for chance, h in states:
            a = net.layers[-1].weight @ h + net.layers[-1].bias
            if net.output == "softmax":
                right = (torch.log_softmax(a, -1) * told).sum()
            else:
                right = (told * a - torch.nn.functional.softplus(a)).sum()
            total = total + chance * (1 - right.exp() if output == "reward" else -right)
    return total / len(x)


ANSWERS = {
    "sigmoid": torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=F64),
    "softmax": torch.tensor([0, 2, 1, 2]),
}
FOUR = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=F64)


def coins(end: str, seed: int = 3) -> Net:
    sizes = [2, 2, 2, 1 if end == "sigmoid" else 3]
    r = np.random.default_rng(seed)
    return nets.mlp(sizes, activation="sigmoid", output=end, rng=r, dtype=F64, weight_gain=1.5)


@pytest.mark.parametrize(("m", "baseline"), [(1, False), (1, True), (2, True)])
@pytest.mark.parametrize("output", ["reward", "delta"])
@pytest.mark.parametrize("end", ANSWERS)
def test_bernoulli_reinforce_is_the_gradient_of_the_expected_cost(end, output, m, baseline):
    """Against autograd through the sum over all patterns: every weight within 4 SE."""
    net, y = coins(end), ANSWERS[end]
    t = y if end == "sigmoid" else torch.eye(3, dtype=F64)[y]
    cost = expected_cost(net, FOUR, t, output)
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(cost, list(net.parameters()))])
    rule = BernoulliReinforce(
        net, rng=np.random.default_rng(1), samples=m, output=output, baseline=baseline
    )
    x, y, found = FOUR.repeat(25, 1), torch.cat([y] * 25), []
    for _ in range(600):
        rule(net, x, y)
        found.append(flat(net))
    found = torch.stack(found)
    z = (found.mean(0) - exact) / (found.std(0) / 600**0.5)
    assert float(z.abs().max()) < 4
    share = found @ exact / exact.square().sum()
    assert float(share.mean()) == pytest.approx(1, abs=4 * float(share.std()) / 600**0.5)
    assert float(share.std()) / 600**0.5 < 0.15


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("output", ["reward", "delta"])
def test_bernoulli_reinforce_by_hand(output, baseline):
    """One hidden unit, p = 1/2: it fires if u < 1/2. The output says 1 with p = sigmoid(h)."""
    r, draws = np.random.default_rng(0), []
    net = nets.mlp([1, 1, 1], activation="sigmoid", output="sigmoid", rng=r, dtype=F64)
    vector_to_parameters(torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=F64), net.parameters())
    x = torch.tensor([[2.0], [4.0]], dtype=F64)

    class Known(np.random.Generator):
        def random(self, shape):
            draws.append(shape)
            return np.array([[0.4], [0.6]] if len(draws) == 1 else [[0.9], [0.4]])

    known = Known(np.random.PCG64(0))
    rule = BernoulliReinforce(net, rng=known, output=output, baseline=baseline)
    loss = rule(net, x, 0 * x + 1)
    p = 1 / (1 + np.exp(-1))  # the first fires and says 0, the second does not and says 1
    each = -np.log([p, 0.5])
    assert loss.item() == pytest.approx(each.mean())
    cost = np.array([1.0, 0.0]) if output == "reward" else each
    cost = cost - baseline * cost[::-1]  # the other example's
    hidden = cost * [0.5, -0.5] / 2
    top = cost * [0 - p, 1 - 0.5] / 2 if output == "reward" else np.array([p - 1, -0.5]) / 2
    wanted = [hidden @ [2, 4], hidden.sum(), top[0], top.sum()]
    assert flat(net).numpy() == pytest.approx(wanted, rel=1e-12)


def test_an_examples_other_draws_are_its_baseline():
    """A cost that depends on the example alone gives no credit at all; one draw cannot tell."""
    net = coins("sigmoid")
    net.layers[-1].weight.data.zero_()
    net.layers[-1].bias.data.fill_(1.0)  # the loss knows the target, but not what the units did
    for m, still in ((2, True), (1, False)):
        rule = BernoulliReinforce(net, rng=np.random.default_rng(0), samples=m, output="delta")
        rule(net, FOUR, ANSWERS["sigmoid"])
        hidden = torch.cat([net.layers[i].weight.grad.flatten() for i in (0, 1)])
        assert (float(hidden.abs().max()) < 1e-15) == still


def test_a_softmax_draws_classes_with_its_probabilities():
    p = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]]).repeat(5000, 1)
    drawn = perturb._drawn(p, "softmax", np.random.default_rng(0))
    assert torch.equal(drawn.sum(1), torch.ones(10000))
    assert drawn[::2].mean(0).tolist() == pytest.approx([0.2, 0.5, 0.3], abs=0.03)
    assert drawn[1::2].mean(0).tolist() == [0, 0, 1]
    short = torch.full((1, 3), 0.3)  # a row that rounding has left below 1 still says something

    class High(np.random.Generator):
        def random(self, shape):
            return np.full(shape, 0.99)

    assert perturb._drawn(short, "softmax", High(np.random.PCG64(0))).tolist() == [[0, 0, 1]]


def test_units_that_fire_or_not_are_what_the_layer_above_sees():
    """Weight gradients of the second layer are 0 where the unit below did not fire."""
    net = coins("softmax")
    rule = BernoulliReinforce(net, rng=np.random.default_rng(0), baseline=False, output="delta")
    for _ in range(20):
        rule(net, FOUR[:1], ANSWERS["softmax"][:1])
        for layer in net.layers[1:]:
            share = layer.weight.grad / layer.bias.grad[:, None]
            assert ((share == 0) | ((share - 1).abs() < 1e-12)).all()


def test_bernoulli_reinforce_refuses_what_it_cannot_draw():
    r = np.random.default_rng(0)
    for activation, output in (("tanh", "sigmoid"), ("sigmoid", "linear")):
        net = nets.mlp([2, 2, 1], activation=activation, output=output, rng=r)
        with pytest.raises(ValueError, match="expected sigmoid units and a softmax or sigmoid"):
            BernoulliReinforce(net, rng=r)
    net = coins("sigmoid")
    with pytest.raises(ValueError, match="unknown output 'hebb'; expected reward or delta"):
        BernoulliReinforce(net, rng=r, output="hebb")
    with pytest.raises(ValueError, match="expected rng="):
        BernoulliReinforce(net)
    with pytest.raises(ValueError, match="expected samples"):
        BernoulliReinforce(net, rng=r, samples=0)
    with pytest.raises(ValueError, match="found 1 draw, no others for a baseline"):
        BernoulliReinforce(net, rng=r)(net, FOUR[:1], ANSWERS["sigmoid"][:1])
