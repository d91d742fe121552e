"""The three spiking networks of Payeur et al. 2021: multiplexing, steering, XOR."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from lib.spikes import interneurons, stp
from lib.spikes.circuit import Circuit, Recording, Source
from lib.spikes.neuron import BurstPoisson, TwoCompartment
from lib.spikes.plasticity import STEERING, BurstRule

PATTERNS = ((0, 0), (1, 0), (0, 1), (1, 1))  # always in this order
TARGETS = {(0, 0): 0, (1, 0): 1, (0, 1): 1, (1, 1): 0}
LOW, HIGH = 2.0, 10.0  # Hz, the output's false and true
XOR_RULE = BurstRule(
    eta=8e-3, tau_pre=0.1, tau_avg=2.0, w_min=0.0, w_max=1.0, e_min=LOW, e_max=HIGH, clip=True
)
FORWARD = (("in1", "hid1"), ("in1", "hid2"), ("in2", "hid1"), ("in2", "hid2"),
           ("hid1", "out"), ("hid2", "out"))  # fmt: skip
POSITIVE, NEGATIVE = (0.26, 0.06), (0.026, 0.27)  # feedback weights: excitation, inhibition
OFFSET = 500e-12  # A, into dendrites with negative feedback: lifts them into the linear range
# bursts per event before learning, measured: what "spikes" must be divided by for equal drive
BURSTING = {"in1": 0.11, "in2": 0.11, "hid1": 0.28, "hid2": 0.26, "out": 0.41}


@dataclass(frozen=True)
class XorPlan:
    """How an XOR network is built and taught; as it stands, Fig. 4 of the paper.

    ``n``: neurons per population, 100 or more; each has 100 inputs per connection on average.
    ``average``: s, of the moving averages. ``example``: s, of which the share ``teaching``, at
    the end, is learning. ``rate``: factor on both learning rates. ``dt``: s, the simulation's
    step. ``order``: of the patterns in an epoch, "fixed" as published, "alternating" (01, 00, 10,
    11: a false one after each true one) or "shuffled".
    The four constraints, each of which may be broken:
    ``teacher``: "signed", or "unsigned": its size is kept, its sign always plus.
    ``transmit``: "multiplexed" (events up, bursts down), or "spikes": all spikes both ways, with
    weights divided so that each synapse brings as much as before learning.
    ``feedback``: "paper" (plus to hid1, minus to hid2), "symmetric" (plus to both, half the
    rates: Ext. Data Fig. 3), "reversed" (minus to both, against their forward effect) or
    "random" (plus or minus by a coin for each hidden neuron: no pool has a sign).
    ``saturation``: A, an extra current into all hidden dendrites; 1.5e-9 saturates them.
    Raises ValueError for another value.
    """

    n: int = 500
    average: float = 2.0
    example: float = 8.0
    teaching: float = 0.1
    rate: float = 1.0
    dt: float = 1e-4
    order: str = "fixed"
    teacher: str = "signed"
    transmit: str = "multiplexed"
    feedback: str = "paper"
    saturation: float = 0.0

    def __post_init__(self) -> None:
        kinds = {
            "order": ("fixed", "alternating", "shuffled"),
            "teacher": ("signed", "unsigned"),
            "transmit": ("multiplexed", "spikes"),
            "feedback": ("paper", "symmetric", "reversed", "random"),
        }
        for name, allowed in kinds.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"expected {name} one of {', '.join(allowed)}, found {getattr(self, name)!r}"
                )
        numbers = (self.average, self.example, self.rate, self.saturation)
        if not math.isclose(self.teaching * 20, round(self.teaching * 20)) or not (
            0 < self.teaching <= 0.5
        ):
            raise ValueError(
                f"expected teaching in twentieths, 0.05 to 0.5, found {self.teaching!r}"
            )
        if self.n < 100 or not all(map(math.isfinite, numbers)) or min(numbers[:3]) <= 0:
            raise ValueError(
                "expected n of 100 or more, average, example and rate above 0 and a finite "
                f"saturation, found n = {self.n} and {numbers}"
            )


@dataclass
class Xor:
    """An XOR network on its way: the circuit, what it is, and how many examples it has seen."""

    circuit: Circuit
    plan: XorPlan
    seed: int
    seen: int = 0
    names: tuple[str, ...] = field(default=("in1", "in2", "hid1", "hid2", "out"))

    def save(self) -> dict[str, np.ndarray]:
        """All that changes, as arrays (np.savez takes it): ``restore`` goes on exactly."""
        return {**self.circuit.save(), "seen": np.array(self.seen)}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Go on from a saved state, in a network built with the same seed and plan."""
        self.circuit.restore(saved)
        self.seen = int(saved["seen"])


def xor(seed: int, plan: XorPlan = XorPlan()) -> Xor:
    """The network of Fig. 4: in1, in2 -> hid1, hid2 -> out; bursts of out -> hidden dendrites.

    Events carry the input up through plastic excitation and fixed inhibition; bursts carry the
    teaching down, with a plus to hid1 and a minus to hid2. Runs its 6 s (3 averages) of burn-in.
    Source: Payeur et al. 2021, Fig. 4, and their program. Departs: an example lasts 8 s (the
    program's rounding makes it 7.9999 s).
    """
    c = Circuit(seed=seed, dt=plan.dt)
    soma = {"in": (500.0, 0.35, 0.35), "hi": (150.0, 0.385, 0.49), "ou": (150.0, 0.35, 0.35)}
    for name in ("in1", "in2", "hid1", "hid2", "out"):
        c.population(name, plan.n, BurstPoisson(), average=plan.average)
        rate, w_exc, w_inh = soma[name[:2]]
        c.noise(name, "soma_exc", rate=rate, weight=w_exc)
        c.noise(name, "soma_inh", rate=rate, weight=w_inh)
        c.noise(name, "dend_exc", rate=500.0, weight=0.05)
        c.noise(name, "dend_inh", rate=500.0, weight=0.05)
    events, bursts = ("event", "burst") if plan.transmit == "multiplexed" else ("spike", "spike")
    p = 100 / plan.n
    slower = 0.5 if plan.feedback == "symmetric" else 1.0
    for pre, post in FORWARD:
        eta = plan.rate * slower * (8e-3 if post != "out" else 4e-3)
        rule = replace(XOR_RULE, eta=eta, tau_avg=plan.average)
        scale = 1.0 if events == "event" else 1 / (1 + BURSTING[pre])
        to = {"p": p, "transmit": events, "delay": 0.0}
        c.connect(pre, post, "soma_exc", weight=0.234 * scale, rule=rule, **to)
        c.connect(pre, post, "soma_inh", weight=0.25 * scale, name=f"{pre}-{post}", **to)
    scale = 1.0 if bursts == "burst" else BURSTING["out"] / (1 + BURSTING["out"])
    signs = {
        "paper": {"hid1": POSITIVE, "hid2": NEGATIVE},
        "symmetric": {"hid1": POSITIVE, "hid2": POSITIVE},
        "reversed": {"hid1": NEGATIVE, "hid2": NEGATIVE},
        "random": {"hid1": POSITIVE, "hid2": NEGATIVE},
    }[plan.feedback]
    coins = np.random.default_rng([seed, 1]).random((2, plan.n)) < 0.5
    for k, (post, (w_exc, w_inh)) in enumerate(signs.items()):
        both = {"p": p, "transmit": bursts, "delay": 0.0}
        lift = np.full(plan.n, OFFSET if (w_exc, w_inh) == NEGATIVE else 0.0)
        groups = [(w_exc, w_inh, None)]
        if plan.feedback == "random":
            groups = [(*POSITIVE, coins[k]), (*NEGATIVE, ~coins[k])]
            lift = np.where(coins[k], 0.0, OFFSET)
        for g, (plus, minus, onto) in enumerate(groups):
            name = f"out>{post}" + ("" if g == 0 else " too")
            c.connect("out", post, "dend_exc", weight=plus * scale, onto=onto, name=name, **both)
            name = f"out-{post}" + ("" if g == 0 else " too")
            c.connect("out", post, "dend_inh", weight=minus * scale, onto=onto, name=name, **both)
        c.current(post, "dendrite", lift + plan.saturation)
    c.current("out", "dendrite", 400e-12)
    c.run(3 * plan.average)
    return Xor(c, plan, seed)


def show_pattern(net: Xor, bits: tuple[int, int]) -> None:
    """Inputs from now on: -350 pA (2 Hz) for a 0, +150 pA (8.3 Hz) for a 1, into all somata."""
    for name, bit in zip(("in1", "in2"), bits, strict=True):
        net.circuit.current(name, "soma", 150e-12 if bit else -350e-12)


def _shown(net: Xor) -> tuple[int, int]:
    """The pattern of the next example; an epoch's shuffle is that of the seed and the epoch."""
    epoch, k = divmod(net.seen, 4)
    if net.plan.order == "shuffled":
        k = np.random.default_rng([net.seed, 2, epoch]).permutation(4)[k]
    elif net.plan.order == "alternating":
        k = (2, 0, 1, 3)[k]
    return PATTERNS[k]


def xor_cost(rate: float, target: int) -> float:
    """Cross-entropy of the output rate (Hz): y = (rate - 2)/8, kept in 0.01 ... 0.99."""
    y = min(max((rate - LOW) / (HIGH - LOW), 0.01), 0.99)
    return -math.log(y) if target else -math.log(1 - y)


def teaching_current(rates: np.ndarray, target: int) -> np.ndarray:
    """Teacher's current (n,), A, from each output neuron's event rate in Hz, by its own rate.

    To make it fire more (target 1): 1 nA where the rate is at most 3 Hz, 0 from 9 Hz, between
    them 1 nA/(rate - 2 Hz). To make it fire less: -1 nA from 9 Hz, 0 up to 3 Hz, between them
    -1 nA/(10 Hz - rate). Source: Payeur et al. 2021, Methods, and their program.
    """
    e = np.asarray(rates, dtype=np.float64)
    inside = (e > LOW + 1) & (e < HIGH - 1)
    if target:
        between = 1e-9 / np.where(inside, e - LOW, 1.0)
        return np.where(e >= HIGH - 1, 0.0, np.where(inside, between, 1e-9))
    between = -1e-9 / np.where(inside, HIGH - e, 1.0)
    return np.where(e <= LOW + 1, 0.0, np.where(inside, between, -1e-9))


def _late(found: Recording, name: str) -> tuple[float, float]:
    """Event rate (Hz) and burst probability of a population in the second half of a run."""
    half = len(found.t) // 2
    e, b = (x[name][half:].sum() for x in (found.events, found.bursts))
    seconds = (len(found.t) - half) * found.bin
    return e / (found.sizes[name] * seconds), b / e if e else math.nan


def test_xor(net: Xor) -> list[dict]:
    """Show the four patterns, one example each, without teaching; a row per pattern.

    Columns: pattern, and for each population er_NAME (Hz) and bp_NAME over the last half.
    """
    rows = []
    for bits in PATTERNS:
        show_pattern(net, bits)
        found = net.circuit.run(net.plan.example, bin=net.plan.example / 20)
        row = {"pattern": f"{bits[0]}{bits[1]}"}
        for name in net.names:
            row[f"er_{name}"], row[f"bp_{name}"] = _late(found, name)
        rows.append(row)
    return rows


def train_xor(net: Xor, examples: int) -> Iterator[tuple[dict, Recording]]:
    """Teach so many examples more, epochs of PATTERNS; a row and a recording after each.

    Per example: prediction, plasticity off; the cost; then learning (a tenth of it), plasticity
    on in the six excitatory forward connections and the teacher's current, computed once, in the
    output dendrites. Columns of a row: example (from 1), pattern, target, rate (mean running
    event rate of the output, Hz) and cost at the end of the prediction, er_NAME and bp_NAME over
    its last half, bp_taught (output, while learning), teacher (mean current, A), and the mean
    weights w_PRE_POST after it. The recording has 20 bins per example.
    """
    c, plan = net.circuit, net.plan
    for _ in range(examples):
        bits = _shown(net)
        target = TARGETS[bits]
        show_pattern(net, bits)
        width = plan.example / 20
        learning = round(20 * plan.teaching)
        seen = c.run((20 - learning) * width, bin=width)
        rates, _ = c.averages("out")
        current = teaching_current(rates, target)
        if plan.teacher == "unsigned":
            current = np.abs(current)
        c.current("out", "dendrite", 400e-12 + current)
        c.learning(True)
        taught = c.run(learning * width, bin=width)
        c.learning(False)
        c.current("out", "dendrite", 400e-12)
        net.seen += 1
        row = {
            "example": net.seen,
            "pattern": f"{bits[0]}{bits[1]}",
            "target": target,
            "rate": float(rates.mean()),
            "cost": xor_cost(float(rates.mean()), target),
        }
        for name in net.names:
            row[f"er_{name}"], row[f"bp_{name}"] = _late(seen, name)
        row["bp_taught"] = taught.bursts["out"].sum() / max(taught.events["out"].sum(), 1)
        row["teacher"] = float(current.mean())
        for pre, post in FORWARD:
            row[f"w_{pre}_{post}"] = float(c.weights(f"{pre}>{post}").mean())
        yield row, seen.then(taught)


# ---------------------------------------------------------------- Fig. 3


def multiplexing(
    seed: int,
    *,
    n: int = 4000,
    jump: str = "U",
    driving_force: str = "soma",
    hold: str = "rest",
    dt: float = 1e-4,
) -> Circuit:
    """The network of Fig. 3: events of pyr1 go up to pyr2, bursts of pyr2 come down to pyr1.

    n neurons in pyr1 and pyr2, n/4 PV and SOM interneurons; connection chance 200/n (0.05).
    Depressing synapses carry events up, facilitating ones bursts down; facilitating inhibition
    within each population and the PV and SOM cells keep both in range. What the program does
    and the paper does not say: ``jump`` "U" or, as printed, "f" (see stp.ShortTerm);
    ``driving_force`` of the dendrites by the "soma" or "dendrite"; PV and SOM ``hold`` "rest" or
    "reset" while refractory. Raises ValueError for n below 200.
    Source: Payeur et al. 2021, Fig. 3, Methods, and their program.
    """
    if n < 200:
        raise ValueError(f"expected n of 200 or more (200 inputs per connection), found {n}")
    c = Circuit(seed=seed, dt=dt)
    cell = TwoCompartment(driving_force=driving_force)
    few = n // 4
    kinds = {"PV": interneurons.PV, "SOM": interneurons.SOM}
    for name, w_exc, w_inh in (("PV", 0.75, 1.125), ("SOM", 0.4, 0.5)):
        c.population(name, few, replace(kinds[name], hold=hold))
        c.noise(name, "soma_exc", rate=500.0, weight=w_exc)
        c.noise(name, "soma_inh", rate=500.0, weight=w_inh)
    for name in ("pyr1", "pyr2"):
        c.population(name, n, cell)
        for receptor, weight in (("soma", 0.35), ("dend", 0.05)):
            c.noise(name, f"{receptor}_exc", rate=500.0, weight=weight)
            c.noise(name, f"{receptor}_inh", rate=500.0, weight=weight)
    depress, facilitate = replace(stp.DEPRESSING, jump=jump), replace(stp.FACILITATING, jump=jump)
    for pre, post, receptor, weight, transmit, short in (
        ("pyr1", "pyr2", "soma_exc", 0.05, "std", depress),
        ("pyr1", "PV", "soma_exc", 0.05, "std", depress),
        ("PV", "pyr2", "soma_inh", 0.07, "spike", None),
        ("pyr2", "pyr1", "dend_exc", 0.37, "stf", facilitate),
        ("pyr2", "SOM", "soma_exc", 0.3, "stf", facilitate),
        ("SOM", "pyr1", "dend_inh", 0.035, "spike", None),
        ("pyr1", "pyr1", "dend_inh", 0.1, "stf", facilitate),
        ("pyr2", "pyr2", "dend_inh", 0.1, "stf", facilitate),
    ):
        c.connect(pre, post, receptor, weight=weight, p=200 / n, transmit=transmit, short=short)
    c.current("pyr1", "dendrite", 50e-12)
    c.current("pyr2", "soma", -100e-12)
    c.current("pyr2", "dendrite", 100e-12)
    c.current("PV", "soma", 205e-12)
    return c


def soma_signal(t: np.ndarray) -> np.ndarray:
    """Current into pyr1's somata, A, from 1 s on: 200 pA sin(2 pi t / 0.5 s)."""
    return 200e-12 * np.sin(2 * np.pi * np.asarray(t) / 0.5)


def dendrite_signal(t: np.ndarray) -> np.ndarray:
    """Current into pyr2's dendrites, A, from 1 s on: 100 pA sin(2 pi t / 1.118 s)."""
    return 100e-12 * np.sin(2 * np.pi * np.asarray(t) / (0.5 * math.sqrt(5)))


def run_multiplexing(c: Circuit, *, raster: dict[str, int] | None = None) -> Recording:
    """The protocol of Fig. 3: 1 s without signals, 3 s with both; 80 bins of 50 ms."""
    signals = {("pyr1", "soma"): soma_signal, ("pyr2", "dendrite"): dendrite_signal}
    first = c.run(1.0, bin=0.05, raster=raster)
    return first.then(c.run(3.0, bin=0.05, currents=signals, raster=raster))


# ---------------------------------------------------------------- Fig. 2e-g

STEERING_STEPS = (1.0, 1.0, 1.5, 1.0, 0.55, 1.0, 1.0)  # dendritic drive, of 0.25; the last also
STEERING_LIFT = 40e-12  # A, into the dendrites of the presynaptic population


def steering(
    seed: int,
    *,
    n: int = 1000,
    low_rate: str = "spikes",
    driving_force: str = "soma",
    dt: float = 1e-4,
) -> Circuit:
    """The network of Fig. 2e-g: pre -> post through plastic synapses, drive to post's dendrites.

    25,000 + 25,000 Poisson cells drive ``pre``; 100 Poisson cells of 1 Hz drive the dendrites of
    ``post`` (connection "drive>post", weight 0.25); pre>post has the burst rule. ``low_rate``:
    see plasticity.BurstRule. Raises ValueError for n below 200.
    Source: Payeur et al. 2021, Fig. 2e-g, and their program.
    """
    if n < 200:
        raise ValueError(f"expected n of 200 or more (200 plastic inputs each), found {n}")
    c = Circuit(seed=seed, dt=dt)
    cell = TwoCompartment(driving_force=driving_force)
    c.population("exc", 25_000, Source(5.0))
    c.population("inh", 25_000, Source(5.0))
    c.population("pre", n, cell)
    c.population("post", n, cell, spread=0.0)
    c.population("drive", 100, Source(1.0))
    for pre, receptor, inputs, weight in (
        ("exc", "soma_exc", 100, 0.17),
        ("inh", "soma_inh", 30, 0.26),
        ("exc", "dend_exc", 100, 0.0425),
        ("inh", "dend_inh", 30, 0.065),
    ):
        c.connect(pre, "pre", receptor, weight=weight, p=inputs / 25_000, name=f"{pre}>{receptor}")
    c.connect("drive", "post", "dend_exc", weight=0.25, p=0.2)
    rule = replace(STEERING, low_rate=low_rate)
    c.connect("pre", "post", "soma_exc", weight=0.08, p=200 / n, transmit="event", rule=rule)
    c.current("post", "dendrite", 50e-12)
    return c


def run_steering(c: Circuit) -> Iterator[Recording]:
    """The protocol of Fig. 2e-g, 170 s in bins of 2.5 s; a recording after each segment.

    20 s with plasticity off, then six segments of 25 s with it on: dendritic drive 1, 1.5, 1,
    0.55, 1, 1 of 0.25, and in the last +40 pA into the dendrites of ``pre``.
    """
    for k, drive in enumerate(STEERING_STEPS):
        c.learning(k > 0)
        c.set_weight("drive>post", 0.25 * drive)
        c.current("pre", "dendrite", STEERING_LIFT if k == len(STEERING_STEPS) - 1 else 0.0)
        yield c.run(20.0 if k == 0 else 25.0, bin=2.5)
