"""How fast the spiking circuits are: python -m tools.bench_spikes [--compile]

CPU seconds (process time) of one thread, beside what the published C++ program took on the same
kind of machine. With --compile the kernel is compiled from nothing first, in a folder of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from lib.spikes import networks
from lib.spikes.circuit import Circuit
from lib.spikes.neuron import BurstPoisson
from lib.spikes.plasticity import PROTOCOL, Averages, burst_poisson, impose, periodic, poisson
from tools.bars import record

COLD = """
import os, time
os.environ["NUMBA_CACHE_DIR"] = {folder!r}
from lib.spikes.circuit import Circuit
from lib.spikes.neuron import BurstPoisson
c = Circuit(seed=1)
c.population("a", 10, BurstPoisson())
start = time.process_time()
c.run(1e-3)
print(time.process_time() - start)
"""


def cpu(what: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    what()
    return time.process_time() - start


def row(
    name: str, seconds: float, original: float | None = None, goal: float | None = None
) -> None:
    """Print one line: what, our seconds, the original's, and the ratio; the goal is in seconds."""
    then = f"{original:7.1f} {original / seconds:6.1f} x" if original else ""
    if original and goal:
        bar = f"at least {original / goal:.1f}"
        record(f"the published C++ program to ours: {name}", original / seconds, bar)
    print(f"{name:44} {seconds:7.2f} {then}", flush=True)


def protocols(realisations: int = 20) -> None:
    """All points of Fig. 2b-d: 100 frequencies; 10 rates, 10 probabilities, two curves each."""
    for frequency in range(1, 101):
        periodic(float(frequency))
    rng, p = np.random.default_rng(1), np.arange(0, 0.5, 0.05)
    for start, trains in [
        *((Averages(5.0, 5 * p0), (poisson(r, 100.0, rng=rng) for r in np.linspace(1, 50, 10)))
          for p0 in (0.3, 0.5) for _ in range(realisations)),
        *((Averages(e, 0.2 * e), np.reshape(
            np.array(burst_poisson(e, np.repeat(p, 2), 100.0, rng=rng), dtype=object), (-1, 2)))
          for e in (5.0, 10.0) for _ in range(realisations)),
    ]:  # fmt: skip
        for pre, post in trains:
            impose(pre, post, PROTOCOL, duration=100.0, averages=start)


def loaded(n: int) -> Circuit:
    """An XOR-like pair of n neurons each: noise on four receptors, 100 plastic inputs each."""
    c = Circuit(seed=1)
    for name in ("a", "b"):
        c.population(name, n, BurstPoisson())
        for receptor, weight in (("soma", 0.35), ("dend", 0.05)):
            c.noise(name, f"{receptor}_exc", rate=500.0, weight=weight)
            c.noise(name, f"{receptor}_inh", rate=500.0, weight=weight)
    rule = networks.XOR_RULE
    c.connect("a", "b", "soma_exc", weight=0.05, p=100 / n, transmit="event", rule=rule)
    c.connect("b", "a", "dend_exc", weight=0.05, p=100 / n, transmit="burst")
    c.learning(True)
    return c


def main() -> None:
    if "--compile" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            code = COLD.format(folder=folder)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        row("compiling the kernel, cold", float(done.stdout))
    networks.xor(1, networks.XorPlan(n=100, average=0.1, example=0.4))  # compiled, or loaded

    print(f"{'CPU seconds, one thread':44} {'here':>7} {'C++':>7}  ratio")
    protocols(1)
    row("Fig. 2b-d, all points, 20 realisations", cpu(protocols), 222.0, 2.0)
    net = networks.xor(1)
    list(networks.train_xor(net, 1))
    row("XOR, one example of 8 s", cpu(lambda: list(networks.train_xor(net, 4))) / 4, 2.9, 0.6)
    whole = cpu(lambda: networks.run_multiplexing(networks.multiplexing(1)))
    row("Fig. 3, one seed, 4 s of 10,000 neurons", whole, 5.2, 1.5)
    whole = cpu(lambda: list(networks.run_steering(networks.steering(1))))
    row("Fig. 2e-g, one seed, 170 s of 2,000 neurons", whole, 35.0, 10.0)

    print("\nneurons in each of two populations: CPU us per step, ns per neuron and step")
    for n in (500, 1000, 2000, 4000, 8000):
        c = loaded(n)
        c.run(0.2)
        steps = 10_000
        each = min(cpu(lambda c=c: c.run(0.5)) for _ in range(3)) / (steps / 2)
        print(f"{n:6} {1e6 * each:8.2f} {1e9 * each / (2 * n):8.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of all of this: {peak:.0f} MB")


if __name__ == "__main__":
    main()
