"""The league: nobody is left out, everybody starts equal, and a new rule joins by itself."""

from __future__ import annotations

from collections import Counter

import nbformat
import numpy as np
import pytest
import torch

from lib import measure, nets, rules, runs, train
from lib.rules import base
from tools import notebooks

LEAGUE = runs.script("league")
TASKS = list(LEAGUE.TASKS)
SCRIPTS = {"league": LEAGUE, "league-mnist": runs.script("league-mnist")}


@pytest.fixture(scope="module")
def stored() -> runs.Result:
    return runs.load("league")


@pytest.fixture(scope="module", params=SCRIPTS)
def each(request) -> tuple:
    """A script of the league and its stored result."""
    return SCRIPTS[request.param], runs.load(request.param)


def asked() -> list[tuple]:
    """Every job the plan asks for, when every net errs on half."""
    keys = []

    def get(*key: object) -> dict[str, str]:
        keys.append(key)
        return {"held_out": "0.5"}

    LEAGUE.plan(get)
    return keys


def missing(stored: runs.Result, tasks: list[str] = TASKS) -> list[tuple[str, str]]:
    """The registered rules without a tested net, a timing or a refusal, by task."""
    rows = [row for row in stored.rows if row["stage"] in ("test", "refused")]
    found = {(row["task"], row["rule"]) for row in rows}
    return [(task, name) for task in tasks for name in rules.names() if (task, name) not in found]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_registered_rule_is_in_the_league_on_every_task(name):
    where = f"book/runs/{name}"
    how = f"move {where}/results.csv away and: python -m lib.runs run {where}.toml"
    found = missing(runs.load(name), list(SCRIPTS[name].TASKS))
    assert found == [], f"registered, but not in the stored result; {how}"


def test_mnist_is_run_by_the_leagues_own_code():
    mnist = SCRIPTS["league-mnist"]
    assert list(mnist.TASKS) == ["mnist"] and TASKS == ["digits", "mnist1d", "robot_arm"]
    for name in ("job", "plan", "build", "same"):
        assert getattr(mnist, name).__code__ == getattr(LEAGUE, name).__code__
    for name in ("COLUMNS", "KEY", "RATES", "TUNING", "SEEDS"):
        assert getattr(mnist, name) == getattr(LEAGUE, name)


@pytest.mark.parametrize("head", ["test error", "price"])
def test_every_registered_rule_has_a_line_in_the_chapters_tables(head):
    nb = nbformat.read(notebooks.notebook_of("synthesis/league"), as_version=4)
    shown = [o.data.get("text/markdown", "") for c in nb.cells for o in c.get("outputs", [])
             if o.output_type == "display_data"]  # fmt: skip
    (found,) = [text for text in shown if text.startswith(f"| {head} ")]
    lines = {line.split("|")[1].strip().removesuffix(" (ReLU)") for line in found.splitlines()}
    assert set(rules.names()) | set(LEAGUE.BENCH) <= lines


def test_a_new_rule_joins_by_itself(monkeypatch, stored):
    monkeypatch.setitem(base._REGISTRY, "a new rule", rules.Backprop)
    assert missing(stored) == [(task, "a new rule") for task in TASKS]
    mine = Counter(key[:2] for key in asked() if key[2] == "a new rule")
    assert set(mine) == {(s, t) for s in ("tune", "test") for t in TASKS} | {("time", "digits")}
    for task in TASKS:
        assert mine["tune", task] == len(LEAGUE.RATES) * len(LEAGUE.TUNING)
        assert mine["test", task] == len(LEAGUE.SEEDS) >= 5


def test_a_new_rule_that_takes_no_net_is_refused_with_its_own_words(monkeypatch):
    class Picky(rules.Rule):
        def __init__(self, net: nets.Net) -> None:
            raise ValueError("only nets of an odd number of layers")

    monkeypatch.setitem(base._REGISTRY, "picky", Picky)
    mine = [key for key in asked() if key[2] == "picky"]
    assert mine == [("refused", task, "picky", "", "", "") for task in TASKS]
    assert "odd number" in LEAGUE.job(*mine[0])["reason"]


def test_a_new_rule_with_an_option_of_its_own_says_where_to_give_it(monkeypatch):
    class Needy(rules.Backprop):
        def __init__(self, net: nets.Net, *, depth: int) -> None:
            super().__init__(net)

    monkeypatch.setitem(base._REGISTRY, "needy", Needy)
    with pytest.raises(TypeError, match=r"'needy'.*depth.*OPTIONS"):
        asked()


def test_the_stored_rows_are_those_of_the_plan(each):
    """Seven rates for everybody, the best of them tested, five seeds each."""
    script, stored = each
    tuned, tested = {}, {}
    for row in stored.rows:
        who = row["task"], row["rule"], row["net"]
        if row["stage"] == "tune":
            tuned.setdefault(who, {}).setdefault(float(row["lr"]), []).append(
                float(row["held_out"])
            )
        elif row["stage"] == "test":
            tested.setdefault(who, []).append((float(row["lr"]), row["seed"]))
    assert set(tuned) == set(tested)
    for who, rates in tuned.items():
        assert sorted(rates) == sorted(script.RATES), who
        best = min(sorted(rates), key=lambda lr, rates=rates: np.mean(rates[lr]))
        assert tested[who] == [(best, str(seed)) for seed in script.SEEDS], who


def test_equal_seeds_had_equal_initial_weights(each):
    """Stored fingerprints, over all rules; and they are those of the nets made now."""
    (script, stored), found = each, {}
    for row in stored.rows:
        if row["weights"] and row["stage"] == "test":
            found.setdefault((row["task"], row["net"], row["seed"]), set()).add(row["weights"])
    assert [key for key, prints in found.items() if len(prints) > 1] == []
    assert len({next(iter(prints)) for prints in found.values()}) == len(found)
    for (task, kind, seed), prints in found.items():
        net, _ = script.build(task, "backprop", kind, int(seed))
        assert {nets.fingerprint(net)} == prints


@pytest.mark.parametrize("task", TASKS)
def test_all_rules_of_a_task_get_the_same_net(task):
    prints = {}
    for name in [*rules.names(), *LEAGUE.BENCH]:
        kind, _ = LEAGUE.nearest(task, name)
        if kind:
            net, _ = LEAGUE.build(task, name, kind, 3)
            prints.setdefault(kind, set()).add(nets.fingerprint(net))
    assert all(len(found) == 1 for found in prints.values())
    assert len(prints["sigmoid"] | prints["relu"]) == 2


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", LEAGUE.NETS)
def test_backprop_is_the_gradient_on_every_net_of_the_league(task, kind):
    net, rule = LEAGUE.build(task, "backprop", kind, 0)
    d = LEAGUE.held_out(task)
    x, y = d.x_train[:20], d.y_train[:20]
    rule(net, x, y)
    places = [(layer, at) for layer in range(3) for at in (0, 7, 11)]
    got = [float(net.layers[layer].weight.grad.flatten()[at]) for layer, at in places]
    want = measure.finite_difference(net, x, y, places=places, eps=1e-6, loss=rule.loss)
    assert np.allclose(got, want, rtol=1e-5, atol=1e-8)
    assert np.abs(want).max() > 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_what_is_held_out_is_neither_learned_nor_the_test_set(task):
    whole, d = LEAGUE.load(task), LEAGUE.held_out(task)
    assert torch.equal(torch.cat([d.x_train, d.x_test]), whole.x_train)
    assert torch.equal(torch.cat([d.y_train, d.y_test]), whole.y_train)
    assert len(d.x_test) == len(whole.x_train) - len(whole.x_train) * 4 // 5


def test_output_only_moves_the_output_layer_alone():
    net, rule = LEAGUE.build("digits", "output only", "sigmoid", 0)
    d = LEAGUE.held_out("digits")
    rule(net, d.x_train[:10], d.y_train[:10])
    *hidden, top = measure.gradients(net)
    assert all(not g.any() for g in hidden)
    rules.Backprop(net)(net, d.x_train[:10], d.y_train[:10])
    assert np.array_equal(top, measure.gradients(net)[-1])


def test_a_diverging_net_is_a_row_and_not_an_end(monkeypatch):
    def burst(*_: object, **__: object) -> None:
        raise FloatingPointError("the loss is inf")

    monkeypatch.setattr(train, "fit", burst)
    row = LEAGUE.job("test", "robot_arm", "backprop", "sigmoid", 1.0, 0)
    assert row["held_out"] == row["test"] == np.inf
    assert set(row) == set(LEAGUE.COLUMNS[LEAGUE.KEY : -1])


def test_times_do_not_count_and_errors_do_when_a_row_is_made_again():
    row = {"weights": "ab", "reason": "", "held_out": "0.50", "test": "0.40", "times": "1.2"}
    assert LEAGUE.same(row, row | {"times": "1.9", "test": "0.42"})
    assert not LEAGUE.same(row, row | {"test": "0.45"})
    assert not LEAGUE.same(row, row | {"weights": "cd"})
    assert not LEAGUE.same(row, row | {"test": ""})
