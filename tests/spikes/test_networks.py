"""lib.spikes.networks against the published program's own output (tests/reference/spiking)."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from lib import runs
from lib.spikes import networks
from lib.spikes.networks import XorPlan

REFERENCE = Path(__file__).parents[1] / "reference" / "spiking"
STORED = Path(__file__).parents[2] / "book" / "runs" / "xor" / "results.csv"


def read(name: str) -> dict[str, np.ndarray]:
    with open(REFERENCE / name, newline="") as file:
        rows = list(csv.DictReader(file))
    out = {}
    for key in rows[0]:
        try:
            out[key] = np.array([float(r[key]) for r in rows])
        except ValueError:
            out[key] = np.array([r[key] for r in rows])
    return out


# ---------------------------------------------------------------- Fig. 3

LATE = slice(20, 79)  # bins from 1 s on; the original's last row ends at 3.95 s


def seen(found) -> dict[str, np.ndarray]:
    names = {"ER1": "pyr1", "ER2": "pyr2"}
    out = {k: found.event_rate(v)[LATE] for k, v in names.items()}
    out |= {"BP1": found.burst_probability("pyr1")[LATE]}
    out |= {"BP2": found.burst_probability("pyr2")[LATE]}
    out |= {"BR2": found.burst_rate("pyr2")[LATE]}
    return out | {name: found.rate(name)[LATE] for name in ("PV", "SOM")}


@pytest.fixture(scope="module")
def five():
    """Fig. 3 with five seeds: each seed's time courses, and their mean."""
    each = [
        seen(networks.run_multiplexing(networks.multiplexing(seed))) for seed in (1, 2, 3, 4, 5)
    ]
    return each, {k: np.mean([x[k] for x in each], axis=0) for k in each[0]}


@pytest.mark.parametrize("what", ["ER1", "ER2", "BP1", "BP2", "BR2", "PV", "SOM"])
def test_multiplexing_follows_the_original(five, what):
    original = read("fig3_mean_sd.csv")
    mean, sd = original[what][LATE], original[f"{what}_sd"][LATE]
    inside = abs(five[1][what] - mean) <= 2 * sd
    assert inside.mean() >= 0.9
    assert five[1][what].mean() == pytest.approx(mean.mean(), rel=0.02)


def test_fidelity_and_cross_talk(five):
    mean, t = five[1], (np.arange(80)[LATE] + 0.5) * 0.05
    mean = mean | {"I_s": networks.soma_signal(t), "I_d": networks.dendrite_signal(t)}
    table = read("fig3_fidelity.csv")
    assert len(table["pair"]) == 9
    for pair, original in zip(table["pair"], table["r_lag0"], strict=True):
        a, b = pair.split(" (")[0].split(" -> ")
        assert np.corrcoef(mean[a], mean[b])[0, 1] == pytest.approx(original, abs=0.05), pair


class Halves(networks.Circuit):
    """Every noise input as two of half the rate: the law it has at half the step."""

    def noise(self, name, receptor, *, rate, weight):
        for _ in range(2):
            super().noise(name, receptor, rate=rate / 2, weight=weight)


def test_half_the_step_gives_the_same_network(five, monkeypatch):
    """Population rates within 3 %.

    A source gives at most one arrival per step, so its variance, r dt (1 - r dt) a step, grows
    by 2.6 % at half the step; PV cells, which noise alone drives, feel it (+3.8 %): they are
    compared under the same law of noise. Burst probabilities, which the plateau's Euler step
    shapes, move more (five seeds: BP1 -3 %, BP2 -1 %; under the same law -5 % and -2 %).
    """
    fine = seen(networks.run_multiplexing(networks.multiplexing(1, dt=5e-5)))
    for what in ("ER1", "ER2", "SOM"):
        assert fine[what].mean() == pytest.approx(five[1][what].mean(), rel=0.03), what
    monkeypatch.setattr(networks, "Circuit", Halves)
    coarse = seen(networks.run_multiplexing(networks.multiplexing(1)))
    for what in ("ER1", "ER2", "PV", "SOM"):
        assert fine[what].mean() == pytest.approx(coarse[what].mean(), rel=0.03), what
    for what in ("BP1", "BP2"):
        assert fine[what].mean() == pytest.approx(five[1][what].mean(), rel=0.06), what


def test_what_the_program_does_and_the_paper_does_not_say(five):
    """The values with V_d or with f are those of an independent NumPy simulation."""
    pull = seen(networks.run_multiplexing(networks.multiplexing(1, driving_force="dendrite")))
    for what, value in (("BP1", 0.153), ("BP2", 0.223), ("ER1", 6.06)):
        assert pull[what].mean() == pytest.approx(value, rel=0.06), what
    jump = seen(networks.run_multiplexing(networks.multiplexing(1, jump="f")))
    assert max(jump["ER1"].max(), jump["ER2"].max()) > 15 > 1.5 * five[1]["ER2"].max()
    hold = networks.multiplexing(1, hold="reset")
    found = hold.run(1.0)
    assert found.rate("SOM")[0] > 1.01 * networks.multiplexing(1).run(1.0).rate("SOM")[0]


# ---------------------------------------------------------------- Fig. 2e-g


@pytest.fixture(scope="module")
def segments():
    """Fig. 2e-g, the stored run, 20 seeds: per seed and segment the rates, the weight at its end.

    tests/test_runs.py trains one of its seeds again: what is stored is what the library does.
    """
    stored, ends, out = runs.load("steering"), (0, 20, 45, 70, 95, 120, 145, 170), []
    columns = ("t", "er_post", "er_pre", "bp_post", "bp_pre", "weight")
    for seed in range(1, 21):
        own = stored.where(variant="program", seed=seed)
        t, post, pre, p_post, p_pre, w = (np.array([float(r[k]) for r in own]) for k in columns)
        for start, end in itertools.pairwise(ends):
            k = (start + 2.5 < t) & (t <= end)  # without the first bin
            both = [(e[k] * p[k]).sum() / e[k].sum() for e, p in ((post, p_post), (pre, p_pre))]
            out.append((post[k].mean(), pre[k].mean(), *both, w[k][-1]))
    return np.reshape(out, (20, 7, 5))


def test_steering_ends_each_segment_where_the_original_does(segments):
    """Mean weight change (% of 0.08) at the end of each segment: within 3 standard errors."""
    original = read("fig2efg_mean_sd.csv")
    ends = [int(np.flatnonzero(original["t"] == t)[0]) for t in (20, 45, 70, 95, 120, 145, 167.5)]
    mean, sd = original["dw_percent"][ends], original["dw_percent_sd"][ends]
    found = segments[:, :, 4].mean(axis=0)
    assert abs(found[0]) < 0.01  # plasticity is off
    error = sd * math.sqrt(1 / 5 + 1 / len(segments))
    assert (abs(found - mean)[1:] < 3 * error[1:]).all(), (found, mean, error)
    changes = np.diff(found)
    assert changes[1] > 4 and changes[2] < -4 and changes[3] < -3 and changes[4] > 2.5
    assert abs(changes[5]) < 1  # presynaptic bursts do not teach


def test_steering_rates_and_burst_probabilities(segments):
    original, found = read("fig2efg_segments.csv"), segments.mean(axis=0)
    np.testing.assert_allclose(found[:, 0], original["ER_post"], rtol=0.04)
    np.testing.assert_allclose(found[:, 1], original["ER_pre"], rtol=0.02)
    np.testing.assert_allclose(found[:, 2], original["BP_post"], rtol=0.1, atol=0.003)
    np.testing.assert_allclose(found[:, 3], original["BP_pre"], rtol=0.03)


# ---------------------------------------------------------------- XOR


@pytest.fixture(scope="module")
def learned():
    """The four patterns before learning and eight examples, seed 1."""
    net = networks.xor(1)
    before = networks.test_xor(net)
    rows, recordings = zip(*networks.train_xor(net, 8), strict=True)
    return before, rows, recordings


def test_xor_before_learning(learned):
    """One seed against one seed: their wiring alone moves rates by 3 % and P by 0.01 (s.d.)."""
    original = read("xor_full_seed1_test.csv")
    names = {"in1": "input1", "in2": "input2", "hid1": "hidden1", "hid2": "hidden2",
             "out": "output"}  # fmt: skip
    for name, long in names.items():
        for k, row in enumerate(learned[0]):
            assert row[f"er_{name}"] == pytest.approx(original[f"ER_{long}"][k], rel=0.08)
            assert row[f"bp_{name}"] == pytest.approx(original[f"BP_{long}"][k], abs=0.035)
        for kind, key in (("er", f"ER_{long}"), ("bp", f"BP_{long}")):
            mean = np.mean([row[f"{kind}_{name}"] for row in learned[0]])
            assert mean == pytest.approx(original[key][:4].mean(), rel=0.06), (kind, name)
    rates = np.array([row["er_out"] for row in learned[0]])
    assert (np.diff(rates[[0, 1, 3]]) > 0).all()


def test_xor_learns_like_the_original(learned):
    """Weights after each of eight examples, and the cost, within the spread of seeds."""
    original, rows = read("xor_first40_seed1.csv"), learned[1]
    for k, row in enumerate(rows):
        assert row["pattern"] == ("00", "10", "01", "11")[k % 4]
        assert row["cost"] == pytest.approx(original["cost"][k], abs=0.08)
        for pre, post in networks.FORWARD:
            key, near = f"w_{pre}_{post}", 8e-4 if post == "out" else 2e-3
            assert row[key] == pytest.approx(original[key][k], abs=near), (k, key)
    for key, k in itertools.product(("w_in1_hid1", "w_hid1_out", "w_hid2_out"), (1, 3)):
        change, then = (x[k] - x[k - 1] for x in ([r[key] for r in rows], original[key]))
        assert change == pytest.approx(then, rel=0.35, abs=1e-4), (key, k)


def test_xor_recordings(learned):
    row, found = learned[1][1], learned[2][1]
    assert found.t[-1] - found.t[0] == pytest.approx(7.6) and len(found.t) == 20
    assert found.t[0] == pytest.approx(6 + 32 + 8 + 0.4)
    assert found.weights["in1>hid1"][17] == found.weights["in1>hid1"][0]  # prediction: no learning
    assert found.weights["in1>hid1"][-1] == pytest.approx(row["w_in1_hid1"], abs=1e-6)
    assert found.weights["in1>hid1"][-1] != found.weights["in1>hid1"][17]
    assert row["er_in1"] == pytest.approx(found.event_rate("in1")[9:18].mean())
    assert row["bp_taught"] > row["bp_out"] + 0.1  # target 1: the teacher makes it burst


def test_cost_and_teacher_by_hand():
    assert networks.xor_cost(6.0, 1) == pytest.approx(math.log(2))
    assert networks.xor_cost(6.0, 0) == pytest.approx(math.log(2))
    assert networks.xor_cost(4.0, 0) == pytest.approx(-math.log(0.75))
    assert networks.xor_cost(1.0, 1) == pytest.approx(-math.log(0.01))
    assert networks.xor_cost(12.0, 1) == pytest.approx(-math.log(0.99))
    rates = np.array([1.0, 3.0, 4.0, 8.0, 9.0, 20.0])
    up = np.array([1, 1, 1 / 2, 1 / 6, 0, 0]) * 1e-9
    np.testing.assert_allclose(networks.teaching_current(rates, 1), up, rtol=1e-12)
    down = -np.array([0, 0, 1 / 6, 1 / 2, 1, 1]) * 1e-9
    np.testing.assert_allclose(networks.teaching_current(rates, 0), down, rtol=1e-12)


QUICK = {"n": 100, "example": 0.4, "average": 0.5}
NAMES = ("in1", "in2", "hid1", "hid2", "out")


def test_xor_goes_on_where_it_was():
    a, b = networks.xor(3, XorPlan(**QUICK)), networks.xor(3, XorPlan(**QUICK))
    list(networks.train_xor(a, 2))
    b.restore(a.save())
    assert b.seen == 2
    (one, _), (two, _) = (next(networks.train_xor(x, 1)) for x in (a, b))
    assert one == two and one["example"] == 3 and one["pattern"] == "01"


def test_same_seed_same_spikes():
    """A network is its plan and its seed: equal to the last bit, and another for another seed."""

    def taught(seed):
        net = networks.xor(seed, XorPlan(**QUICK))
        (row, seen), *_ = list(networks.train_xor(net, 2))[1:]
        found = [seen.spikes[k] for k in net.names]
        found += [net.circuit.weights(f"{a}>{b}").copy() for a, b in networks.FORWARD]
        return row, found

    (one, a), (two, b), (other, c) = taught(3), taught(3), taught(4)
    assert one == two and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert one != other and not np.array_equal(a[-1][:100], c[-1][:100])


def test_orders_of_the_patterns_and_the_step():
    orders = {}
    for kind in ("fixed", "alternating", "shuffled"):
        net = networks.xor(3, XorPlan(order=kind, dt=2e-4, **QUICK))
        assert net.circuit.dt == 2e-4
        rows = [row for row, _ in networks.train_xor(net, 12)]
        orders[kind] = [row["pattern"] for row in rows]
        assert [row["target"] for row in rows] == [int(x in ("10", "01")) for x in orders[kind]]
    assert orders["fixed"] == ["00", "10", "01", "11"] * 3
    assert orders["alternating"] == ["01", "00", "10", "11"] * 3
    epochs = [tuple(orders["shuffled"][k : k + 4]) for k in (0, 4, 8)]
    assert all(sorted(e) == ["00", "01", "10", "11"] for e in epochs) and len(set(epochs)) > 1


def charges(step: float, like: float) -> type:
    """A circuit whose arrivals bring, at a step of ``step``, what they bring at ``like``.

    Euler holds a conductance for the whole step in which it begins, so that an arrival's charge,
    w dt / (1 - exp(-dt / tau)), is too large by dt / 2 tau: at 0.1 ms by 1 % for excitation
    (5 ms) and by half as much for inhibition (10 ms).
    """

    def factor(receptor: str) -> float:
        tau = 5e-3 if receptor.endswith("exc") else 10e-3
        one, other = (dt / (1 - math.exp(-dt / tau)) for dt in (step, like))
        return other / one

    class Charged(networks.Circuit):
        def noise(self, name, receptor, *, rate, weight):
            super().noise(name, receptor, rate=rate, weight=weight * factor(receptor))

        def connect(self, pre, post, receptor, *, weight, **more):
            super().connect(pre, post, receptor, weight=weight * factor(receptor), **more)

    return Charged


def moved(rows: list[dict], than: list[dict]) -> dict[str, float]:
    """Relative change of each population's event rate, mean over the four patterns."""
    mean = [{k: np.mean([r[f"er_{k}"] for r in x]) for k in NAMES} for x in (rows, than)]
    return {k: mean[0][k] / mean[1][k] - 1 for k in NAMES}


def test_half_the_step_changes_rates_little(learned, monkeypatch):
    """Below 3 %, but for the output, which two stages amplify: 3.6 % (mean of four seeds).

    Inputs -0.5 %, hidden -2.3 %. Most of it is the charge of an arrival (see ``charges``): with
    that held, all five populations are within 3 %.
    """
    plan = XorPlan(dt=5e-5)
    raw = moved(networks.test_xor(networks.xor(1, plan)), learned[0])
    assert max(abs(raw[k]) for k in NAMES[:4]) < 0.03, raw
    assert -0.05 < raw["out"] < -0.01, raw
    monkeypatch.setattr(networks, "Circuit", charges(5e-5, 1e-4))
    held = moved(networks.test_xor(networks.xor(1, plan)), learned[0])
    assert max(abs(x) for x in held.values()) < 0.03, held


def test_twice_the_step_is_near(learned):
    """The small network's step. Four seeds: inputs -1.7 %, hidden +4.3 %, output +6.8 %."""
    rows = networks.test_xor(networks.xor(1, XorPlan(dt=2e-4)))
    found = moved(rows, learned[0])
    near = {"in1": -0.017, "in2": -0.017, "hid1": 0.043, "hid2": 0.043, "out": 0.068}
    assert max(abs(found[k] - near[k]) for k in NAMES) < 0.03, found
    for name in NAMES:
        a, b = (np.mean([r[f"bp_{name}"] for r in x]) for x in (rows, learned[0]))
        assert a == pytest.approx(b, abs=0.03), (name, a, b)


def test_the_four_constraints_change_what_they_say():
    plain = networks.xor(1, XorPlan(**QUICK)).circuit
    spikes = networks.xor(1, XorPlan(transmit="spikes", **QUICK)).circuit
    sent = {name: c.transmit for name, c in plain.connections.items()}
    assert set(sent.values()) == {"event", "burst"}
    assert {n for n, t in sent.items() if t == "burst"} == {
        "out>hid1", "out-hid1", "out>hid2", "out-hid2"
    }  # fmt: skip
    assert {c.transmit for c in spikes.connections.values()} == {"spike"}
    assert all(c.delay == 0 for c in spikes.connections.values())
    for name, c in spikes.connections.items():
        assert 0.2 < c.weight / plain.connections[name].weight < 0.95

    def weights(kind):
        c = networks.xor(1, XorPlan(feedback=kind, **QUICK)).circuit
        return {n: x.weight for n, x in c.connections.items() if n.startswith("out")}

    paper, symmetric, reverse = map(weights, ("paper", "symmetric", "reversed"))
    assert paper == {"out>hid1": 0.26, "out-hid1": 0.06, "out>hid2": 0.026, "out-hid2": 0.27}
    assert symmetric["out>hid2"] == 0.26 and symmetric["out-hid2"] == 0.06
    assert reverse["out>hid1"] == 0.026 and reverse["out-hid1"] == 0.27
    etas = [networks.xor(1, XorPlan(feedback=k, **QUICK)).circuit.connections["in1>hid1"].rule.eta
            for k in ("paper", "symmetric")]  # fmt: skip
    assert etas == [8e-3, 4e-3]
    c = networks.xor(1, XorPlan(feedback="random", **QUICK)).circuit
    plus, minus = (set(c.connections[n].post_of.tolist()) for n in ("out>hid1", "out>hid1 too"))
    assert plus and minus and not plus & minus and plus | minus == set(range(100))
    assert c.connections["out>hid1"].weight == 0.26 and c.connections["out-hid1 too"].weight == 0.27


def test_dendrites_saturate():
    net = networks.xor(1, XorPlan(saturation=1.5e-9, **QUICK))
    found = net.circuit.run(1.0)
    for name in ("hid1", "hid2"):
        assert found.burst_probability(name)[0] > 0.9
    assert found.burst_probability("in1")[0] < 0.3


def test_an_unsigned_teacher_only_pushes_up():
    for kind, sign in (("signed", -1), ("unsigned", 1)):
        net = networks.xor(1, XorPlan(teacher=kind, **QUICK))
        row, _ = next(networks.train_xor(net, 1))  # 00: the output should be silent
        assert row["teacher"] * sign > 1e-12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 99}, "n of 100 or more"),
        ({"average": 0.0}, "average, example and rate above 0"),
        ({"teaching": 0.12}, "twentieths"),
        ({"rate": math.nan}, "above 0 and a finite"),
        ({"order": "random"}, "expected order one of fixed, alternating, shuffled"),
        ({"teacher": "loud"}, "expected teacher one of signed, unsigned, found 'loud'"),
        ({"transmit": "all"}, "expected transmit one of"),
        ({"feedback": "none"}, "expected feedback one of"),
    ],
)
def test_bad_plans(options, words):
    with pytest.raises(ValueError, match=words):
        XorPlan(**options)


def test_networks_that_are_too_small():
    with pytest.raises(ValueError, match="n of 200 or more"):
        networks.multiplexing(1, n=100)
    with pytest.raises(ValueError, match="n of 200 or more"):
        networks.steering(1, n=100)


@pytest.mark.skipif(not STORED.is_file(), reason="the run book/runs/xor is not stored here")
def test_the_stored_run_begins_like_the_original_and_ends_right():
    """First 40 examples: rates and weights within 3.5 s.d. of five seeds; at the end, 6 Hz."""
    with open(STORED, newline="") as file:
        rows = list(csv.DictReader(file))
    original = read("xor_first40_seed1.csv")
    train = [r for r in rows if r["what"] == "train" and int(r["example"]) <= 40]
    seeds = sorted({r["seed"] for r in train})
    assert len(seeds) >= 5
    for key in [k for k in original if k[:3] in ("er_", "w_i", "w_h") or k == "cost"]:
        found = np.array([[float(r[key]) for r in train if r["seed"] == s] for s in seeds])
        for k in range(4):
            each, then = found[:, k::4].mean(axis=1), original[key][k::4].mean()
            near = 3.5 * max(each.std(ddof=1), 0.004 * abs(then)) * math.sqrt(1 + 1 / len(seeds))
            assert abs(each.mean() - then) < near, (key, k, each, then)
    after = [r for r in rows if r["what"] == "test" and int(r["example"]) > 0]
    assert len(after) == 4 * len(seeds)
    for r in after:
        assert (float(r["er_out"]) > 6) == (r["pattern"] in ("10", "01")), r


@pytest.mark.skipif(not STORED.is_file(), reason="the run book/runs/xor is not stored here")
def test_the_original_learns_as_fast_as_the_stored_run():
    """Its cost, at 11 of 500 epochs, within 3.5 s.d. of our five seeds; all end below a sum's."""
    with open(STORED, newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["what"] == "train"]
    original = read("xor_full_seed1_cost.csv")
    assert list(original["epoch"][[0, -1]]) == [1, 500] and len(original["epoch"]) == 11
    seeds = sorted({r["seed"] for r in rows})
    costs = np.array([[float(r["cost"]) for r in rows if r["seed"] == s] for s in seeds])
    costs = costs.reshape(len(seeds), 500, 4).sum(axis=2)
    for epoch, then in zip(original["epoch"].astype(int), original["cost"], strict=True):
        found = costs[:, epoch - 1]
        near = 3.5 * found.std(ddof=1) * math.sqrt(1 + 1 / len(seeds))
        assert abs(found.mean() - then) < near, (epoch, found, then)
    assert costs[:, :10].mean() > 4 * math.log(2) > 2 * costs[:, -50:].mean(axis=1).max()
