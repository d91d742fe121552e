"""lib.train: the loop, its history, what it draws, and what it refuses."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from helpers import F64

from lib import data, losses, measure, nets, rules, train
from lib.rules import Backprop


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tiny(n: int = 10) -> data.Data:
    """A linear teacher whose first input tells which example it is."""
    made = data.teacher([3, 2], activation="linear", n_train=n, n_test=7, rng=rng(9))
    made.x_train[:, 0] = torch.arange(n, dtype=F64) / n
    return made


def a_net(seed: int = 0) -> nets.Net:
    return nets.mlp([3, 4, 2], activation="tanh", rng=rng(seed), dtype=F64)


class Recorder(Backprop):
    """Backprop that keeps which examples each batch held."""

    def __init__(self, net: nets.Net, scale: float = 1.0) -> None:
        super().__init__(net)
        self.seen, self.scale = [], scale

    def teach(self, net, trace, y):
        return self.scale * super().teach(net, trace, y)

    def forward(self, net, x, y):
        self.seen.append((x[:, 0] * 10).round().int().tolist())
        return super().forward(net, x, y)


def fit(net, rule, made, **options):
    chosen = {"epochs": 3, "batch_size": 4, "rng": rng(1), "progress": False, "lr": 0.1} | options
    optimizer = torch.optim.SGD(net.parameters(), lr=chosen.pop("lr"))
    return train.fit(net, rule, made, optimizer=optimizer, **chosen)


# --- history


def test_one_row_per_epoch_and_one_before_training():
    net = a_net()
    history = fit(net, Backprop(net), tiny())
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert list(history.rows[0]) == ["epoch", "train_loss", "test_loss", "test_error"]
    assert np.isnan(history["train_loss"][0]) and np.isfinite(history["train_loss"][1:]).all()


def test_row_0_is_the_net_as_it_was_given():
    net, made = a_net(), tiny()
    rule = Backprop(net)
    expected = train.evaluate(net, rule, made)
    history = fit(net, rule, made, epochs=2)
    assert {k: history.rows[0][k] for k in expected} == expected
    assert {k: history.rows[-1][k] for k in expected} == train.evaluate(net, rule, made)


def test_without_epochs_nothing_is_trained():
    net = a_net()
    before = nets.fingerprint(net)
    assert len(fit(net, Backprop(net), tiny(), epochs=0).rows) == 1
    assert nets.fingerprint(net) == before


def test_the_training_loss_is_the_mean_over_examples_even_with_a_short_last_batch():
    """Learning rate 0: batches of 4, 4 and 2 must give the loss of all ten."""
    net, made = a_net(), tiny()
    history = fit(net, Backprop(net), made, lr=0.0)
    whole = losses.value(net, net.trace(made.x_train), made.y_train, "mse").item()
    assert history["train_loss"][1:].tolist() == pytest.approx([whole] * 3, rel=1e-13)


def test_an_unknown_column_is_named_with_those_there_are():
    net = a_net()
    history = fit(net, Backprop(net), tiny(), epochs=0)
    with pytest.raises(KeyError, match="no column 'loss'; there are epoch, train_loss, test_loss"):
        history["loss"]


def test_evaluate_by_hand():
    """Two classes out of three right; numbers: the normalised error of test answers."""
    net = nets.mlp([2, 2], output="softmax", rng=rng(), dtype=F64)
    net.layers[0].weight.data = torch.eye(2, dtype=F64)
    x = torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0]], dtype=F64)
    made = data.Data("hand", -x, torch.tensor([0, 1, 1]), x, torch.tensor([0, 1, 1]), 2, "", "")
    found = train.evaluate(net, Backprop(net), made)
    assert found["test_error"] == pytest.approx(1 / 3)
    small = np.log(1 + np.exp(-3.0))
    assert found["test_loss"] == pytest.approx((2 * small + small + 3) / 3)
    net, made = a_net(), tiny()
    found = train.evaluate(net, Backprop(net), made)
    with torch.no_grad():
        assert found["test_error"] == measure.nmse(net(made.x_test), made.y_test)


def test_going_on_from_an_epoch_gives_the_rows_of_the_rest():
    """With the same optimizer and generator: epochs 1 to 4 at once, or one call each."""
    made, histories, prints = tiny(), [], []
    for calls in ([(0, 4)], [(0, 1), (1, 3), (3, 4)]):
        net, rows, order = a_net(), [], rng(1)
        rule = Backprop(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for start, epochs in calls:
            rows += train.fit(net, rule, made, epochs=epochs, start=start, batch_size=4,
                              optimizer=optimizer, rng=order, progress=False).rows  # fmt: skip
        histories.append(rows)
        prints.append(nets.fingerprint(net))
    assert [row["epoch"] for row in histories[0]] == [0, 1, 2, 3, 4]
    assert histories[0][1:] == histories[1][1:] and prints[0] == prints[1]


@pytest.mark.parametrize(("start", "epochs"), [(-1, 3), (3, 3), (1, 0)])
def test_a_start_that_leaves_nothing_to_do_is_refused(start, epochs):
    net = a_net()
    words = f"expected 0 <= start < epochs, found start={start}, epochs={epochs}"
    with pytest.raises(ValueError, match=words):
        fit(net, Backprop(net), tiny(), start=start, epochs=epochs)


# --- one step, and the order of the examples


def test_one_epoch_of_one_batch_is_one_step_of_gradient_descent():
    net, twin, made = a_net(), a_net(), tiny()
    fit(net, Backprop(net), made, epochs=1, batch_size=10, lr=0.3)
    losses.value(twin, twin.trace(made.x_train), made.y_train, "mse").backward()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q - 0.3 * q.grad, rtol=0, atol=1e-14)


def test_every_epoch_shows_every_example_once_in_an_order_of_its_own():
    net = a_net()
    rule = Recorder(net)
    fit(net, rule, tiny())
    assert [len(batch) for batch in rule.seen] == [4, 4, 2] * 3
    epochs = [list(chain(*rule.seen[i : i + 3])) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_comes_from_rng_alone_and_is_the_same_for_any_rule():
    """Other global seeds, another net, other gradients: the same order."""
    seen = []
    for seed, scale in ((1, 1.0), (2, 0.5)):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - this is what must not matter
        net = a_net(seed)
        rule = Recorder(net, scale)
        fit(net, rule, tiny(), probe=lambda net, epoch: {"noise": float(torch.rand(1))})
        seen.append(rule.seen)
    assert seen[0] == seen[1]
    net = a_net()
    other = Recorder(net)
    fit(net, other, tiny(), rng=rng(2))
    assert other.seen != seen[0]


def test_training_leaves_the_global_generators_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    net = a_net()
    fit(net, Backprop(net), tiny())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_equal_generators_give_equal_histories():
    histories, prints = [], []
    for seed in (1, 1, 2):
        net = a_net()
        history = fit(net, Backprop(net), tiny(), rng=rng(seed))
        histories.append(history["test_loss"].tolist())
        prints.append(nets.fingerprint(net))
    assert histories[0] == histories[1] != histories[2]
    assert prints[0] == prints[1] != prints[2]


def test_the_optimizer_steps_only_what_it_was_given():
    net, made = a_net(), tiny()
    below = net.layers[0].weight.detach().clone()
    above = net.layers[1].weight.detach().clone()
    optimizer = torch.optim.SGD(net.layers[1].parameters(), lr=0.1)
    train.fit(
        net,
        Backprop(net),
        made,
        epochs=1,
        batch_size=5,
        optimizer=optimizer,
        rng=rng(),
        progress=False,
    )
    assert torch.equal(net.layers[0].weight, below)
    assert not torch.equal(net.layers[1].weight, above)


# --- it learns


def test_xor_is_learned_from_every_one_of_five_seeds():
    def experiment(r: np.random.Generator) -> tuple[float, float]:
        net = nets.mlp([2, 8, 1], activation="tanh", output="sigmoid", rng=r, dtype=F64)
        rule = Backprop(net, loss="cross_entropy")
        history = fit(net, rule, data.xor(), epochs=300, batch_size=4, lr=1.0, rng=r)
        return history["test_error"][-1], history["test_loss"][-1]

    found = train.over_seeds(experiment, range(5))
    assert [error for error, _ in found] == [0] * 5
    assert max(loss for _, loss in found) < 0.1


def test_a_net_without_a_hidden_layer_cannot_learn_xor():
    net = nets.mlp([2, 1], output="sigmoid", rng=rng(), dtype=F64)
    rule = Backprop(net, loss="cross_entropy")
    history = fit(net, rule, data.xor(), epochs=300, batch_size=4, lr=1.0)
    assert history["test_loss"][-1] == pytest.approx(np.log(2), abs=1e-3)


def test_digits_are_learned_to_one_error_in_twenty():
    made = data.digits()
    net = nets.mlp([64, 64, 10], output="softmax", rng=rng())
    history = fit(net, Backprop(net), made, epochs=15, batch_size=32)
    assert history["test_error"][0] > 0.7
    assert history["test_error"][-1] < 0.05
    assert history["train_loss"][-1] < history["train_loss"][1] / 3


def test_a_linear_net_learns_a_linear_teacher():
    made = data.teacher([5, 3], activation="linear", n_train=200, n_test=100, rng=rng())
    net = nets.mlp([5, 3], rng=rng(1), dtype=F64)
    history = fit(net, Backprop(net), made, epochs=60, batch_size=20, lr=0.1)
    assert history["test_error"][-1] < 1e-6


# --- probes, bars, seeds


def test_a_probe_adds_its_columns_to_every_row():
    net, seen = a_net(), []

    def probe(found: nets.Net, epoch: int) -> dict[str, float]:
        assert found is net
        seen.append(epoch)
        return {"size": net.layers[0].weight.norm().item(), "twice": 2.0 * epoch}

    history = fit(net, Backprop(net), tiny(), probe=probe)
    assert seen == [0, 1, 2, 3] and history["twice"].tolist() == [0, 2, 4, 6]
    assert history["size"][-1] == net.layers[0].weight.norm().item() != history["size"][0]


@pytest.mark.parametrize("progress", [False, None])
def test_without_a_terminal_or_with_progress_off_nothing_is_printed(capfd, progress):
    net = a_net()
    fit(net, Backprop(net), tiny(), progress=progress)
    assert capfd.readouterr() == ("", "")


def test_a_bar_shows_epochs_loss_and_error(capfd):
    net = a_net()
    history = fit(net, Backprop(net), tiny(), progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "epochs: 100%" in err and "3/3" in err
    assert f"test={history['test_error'][-1]:.4g}" in err


def test_over_seeds_gives_each_run_a_fresh_generator():
    found = train.over_seeds(lambda r: r.normal(size=3).tolist(), [3, 5, 3])
    assert found[0] == found[2] != found[1]
    assert found[1] == np.random.default_rng(5).normal(size=3).tolist()


# --- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": -1}, r"found epochs=-1, batch_size=4"),
        ({"batch_size": 0}, r"1 <= batch_size <= 10 \(the examples there are\), found epochs=3, b"),
        ({"batch_size": 11}, "batch_size=11"),
    ],
)
def test_bad_counts_are_refused_before_anything_happens(options, words):
    net = a_net()
    rule = Recorder(net)
    with pytest.raises(ValueError, match=words):
        fit(net, rule, tiny(), **options)
    assert rule.seen == []


def test_divergence_stops_training_and_says_what_to_do():
    net = nets.mlp([3, 4, 2], activation="linear", rng=rng(), dtype=F64)
    words = r"the loss is (inf|nan) in epoch \d+: training diverged; lower the learning rate"
    with pytest.raises(FloatingPointError, match=words):
        fit(net, Backprop(net), tiny(), epochs=200, lr=100.0)


def test_divergence_in_the_very_last_step_is_noticed_too():
    """One step of size 1e200: the batch's loss was finite, what it left behind is not."""
    net = nets.mlp([3, 4, 2], activation="linear", rng=rng(), dtype=F64)
    with pytest.raises(FloatingPointError, match=r"the loss is (inf|nan) in epoch 1: training"):
        fit(net, Backprop(net), tiny(), epochs=1, batch_size=10, lr=1e200)


def test_no_step_is_taken_from_a_loss_that_is_not_finite():
    net, made = a_net(), tiny()
    before = nets.fingerprint(net)
    made.y_train[:] = np.nan
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1"):
        fit(net, Backprop(net), made)
    assert nets.fingerprint(net) == before


@pytest.mark.parametrize("name", ["backprop", "kolen-pollack", "burstprop"])
def test_side_by_side_each_gets_what_it_gets_alone(name):
    """Three nets with examples of their own; moving the stack moves them."""
    rng, pairs = np.random.default_rng(0), []
    for _ in range(3):
        net = nets.mlp([6, 5, 4], activation="sigmoid", output="sigmoid", rng=rng)
        kind = rules.get(name)
        pairs.append((net, kind(net) if name == "backprop" else kind(net, rng=rng)))
    x = torch.from_numpy(rng.normal(size=(3, 7, 6))).float()
    y = torch.eye(4)[torch.from_numpy(rng.integers(4, size=(3, 7)))]
    stack, credit = train.side_by_side(pairs)
    found = credit(x, y)
    assert set(found) == set(stack)
    for k, (net, rule) in enumerate(pairs):
        rule(net, x[k], y[k])
        for side, module in (("net", net), ("rule", rule)):
            for part, p in module.named_parameters():
                torch.testing.assert_close(found[f"{side}.{part}"][k], p.grad)
    stack["net.layers.0.bias"].fill_(7)
    assert all((net.layers[0].bias == 7).all() for net, _ in pairs)


def test_side_by_side_wants_one_shape():
    sizes = ([6, 5, 4], [6, 4])
    made = [nets.mlp(n, rng=np.random.default_rng(0)) for n in sizes]
    with pytest.raises(ValueError, match="one shape, found 2 shapes"):
        train.side_by_side([(net, rules.Backprop(net)) for net in made])
