"""A circuit of spiking populations: say what there is, run it, read events and bursts.

c = Circuit(seed=1)
c.population("cells", 500, TwoCompartment())
c.noise("cells", "soma_exc", rate=500.0, weight=0.35)
found = c.run(2.0, bin=0.05)
found.event_rate("cells")
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from lib.spikes import codes, kernel, stp
from lib.spikes.kernel import BLOCK, LANES, ROWS, State
from lib.spikes.neuron import Pyramidal, check_step
from lib.spikes.plasticity import BurstRule

RECEPTORS = ("soma_exc", "soma_inh", "dend_exc", "dend_inh")
SENDS = {  # what a connection transmits, as bits of the kernel
    "spike": kernel.SPIKE,
    "event": kernel.PRE_EVENT,
    "burst": kernel.PRE_BURST,
    "std": kernel.SPIKE,
    "stf": kernel.SPIKE,
}
SHOWN = {"v_soma": 0, "v_dendrite": 1, "w_soma": 2, "w_dendrite": 3, "threshold": 4}
CHUNK = 10_000  # steps that the kernel runs at a time, at most
DELAY = 0.8e-3  # s, axonal delay in the published program, and its presynaptic burst detector's


def finite(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> float:
    """The number, or ValueError where it is not finite or outside low ... high."""
    if not (isinstance(value, int | float | np.number) and math.isfinite(value)):
        raise ValueError(f"expected a finite number for {name}, found {value!r}")
    if not low <= value <= high:
        between = f"from {low:g} to {high:g}" if high < math.inf else f"of {low:g} or more"
        raise ValueError(f"expected {name} {between}, found {value:g}")
    return float(value)


@dataclass(frozen=True)
class Source:
    """A population of independent Poisson neurons of ``rate`` Hz, without a membrane."""

    rate: float


@dataclass
class Population:
    """What ``Circuit.population`` was told, and where its cells are."""

    name: str
    n: int
    model: object
    average: float | None
    slow: tuple[float, float]  # s, Hz: the trace of all spikes, and where it starts
    index: int
    first: int
    block: int
    spread: float

    @property
    def places(self) -> np.ndarray:
        """Place of each cell's row 0 in the kernel's ``cells``, (n,)."""
        k = np.arange(self.n)
        return (self.block + k // LANES) * BLOCK + k % LANES


@dataclass
class Connection:
    """What ``Circuit.connect`` was told, and its synapses: CSR by presynaptic cell."""

    name: str
    pre: Population
    post: Population
    receptor: str
    transmit: str
    weight: float
    delay: int
    rule: BurstRule | None
    short: stp.ShortTerm | None
    pointer: np.ndarray
    post_of: np.ndarray


@dataclass
class Recording:
    """What a run saw. Counts per bin and population; ``t`` is the end of each bin in s.

    ``weights``: mean weight at the end of each bin, of each connection with a rule. ``raster``:
    per population spike times (s), cells, and what each spike was (codes.EVENT, BURST, LATER).
    ``traces``: per population {v_soma, v_dendrite, threshold: V, w_soma, w_dendrite}, each
    (steps, cells), after the step; ``w_soma`` counts spikes (volts in an adaptive exponential).
    """

    t: np.ndarray
    bin: float
    sizes: dict[str, int]
    spikes: dict[str, np.ndarray]
    events: dict[str, np.ndarray]
    bursts: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    raster: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict)
    traces: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def then(self, other: Recording) -> Recording:
        """This run and the next one, of the same circuit and bin, as one."""
        if self.sizes != other.sizes or not math.isclose(self.bin, other.bin):
            raise ValueError("only two runs of one circuit with the same bin can be joined")
        out = replace(self, t=np.concatenate([self.t, other.t]))
        for key in ("spikes", "events", "bursts", "weights", "traces", "raster"):
            setattr(out, key, _chain(getattr(self, key), getattr(other, key)))
        return out

    def rate(self, name: str) -> np.ndarray:
        """Spikes per second and cell in each bin, Hz."""
        return self.spikes[name] / (self.sizes[name] * self.bin)

    def event_rate(self, name: str) -> np.ndarray:
        """Events per second and cell in each bin, Hz."""
        return self.events[name] / (self.sizes[name] * self.bin)

    def burst_rate(self, name: str) -> np.ndarray:
        """Bursts per second and cell in each bin, Hz."""
        return self.bursts[name] / (self.sizes[name] * self.bin)

    def burst_probability(self, name: str) -> np.ndarray:
        """Bursts per event in each bin; nan where there was no event."""
        e = self.events[name]
        return np.where(e > 0, self.bursts[name] / np.maximum(e, 1), np.nan)


def alias_table(p: float) -> tuple[np.ndarray, np.ndarray]:
    """Alias table of the number of cells skipped when each fires with chance p (Walker 1977)."""
    n = kernel.TABLE
    q = p * (1 - p) ** np.arange(n)
    q[-1] = (1 - p) ** (n - 1)
    q *= n / q.sum()
    cut, other = np.ones(n), np.arange(n)
    small, large = [k for k in range(n) if q[k] < 1], [k for k in range(n) if q[k] >= 1]
    while small and large:
        k, m = small.pop(), large[-1]
        cut[k], other[k] = q[k], m
        q[m] -= 1 - q[k]
        if q[m] < 1:
            small.append(large.pop())
    whole = np.minimum(cut * 2.0**32, 2.0**32 - 1).astype(np.uint32)
    return whole, other.astype(np.int32)


class Circuit:
    """Populations, noise, connections and currents; built by its methods, then ``run``.

    ``dt``: step in s (the published program's is 0.1 ms). ``seed``: of wiring and noise; the same
    seed, methods and runs give the same spikes. ``burst_window``: s, trace of burst detection.
    Weights are conductances in units of the target compartment's leak. Everything is checked when
    it is said: ValueError for unknown names, negative rates, steps too large, numbers not finite.
    Source: the model of Payeur et al. 2021 as their program runs it.
    Departs: sources of noise are drawn as one process per population, which is the same law.
    """

    def __init__(self, *, seed: int, dt: float = 1e-4, burst_window: float = 16e-3) -> None:
        self.dt = finite("dt", dt, 1e-6, 1e-3)
        self.burst_window = finite("burst_window", burst_window, 5 * dt)
        wiring, noise = np.random.SeedSequence(seed).spawn(2)
        self._wiring, self._noise_seeds = np.random.default_rng(wiring), noise
        self._start = np.random.default_rng(42)  # initial voltages: the same for every seed
        self.populations: dict[str, Population] = {}
        self.connections: dict[str, Connection] = {}
        self._noises: list[tuple[Population, str, float, float]] = []
        self._currents: dict[tuple[str, str], np.ndarray] = {}
        self._state: State | None = None
        self.step = 0
        self._learning: dict[str, bool] = {}

    # ---------------------------------------------------------------- building

    def population(
        self,
        name: str,
        n: int,
        model: object,
        *,
        average: float | None = None,
        spread: float = 5e-3,
    ) -> None:
        """n cells of a model (`TwoCompartment`, `BurstPoisson`, `AdaptiveExponential`, `Source`).

        ``average``: s, time constant of its moving averages of events and bursts; a burst rule
        that ends here brings its own. ``spread``: V, s.d. of the initial somatic voltages.
        """
        self._building()
        if name in self.populations:
            raise ValueError(f"there is a population {name!r} already; names must differ")
        if not isinstance(n, int | np.integer) or not 1 <= n <= 2**16:
            raise ValueError(f"expected a whole number of cells, 1 to {2**16}, found {n!r}")
        if average is not None:
            finite("average", average, 10 * self.dt)
        if isinstance(model, Source):
            self._chance(model.rate)
        else:
            check_step(model, self.dt)
        last = next(reversed(self.populations.values()), None)
        first = last.first + last.n if last else 0
        block = last.block + -(-last.n // LANES) if last else 0
        index = len(self.populations)
        spread = finite("spread", spread, 0)
        self.populations[name] = Population(
            name, int(n), model, average, (30.0, 0.1), index, first, block, spread
        )

    def noise(self, name: str, receptor: str, *, rate: float, weight: float) -> None:
        """Give each cell its own Poisson input of ``rate`` Hz onto a receptor.

        At most one arrival per cell and step, as published: the variance of arrivals in a step is
        r dt (1 - r dt), 5 % below Poisson's at 500 Hz and 0.1 ms.
        """
        self._building()
        pop = self._membrane(name)
        self._receptor(pop, receptor)
        self._chance(rate)
        self._noises.append((pop, receptor, float(rate), finite("weight", weight, 0)))

    def connect(
        self,
        pre: str,
        post: str,
        receptor: str,
        *,
        weight: float,
        p: float,
        transmit: str = "spike",
        rule: BurstRule | None = None,
        short: stp.ShortTerm | None = None,
        delay: float | None = None,
        onto: np.ndarray | None = None,
        name: str | None = None,
    ) -> None:
        """Connect each ordered pair with chance p, no cell to itself; ``weight`` is the first.

        ``transmit``: "spike" all spikes; "event" or "burst" only the first, or the second spike of
        a burst; "std", "stf" all spikes through depressing or facilitating synapses (``short``
        replaces their parameters). ``rule``: makes the weights learn. ``delay``: s; 0 for events
        and bursts, 0.8 ms for the others if not given. ``onto``: a mask (n,) of the
        postsynaptic cells to reach. ``name``: "pre>post" if not given.
        """
        self._building()
        a, b = self._population(pre), self._membrane(post)
        self._receptor(b, receptor)
        finite("weight", weight, 0)
        finite("p", p, 0, 1)
        name = f"{pre}>{post}" if name is None else name
        if name in self.connections:
            raise ValueError(f"there is a connection {name!r} already; say name=...")
        if transmit not in SENDS:
            raise ValueError(f"no transmission {transmit!r}; there are {', '.join(SENDS)}")
        if transmit in ("std", "stf"):
            short = short or (stp.DEPRESSING if transmit == "std" else stp.FACILITATING)
        elif short is not None:
            raise ValueError("short-term parameters need transmit='std' or 'stf'")
        if rule is not None and short is not None:
            raise ValueError("the burst rule needs transmit='event' (or 'spike'), not std or stf")
        if rule is not None:
            self._keep(b, rule)
        delay = (0.0 if transmit in ("event", "burst") else DELAY) if delay is None else delay
        steps = round(finite("delay", delay, 0, 0.1) / self.dt)
        pointer, post_of = self._pairs(a, b, p, onto)
        self.connections[name] = Connection(
            name, a, b, receptor, transmit, float(weight), steps, rule, short, pointer, post_of
        )
        self._learning[name] = False

    def _pairs(
        self, a: Population, b: Population, p: float, onto: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bernoulli(p) pairs, by leaps along the rows of the connection matrix."""
        total, rng = a.n * b.n, self._wiring
        if p == 0:
            hits = np.empty(0, dtype=np.int64)
        elif p == 1:
            hits = np.arange(total)
        else:
            guess = int(total * p + 6 * math.sqrt(total * p) + 10)
            hits = np.cumsum(rng.geometric(p, guess)) - 1
            while hits[-1] < total:  # hardly ever
                hits = np.concatenate([hits, hits[-1] + np.cumsum(rng.geometric(p, 100))])
            hits = hits[: np.searchsorted(hits, total)]
        row = hits // b.n
        column = (hits - row * b.n).astype(np.uint16)
        keep = row != column if a is b else np.ones(len(hits), dtype=bool)
        if onto is not None:
            mask = np.asarray(onto)
            if mask.shape != (b.n,) or mask.dtype != bool:
                raise ValueError(f"expected onto as a mask of shape ({b.n},), found {mask.shape}")
            keep &= mask[column]
        if not keep.all():
            row, column = row[keep], column[keep]
        if not len(row):
            raise ValueError(
                f"no cell of {a.name!r} reaches one of {b.name!r}: larger p, or another mask"
            )
        pointer = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=a.n))])
        return pointer, column

    def _keep(self, pop: Population, rule: BurstRule) -> None:
        """Give the population the averages that the rule reads; one set for all rules."""
        if not (rule.clip and rule.w_min == 0 and rule.w_max < math.inf):
            raise ValueError("a circuit needs a rule with clip=True, w_min=0 and a finite w_max")
        if not math.isclose(rule.threshold, self.burst_window):
            raise ValueError(
                f"the rule's threshold {rule.threshold:g} s differs from the circuit's "
                f"burst_window {self.burst_window:g} s"
            )
        slow = rule.tau_low, rule.low_start
        others = [c.rule for c in self.connections.values() if c.rule and c.post is pop]
        if pop.average not in (None, rule.tau_avg) or (others and pop.slow != slow):
            raise ValueError(
                f"all rules onto {pop.name!r} share their averages: expected tau_avg "
                f"{pop.average:g} s and (tau_low, low_start) {pop.slow}, found "
                f"{rule.tau_avg:g} s and {slow}"
            )
        pop.average, pop.slow = rule.tau_avg, slow

    # ---------------------------------------------------------------- changing between runs

    def current(self, name: str, compartment: str, amperes: float | np.ndarray) -> None:
        """Set a constant current into each cell's "soma" or "dendrite": one number or (n,), A."""
        pop = self._compartment(name, compartment)
        values = np.asarray(amperes, dtype=np.float64)
        if values.shape not in ((), (pop.n,)) or not np.isfinite(values).all():
            raise ValueError(
                f"expected one finite current for {name!r} or {pop.n} of them, "
                f"found the shape {values.shape}"
            )
        self._currents[name, compartment] = np.broadcast_to(values, (pop.n,)).copy()
        if self._state is not None:
            self._inject(name, compartment)

    def learning(self, on: bool, *names: str) -> None:
        """Switch the burst rule (the gate M) of the named connections, or of all, on or off."""
        for name in names or [c.name for c in self.connections.values() if c.rule]:
            c = self._connection(name)
            if c.rule is None:
                raise ValueError(f"the connection {name!r} has no rule to switch")
            self._learning[name] = bool(on)
            if self._state is not None:
                self._state.rule[self._rules.index(name), 6] = on

    def set_weight(self, name: str, weight: float) -> None:
        """Set all weights of a connection to one value."""
        c = self._connection(name)
        c.weight = finite("weight", weight, 0)
        if self._state is not None:
            self._state.weight[list(self.connections).index(name)] = weight
            if c.rule:
                first = self._state.rule_first[self._rules.index(name), 1]
                self._state.w[first : first + len(c.post_of)] = weight

    def weights(self, name: str) -> np.ndarray:
        """The weights of a plastic connection now, by presynaptic cell, (synapses,) float32."""
        c, s = self._connection(name), self._built()
        if c.rule is None:
            raise ValueError(f"the connection {name!r} has one weight for all, {c.weight:g}")
        first = s.rule_first[self._rules.index(name), 1]
        return s.w[first:][s.out_place[first : first + len(c.post_of)]]

    def averages(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Each cell's moving averages of its event rate and burst rate now, Hz, two (n,)."""
        pop, s = self._population(name), self._built()
        if pop.average is None:
            raise ValueError(f"{name!r} keeps no averages: population({name!r}, average=...)")
        fade = math.exp(-(self.step - s.base[0]) * self.dt / pop.average) / pop.average
        cells = slice(pop.first, pop.first + pop.n)
        return s.event_sum[cells] * fade, s.burst_sum[cells] * fade

    # ---------------------------------------------------------------- running

    def run(
        self,
        seconds: float,
        *,
        bin: float | None = None,
        currents: Mapping[tuple[str, str], Callable | np.ndarray] | None = None,
        raster: Mapping[str, int] | None = None,
        traces: Mapping[str, int] | None = None,
    ) -> Recording:
        """Advance by ``seconds`` and say what happened in each ``bin`` (s; one bin if not given).

        ``currents``: {(population, compartment): f}, a current common to its cells on top of the
        constant ones, A: a function of time (s, from the circuit's beginning) or one value per
        step. ``raster``: {population: k}, list the spikes of its first k cells.
        ``traces``: {population: k}, voltages of its first k cells at every step.
        """
        steps = self._steps("seconds", seconds)
        width = steps if bin is None else self._steps("bin", bin)
        if steps % width:
            raise ValueError(f"expected a run of whole bins, found {seconds:g} s and bin {bin:g} s")
        courses = self._courses(currents or {}, steps)
        s = self._built()
        shown = {k: self._cells("raster", k, n) for k, n in (raster or {}).items()}
        probes = {k: self._cells("traces", k, n) for k, n in (traces or {}).items()}
        s.shown[:] = [shown.get(name, 0) for name in self.populations]
        listed = sum(shown.values())
        probe = [self.populations[name].places[:k] for name, k in probes.items()]
        s = s._replace(probe=np.concatenate([np.empty(0, np.int64), *probe]).astype(np.int64))
        counts = np.zeros((steps // width, len(self.populations), 3), dtype=np.int64)
        weights = np.zeros((steps // width, len(self._rules)))
        seen, spikes, start = [], [], self.step
        for k in range(steps // width):
            done = 0
            while done < width:
                size = min(width - done, self._fresh - (self.step - int(s.base[0])), CHUNK)
                at = self.step - start
                part = s._replace(
                    course=np.ascontiguousarray(courses[:, at : at + size]),
                    raster=np.empty((listed * (size // 5 + 1), 3), dtype=np.int64),
                    seen=np.empty((size, len(s.probe), 5), dtype=np.float32),
                )
                s.raster_n[0] = 0
                kernel.advance(part, self.step, size)
                self.step += size
                done += size
                if s.raster_n[0] > len(part.raster):
                    raise FloatingPointError("cells fire at every fifth step: currents too large")
                spikes.append(part.raster[: s.raster_n[0]].copy())
                seen.append(part.seen)
                if self.step - s.base[0] >= self._fresh:
                    self._refresh()
            counts[k], s.count[:] = s.count, 0
            weights[k] = [float(self.weights(name).mean()) for name in self._rules]
        if not np.isfinite(s.cells).all():
            raise FloatingPointError("a voltage left the numbers: smaller weights, currents or dt")
        names = list(self.populations)
        record = Recording(
            t=(start + width * np.arange(1, steps // width + 1)) * self.dt,
            bin=width * self.dt,
            sizes={name: pop.n for name, pop in self.populations.items()},
            spikes={name: counts[:, i, 0] for i, name in enumerate(names)},
            events={name: counts[:, i, 1] for i, name in enumerate(names)},
            bursts={name: counts[:, i, 2] for i, name in enumerate(names)},
            weights={name: weights[:, i] for i, name in enumerate(self._rules)},
        )
        listing = np.concatenate(spikes)
        for name in shown:
            pop = self.populations[name]
            mine = listing[(listing[:, 1] >= pop.first) & (listing[:, 1] < pop.first + pop.n)]
            event, burst = (mine[:, 2] & bit > 0 for bit in (kernel.POST_EVENT, kernel.POST_BURST))
            what = np.where(event, codes.EVENT, np.where(burst, codes.BURST, codes.LATER))
            record.raster[name] = mine[:, 0] * self.dt, mine[:, 1] - pop.first, what
        voltages, column = np.concatenate(seen), 0
        for name, n in probes.items():
            part = voltages[:, column : column + n]
            record.traces[name] = {key: part[:, :, row] for key, row in SHOWN.items()}
            column += n
        return record

    # ---------------------------------------------------------------- saving

    def save(self) -> dict[str, np.ndarray]:
        """All that changes while it runs, as arrays: ``restore`` goes on from there exactly."""
        s = self._built()
        saved = {name: getattr(s, name).copy() for name in _MOVING}
        saved["step"], saved["wiring"] = np.array(self.step), np.array(self._wires())
        saved["learning"] = np.array([self._learning[name] for name in self._rules], dtype=bool)
        return saved

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Take up a state that ``save`` gave, in a circuit built with the same calls and seed."""
        s = self._built()
        if int(saved.get("wiring", self._wires())) != self._wires():
            raise ValueError("this state is of another circuit: other populations, wires or seed")
        for name in _MOVING:
            if name not in saved or saved[name].shape != getattr(s, name).shape:
                raise ValueError(f"this state is of another circuit: {name} does not fit")
        for name in _MOVING:
            getattr(s, name)[...] = saved[name]
        self.step = int(saved["step"])
        for name, on in zip(self._rules, saved["learning"], strict=True):
            self._learning[name] = bool(on)

    # ---------------------------------------------------------------- inside

    def _wires(self) -> int:
        s = self._built()  # out_place too: weights are not saved by presynaptic cell
        return zlib.crc32(s.out_place.tobytes(), zlib.crc32(s.target.tobytes()))

    def _building(self) -> None:
        if self._state is not None:
            raise ValueError("the circuit has run already: build all of it before the first run")

    def _population(self, name: str) -> Population:
        if name not in self.populations:
            known = ", ".join(self.populations) or "none yet"
            raise ValueError(f"no population {name!r}; there are: {known}")
        return self.populations[name]

    def _membrane(self, name: str) -> Population:
        pop = self._population(name)
        if isinstance(pop.model, Source):
            raise ValueError(f"{name!r} is a Poisson source: nothing can reach it")
        return pop

    def _receptor(self, pop: Population, receptor: str) -> None:
        if receptor not in RECEPTORS:
            raise ValueError(f"no receptor {receptor!r}; there are {', '.join(RECEPTORS)}")
        if receptor.startswith("dend") and not isinstance(pop.model, Pyramidal):
            raise ValueError(f"{pop.name!r} has no dendrite: use soma_exc or soma_inh")

    def _compartment(self, name: str, compartment: str) -> Population:
        pop = self._membrane(name)
        if compartment not in ("soma", "dendrite"):
            raise ValueError(f"expected 'soma' or 'dendrite', found {compartment!r}")
        if compartment == "dendrite":
            self._receptor(pop, "dend_exc")
        return pop

    def _connection(self, name: str) -> Connection:
        if name not in self.connections:
            known = ", ".join(self.connections) or "none yet"
            raise ValueError(f"no connection {name!r}; there are: {known}")
        return self.connections[name]

    def _cells(self, what: str, name: str, n: int) -> int:
        pop = self._population(name) if what == "raster" else self._membrane(name)
        if not isinstance(n, int | np.integer) or not 1 <= n <= pop.n:
            raise ValueError(f"{what}: expected 1 to {pop.n} cells of {name!r}, found {n!r}")
        return int(n)

    def _chance(self, rate: float) -> float:
        chance = finite("rate", rate, 0) * self.dt
        if chance > 0.5:
            raise ValueError(f"expected a rate of at most {0.5 / self.dt:g} Hz, found {rate:g} Hz")
        return chance

    def _steps(self, what: str, seconds: float) -> int:
        steps = round(finite(what, seconds, self.dt / 2) / self.dt)
        if abs(steps * self.dt - seconds) > 1e-3 * self.dt:
            raise ValueError(f"expected {what} in whole steps of {self.dt:g} s, found {seconds:g}")
        return steps

    def _volts(self, pop: Population, compartment: str) -> float:
        """Volts per step and ampere."""
        return self.dt / (pop.model.c_soma if compartment == "soma" else pop.model.c_dendrite)

    def _courses(self, currents: Mapping, steps: int) -> np.ndarray:
        rows = np.zeros((len(currents), steps), dtype=np.float32)
        places = np.full((len(self.populations), 2), -1, dtype=np.int64)
        times = (self.step + np.arange(steps)) * self.dt
        for k, ((name, compartment), course) in enumerate(currents.items()):
            pop = self._compartment(name, compartment)
            values = np.asarray(course(times) if callable(course) else course, dtype=np.float64)
            if values.shape != (steps,) or not np.isfinite(values).all():
                raise ValueError(
                    f"expected {steps} finite values of current for {name!r}, one per step, "
                    f"found the shape {values.shape}"
                )
            rows[k] = values * self._volts(pop, compartment)
            places[pop.index, int(compartment == "dendrite")] = k
        self._built().drive[:] = places
        return rows

    def _inject(self, name: str, compartment: str) -> None:
        pop, s = self.populations[name], self._state
        row = ROWS.index("i_s" if compartment == "soma" else "i_d") * LANES
        volts = (self._currents[name, compartment] * self._volts(pop, compartment)).astype(
            np.float32
        )
        equal = (volts == volts[0]).all()  # then one number serves all, and the row is not read
        p = s.factor[pop.index]
        p[25 + (compartment == "dendrite")] = volts[0] if equal else 0
        s.cells[pop.places + row] = 0 if equal else volts
        rows = [s.cells[pop.places + ROWS.index(x) * LANES] for x in ("i_s", "i_d")]
        p[27] = any(x.any() for x in rows)

    def _refresh(self) -> None:
        """Count the scaled sums from this step on, so that they do not overflow."""
        s, since = self._state, (self.step - self._state.base[0]) * self.dt
        for pop in self.populations.values():
            if pop.average is not None:
                cells = slice(pop.first, pop.first + pop.n)
                s.event_sum[cells] *= math.exp(-since / pop.average)
                s.burst_sum[cells] *= math.exp(-since / pop.average)
                s.spike_sum[cells] *= math.exp(-since / pop.slow[0])
        for r, name in enumerate(self._rules):
            first, n = s.rule_first[r, 2], self.connections[name].pre.n
            s.trace[first : first + n] *= math.exp(-since / s.rule[r, 1])
        s.base[0] = self.step

    def _built(self) -> State:
        if self._state is None:
            if not self.populations:
                raise ValueError("an empty circuit: add a population first")
            self._state = self._build()
            for name, compartment in self._currents:
                self._inject(name, compartment)
        return self._state

    def _build(self) -> State:
        pops, links = list(self.populations.values()), list(self.connections.values())
        cells_n = pops[-1].first + pops[-1].n
        blocks = pops[-1].block + -(-pops[-1].n // LANES)
        chances = sorted({rate * self.dt for _, _, rate, _ in self._noises if rate > 0})
        sources = [p for p in pops if isinstance(p.model, Source)]
        chances = sorted({*chances, *(p.model.rate * self.dt for p in sources if p.model.rate > 0)})
        tables = [alias_table(p) for p in chances]
        noises = [n for n in self._noises if n[2] > 0]
        seeds = self._noise_seeds.generate_state(len(pops) + len(noises) + 1, np.uint64)
        first_gap = np.random.default_rng(int(seeds[-1]))

        cells = _aligned(blocks * BLOCK)
        chance = np.zeros((len(pops), 2), dtype=np.int64)
        factor = np.zeros((len(pops), 32), dtype=np.float32)
        inhibited = np.zeros(len(pops), dtype=np.uint8)
        normal: dict[int, np.ndarray] = {}  # cells of equal number start alike, as published
        for pop in pops:
            if isinstance(pop.model, Source):
                chance[pop.index] = 0, np.iinfo(np.int64).max // 2  # silent
                if pop.model.rate > 0:
                    p = pop.model.rate * self.dt
                    chance[pop.index] = chances.index(p), first_gap.geometric(p) - 1
                continue
            factor[pop.index] = pop.model.factors(self.dt)
            ends = {x.receptor for x in links if x.post is pop}
            ends |= {receptor for other, receptor, *_ in noises if other is pop}
            inhibited[pop.index] = any(x.endswith("inh") for x in ends)
            every = np.arange(pop.block * LANES, (pop.block + -(-pop.n // LANES)) * LANES)
            places = every // LANES * BLOCK + every % LANES
            for row, value in pop.model.start().items():
                cells[places + ROWS.index(row) * LANES] = value
            if pop.n not in normal:
                normal[pop.n] = self._start.normal(size=pop.n)
            cells[pop.places] += pop.spread * normal[pop.n]

        noise = [
            (
                pop.index,
                ROWS.index(receptor) * LANES,
                chances.index(rate * self.dt),
                first_gap.geometric(rate * self.dt) - 1,
            )
            for pop, receptor, rate, _ in noises
        ]
        shorts = [c for c in links if c.short is not None]
        rules = [c for c in links if c.rule is not None]
        self._rules = [c.name for c in rules]
        pointer, target, begin, stride, lists = _target_lists(links, len(pops))
        entry, synapse = (
            _starts([c.pre.n for c in shorts]),
            _starts([len(c.post_of) for c in rules]),
        )
        trace = _starts([c.pre.n for c in rules])
        inward = _starts([c.post.n + 1 for c in rules])
        link = [
            (
                c.pre.index,
                c.post.index,
                SENDS[c.transmit],
                c.delay,
                begin[i],
                shorts.index(c) if c in shorts else -1,
                rules.index(c) if c in rules else -1,
                c.post.block * BLOCK + ROWS.index(c.receptor) * LANES,
                stride[i],
            )
            for i, c in enumerate(links)
        ]
        rule, rule_first, in_pointer, in_cell, out_place = [], [], [], [], []
        for r, c in enumerate(rules):
            x = c.rule
            on, by_events = self._learning[c.name], x.low_rate == "events"
            rule.append((x.eta, x.tau_pre, x.w_max, x.e_min, x.e_max, by_events, on, 0))
            rule_first.append((pointer[begin[links.index(c)]], synapse[r], trace[r], inward[r]))
            order = np.argsort(c.post_of, kind="stable")
            pre_of = np.repeat(np.arange(c.pre.n), np.diff(c.pointer))
            ends = np.cumsum(np.bincount(c.post_of, minlength=c.post.n))
            in_pointer.append(synapse[r] + np.concatenate([[0], ends]))
            in_cell.append(pre_of[order])
            out_place.append(np.argsort(order))

        times = [x for p in pops if p.average for x in (p.average, p.slow[0])]
        times += [c.rule.tau_pre for c in rules]
        self._fresh = round(20 * min(times, default=1.0) / self.dt)
        slots = max([c.delay for c in links], default=0) + 1
        lag = round(DELAY / self.dt)
        spike_sum = np.zeros(cells_n)
        tau = np.zeros((len(pops), 2))
        for pop in pops:
            tau[pop.index] = pop.average or 0.0, pop.slow[0]
            spike_sum[pop.first : pop.first + pop.n] = pop.slow[0] * pop.slow[1]
        ints, small = np.int64, np.uint8
        return State(
            cells=cells,
            hot=np.zeros(blocks, np.int32),
            kind=np.array([getattr(p.model, "kind", kernel.SOURCE) for p in pops], ints),
            size=np.array([p.n for p in pops], ints),
            first=np.array([*(p.first for p in pops), cells_n], ints),
            block=np.array([*(p.block for p in pops), blocks], ints),
            factor=factor,
            inhibited=inhibited,
            drive=np.full((len(pops), 2), -1, ints),
            course=np.zeros((0, 0), np.float32),
            chance=chance,
            random=seeds[:-1].copy(),
            z=np.zeros(cells_n),
            z_step=np.zeros(cells_n, ints),
            in_burst=np.zeros((cells_n, 2), small),
            event_sum=np.zeros(cells_n),
            burst_sum=np.zeros(cells_n),
            spike_sum=spike_sum,
            tau=tau,
            clock=np.array([self.dt, self.burst_window, lag]),
            base=np.zeros(1, ints),
            ring_count=np.zeros((slots, len(pops)), ints),
            ring_cell=np.zeros((slots, cells_n), np.uint32),
            ring_kind=np.zeros((slots, cells_n), small),
            noise=np.array(noise, ints).reshape(-1, 4),
            noise_weight=np.array([w for *_, w in noises], np.float32),
            cut=_stack([t[0] for t in tables], np.uint32),
            other=_stack([t[1] for t in tables], np.int32),
            link=np.array(link, ints).reshape(-1, 9),
            weight=np.array([c.weight for c in links], np.float32),
            lists=lists,
            pointer=pointer,
            target=target,
            short=np.array(
                [(c.short.release, c.short.gain, c.short.tau_d, c.short.tau_f, 0) for c in shorts]
            ).reshape(-1, 5),
            short_first=np.array(entry[:-1], ints),
            u=np.full(entry[-1], 0.01),  # where the published program starts every synapse
            x=np.ones(entry[-1]),
            u_step=np.zeros(entry[-1], ints),
            amplitude=np.zeros((slots, entry[-1]), np.float32),
            rule=np.array(rule, float).reshape(-1, 8),
            rule_first=np.array(rule_first, ints).reshape(-1, 4),
            w=_join([np.full(len(c.post_of), c.weight) for c in rules], np.float32),
            trace=np.zeros(trace[-1], np.float32),
            in_pointer=_join(in_pointer, ints),
            in_cell=_join(in_cell, np.uint16),
            out_place=_join(out_place, np.uint32),
            count=np.zeros((len(pops), 3), ints),
            shown=np.zeros(len(pops), ints),
            raster=np.zeros((0, 3), ints),
            raster_n=np.zeros(1, ints),
            probe=np.zeros(0, ints),
            seen=np.zeros((0, 0, 5), np.float32),
        )


_MOVING = (
    "cells factor chance random z z_step in_burst event_sum burst_sum spike_sum base ring_count "
    "ring_cell ring_kind noise weight u x u_step amplitude rule w trace"
).split()


def _chain(a: dict, b: dict) -> dict:
    """Join the arrays of two nested dicts, or tuples in them."""
    if a.keys() != b.keys():
        raise ValueError(f"only runs that record the same can be joined, found {a.keys()}")
    out = {}
    for key, value in a.items():
        if isinstance(value, dict):
            out[key] = _chain(value, b[key])
        elif isinstance(value, tuple):
            out[key] = tuple(np.concatenate(pair) for pair in zip(value, b[key], strict=True))
        else:
            out[key] = np.concatenate([value, b[key]])
    return out


def _target_lists(links: list[Connection], populations: int) -> tuple[np.ndarray, ...]:
    """Whom each presynaptic cell reaches, all its lists side by side: one wait for memory, not m.

    Connections that learn stand apart, in the order of their weights. Returns pointer, target; per
    connection its first pointer and the pointers from one cell to the next; per population both.
    """
    pointers, target = [], np.empty(sum(len(c.post_of) for c in links), np.uint16)
    begin, stride = np.zeros((2, len(links)), np.int64)
    lists = np.zeros((populations, 2), np.int64)
    groups: dict[tuple, list[int]] = {}
    for i, c in enumerate(links):
        groups.setdefault((c.pre.index, c.rule and c.name), []).append(i)
    first = filled = 0
    for (pre, learns), group in groups.items():
        m, n = len(group), links[group[0]].pre.n
        sizes = np.stack([np.diff(links[i].pointer) for i in group], axis=1)
        starts = filled + np.concatenate([[0], np.cumsum(sizes)])
        for k, i in enumerate(group):
            c, begin[i], stride[i] = links[i], first + k, m
            shift = np.repeat(starts[k : m * n : m] - c.pointer[:-1], sizes[:, k])
            target[np.arange(len(c.post_of)) + shift] = c.post_of
        if not learns and any(links[i].delay for i in group):
            lists[pre] = first, m
        pointers.append(starts)
        first, filled = first + len(starts), starts[-1]
    return _join(pointers, np.uint32), target, begin, stride, lists


def _aligned(size: int) -> np.ndarray:
    """Zeros, float32, from the start of a cache line: a vector in two lines is fetched twice."""
    room = np.zeros(size + 16, dtype=np.float32)
    first = -room.ctypes.data % 64 // 4
    return room[first : first + size]


def _starts(sizes: list[int]) -> list[int]:
    return [0, *np.cumsum(sizes, dtype=np.int64).tolist()]


def _join(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def _stack(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.stack(parts).astype(dtype) if parts else np.zeros((0, kernel.TABLE), dtype)
