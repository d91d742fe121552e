"""The compiled inside of `circuit`: every neuron, synapse and noise source, step by step.

All that is compiled lives in this one file, because Numba's cache watches one file at a time.
Cells are stored in blocks of 64: 13 rows (`ROWS`) of 64 numbers, float32, so that one loop over a
block becomes vector instructions. No operation is reordered (no fastmath) and no library's exp is
used in the membranes: the same seed gives the same spikes on every run.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, void
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 64
ROWS = ("v_s v_d w_s w_d threshold soma_exc soma_inh dend_exc dend_inh i_s i_d timer burst").split()
BLOCK = LANES * len(ROWS) + 16  # not a multiple of 4 KiB: blocks would collide in the cache
V_S, V_D, W_S, W_D, TH, GE_S, GI_S, GE_D, GI_D, I_S, I_D, TIMER, BURST = (
    LANES * k for k in range(len(ROWS))
)
TWO, POISSON_BURST, ADEX, SOURCE = 0, 1, 2, 3  # the kinds of population
POST_EVENT, POST_BURST, PRE_EVENT, PRE_BURST, SPIKE = 1, 2, 4, 8, 16  # what a spike is, as bits
TABLE = 1024  # entries of an alias table: gaps of 0 ... TABLE - 2, or "no arrival in TABLE - 1"

ONE, HALF, ZERO, MINUS = (np.float32(x) for x in (1, 0.5, 0, -1))
LOG2E, LIMIT = np.float32(1.44269504), np.float32(115)
C1, C2, C3, C4, C5 = (
    np.float32(x) for x in (0.69314720, 0.24022651, 0.055504110, 0.0096181290, 0.0013333558)
)
BIAS, SHIFT = np.int32(127), np.int32(23)
ADEX_POWER = np.float32(1 / 256)
E_INV = math.exp(-1)
STRIDE = np.uint64(0x9E3779B97F4A7C15)


class State(NamedTuple):
    """Every array that the kernel reads or writes. P populations, C connections, B noise inputs."""

    cells: np.ndarray  # (blocks * BLOCK,) float32
    hot: np.ndarray  # (blocks,) int32: a cell of this block fired
    kind: np.ndarray  # (P,) the model
    size: np.ndarray  # (P,) cells
    first: np.ndarray  # (P + 1,) its first cell among all cells
    block: np.ndarray  # (P + 1,) its first block
    factor: np.ndarray  # (P, 32) float32: the model's numbers for one step
    inhibited: np.ndarray  # (P,) uint8: some input may raise an inhibitory conductance
    drive: np.ndarray  # (P, 2) row of `course` added to somata and dendrites, or -1
    course: np.ndarray  # (rows, steps) float32 volts per step
    chance: np.ndarray  # (P, 2) int64: a source's alias table and the cells until its next spike
    random: np.ndarray  # (P + B,) uint64: one generator per population and noise input
    # burst detection and moving averages, per cell
    z: np.ndarray
    z_step: np.ndarray
    in_burst: np.ndarray  # (cells, 2) uint8: after a burst's second spike, seen after and before
    event_sum: np.ndarray  # sums that decay, kept as sum * e^((step - base) dt / tau)
    burst_sum: np.ndarray
    spike_sum: np.ndarray  # the slow trace of all spikes
    tau: np.ndarray  # (P, 2) s: of the averages (0: none kept), of the slow trace
    clock: np.ndarray  # (3,) float64: dt, burst trace's tau, lag of presynaptic detection in steps
    base: np.ndarray  # (1,) int64: the step from which scaled sums count
    # spikes of the last few steps
    ring_count: np.ndarray  # (slots, P)
    ring_cell: np.ndarray  # (slots, cells) uint32: a signed index might count from the end
    ring_kind: np.ndarray  # (slots, cells) uint8
    # noise: one superposed process per input
    noise: np.ndarray  # (B, 4) int64: population, row's offset, alias table, cells to next arrival
    noise_weight: np.ndarray  # (B,) float32
    cut: np.ndarray  # (tables, TABLE) uint32
    other: np.ndarray  # (tables, TABLE) int32
    # connections
    link: np.ndarray  # (C, 9) int64: pre, post, bits sent, delay, pointer, stp, rule, place, stride
    weight: np.ndarray  # (C,) float32, of all its synapses where no rule is at work
    lists: np.ndarray  # (P, 2) int64: first pointer, pointers from a cell to the next (0: none)
    pointer: np.ndarray  # uint32: where a presynaptic cell's synapses begin and end
    target: np.ndarray  # uint16: each synapse's postsynaptic cell
    # short-term plasticity: per connection, per presynaptic cell
    short: np.ndarray  # (S, 5) float64: U, jump, tau_d, tau_f, unused
    short_first: np.ndarray  # (S,) first entry in u, x, u_step
    u: np.ndarray
    x: np.ndarray
    u_step: np.ndarray
    amplitude: np.ndarray  # (slots, entries) float32: fixed at the spike, delivered later
    # the burst rule
    rule: np.ndarray  # (R, 8) float64: eta, tau_pre, w_max, rate_min, rate_max, by events, on, -
    rule_first: np.ndarray  # (R, 4): first synapse in target, in w; first in trace, in in_pointer
    w: np.ndarray  # float32, by postsynaptic cell: learning takes them in order
    trace: np.ndarray  # float32: presynaptic events, scaled like the sums
    in_pointer: np.ndarray
    in_cell: np.ndarray  # uint16: presynaptic cell, within `trace`
    out_place: np.ndarray  # uint32: by presynaptic cell, as in target: a synapse's place in w
    # recording
    count: np.ndarray  # (P, 3) int64: spikes, events, bursts since last emptied
    shown: np.ndarray  # (P,) cells whose spikes are listed
    raster: np.ndarray  # (room, 3) int64: step, cell among all cells, what it was as bits
    raster_n: np.ndarray  # (1,)
    probe: np.ndarray  # (k,) int64: places in `cells` of the probed cells' v_s
    seen: np.ndarray  # (steps, k, 5) float32


@njit(inline="always", error_model="numpy")
def power_of_two(y):
    """2^y of a float32 up to ``LIMIT`` in plain arithmetic, relative error 4e-6; it vectorises."""
    k = np.floor(y + HALF)
    r = y - k
    k = k if k > -LIMIT else -LIMIT
    power = np.int32((np.int32(k) + BIAS) << SHIFT).view(np.float32)
    return power * (ONE + r * (C1 + r * (C2 + r * (C3 + r * (C4 + r * C5)))))


@njit(inline="always")
def bits(state):
    """The next 64 random bits and the new state: splitmix64 (Steele, Lea & Flood 2014)."""
    state += STRIDE
    y = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    y = (y ^ (y >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return y ^ (y >> np.uint64(31)), state


@njit(inline="always")
def place(cell):
    """Where a cell's number stands, from where its population's row begins."""
    k = np.uint64(cell)
    return (k >> np.uint64(6)) * np.uint64(BLOCK) + (k & np.uint64(63))


@njit(inline="always")
def gap(state, cut, other):
    """Cells skipped before the next arrival, 0 ... TABLE - 1, and the generator's new state.

    They are geometric, drawn by the alias method: entry k < TABLE - 1 of the table stands for k
    cells skipped, the last entry for TABLE - 1 cells without an arrival, draw again.
    """
    y, state = bits(state)
    entry = y >> np.uint64(54)
    stay, alias = np.int64(entry), np.int64(other[entry])
    return stay if np.uint32(y & np.uint64(0xFFFFFFFF)) < cut[entry] else alias, state


@njit(inline="always")
def leap(at, state, cut, other):
    """The cell of the next arrival after cell ``at``, and the generator's new state."""
    at += 1
    while True:
        k, state = gap(state, cut, other)
        at += k
        if k < TABLE - 1:
            return at, state


@intrinsic
def widest(context):
    """Let loops use the widest vectors there are: LLVM holds back from 512 bits unless asked.

    The same numbers, as each cell's arithmetic keeps its order.
    """

    def code(context, builder, signature, args):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return void(), code


@njit(error_model="numpy")
def two_compartments(cells, first, last, p, hot, soma, dendrite, inhibited):
    """One step of every `TwoCompartment` neuron in the blocks first ... last - 1.

    ``inhibited`` None: nothing inhibits them, and what inhibition would do is not compiled.
    """
    widest()
    leak_s, leak_d, rest = p[0], p[1], p[2]
    adapt, plateau_s, plateau_d, restore, echo = p[3], p[4], p[5], p[6], p[7]
    fall_ws, rise_wd, fall_th, th_0 = p[8], p[9], p[10], p[11]
    half, steep, keep_e, keep_i = p[12], p[13], p[14], p[15]
    e_exc, e_inh, by_soma = p[16], p[17], p[18]
    for b in range(first, last):
        x, fired = cells[b * BLOCK : b * BLOCK + BLOCK], np.int32(0)
        for k in range(LANES):  # four loops: in one, a cell's wait for 2^y holds up the next
            y = (half - (x[V_D + k] + dendrite)) * steep * LOG2E
            x[BURST + k] = y if y < LIMIT else LIMIT  # a row that these cells leave free
            x[TH + k] += fall_th * (th_0 - x[TH + k])
        for k in range(LANES):
            x[BURST + k] = ONE + power_of_two(x[BURST + k])
        for k in range(LANES):
            v, d = x[V_S + k] + soma, x[V_D + k] + dendrite
            ge, he = x[GE_S + k], x[GE_D + k]
            w, left, f = x[W_D + k], x[TIMER + k], ONE / x[BURST + k]
            pull = d + by_soma * (v - d)
            back = echo if left > ZERO else ZERO
            up_s, up_d = rest - v + ge * (e_exc - v), rest - d + he * (e_exc - pull)
            if inhibited is not None:
                up_s = up_s + x[GI_S + k] * (e_inh - v)
                up_d = up_d + x[GI_D + k] * (e_inh - pull)
            new_v = v + leak_s * up_s + adapt * x[W_S + k] + plateau_s * f
            new_d = d + leak_d * up_d + restore * w + plateau_d * f + back
            x[V_S + k], x[V_D + k] = new_v, new_d
            x[W_S + k] = x[W_S + k] - fall_ws * x[W_S + k]
            x[W_D + k] = w + rise_wd * (new_d - rest - w)
            left = left - ONE
            x[TIMER + k] = left if left > ZERO else ZERO
            fired = np.int32(fired | np.int32(new_v > x[TH + k]))
        for k in range(LANES):  # the loop above fills all registers
            x[GE_S + k] *= keep_e
            x[GE_D + k] *= keep_e
        if inhibited is not None:
            for k in range(LANES):
                x[GI_S + k] *= keep_i
                x[GI_D + k] *= keep_i
        hot[b] = fired


@njit(error_model="numpy")
def burst_poisson(cells, first, last, p, hot, soma, dendrite):
    """One step of every `BurstPoisson` neuron: no coupling, a clock for the second spike."""
    widest()
    leak_s, leak_d, rest, adapt, restore = p[0], p[1], p[2], p[3], p[6]
    fall_ws, rise_wd, fall_th, th_0 = p[8], p[9], p[10], p[11]
    keep_e, keep_i, e_exc, e_inh, by_soma = p[14], p[15], p[16], p[17], p[18]
    for b in range(first, last):
        x, fired = cells[b * BLOCK : b * BLOCK + BLOCK], np.int32(0)
        for k in range(LANES):
            v, d = x[V_S + k] + soma, x[V_D + k] + dendrite
            ge, gi, he, hi = x[GE_S + k], x[GI_S + k], x[GE_D + k], x[GI_D + k]
            w, th = x[W_D + k], x[TH + k]
            pull = d + by_soma * (v - d)
            new_v = v + leak_s * (rest - v + ge * (e_exc - v) + gi * (e_inh - v))
            new_v = new_v + adapt * x[W_S + k]
            new_d = d + leak_d * (rest - d + he * (e_exc - pull) + hi * (e_inh - pull))
            new_d = new_d + restore * w
            th = th + fall_th * (th_0 - th)
            x[V_S + k], x[V_D + k], x[TH + k] = new_v, new_d, th
            x[W_S + k] = x[W_S + k] - fall_ws * x[W_S + k]
            x[W_D + k] = w + rise_wd * (new_d - rest - w)
            rest_left, to_second = x[TIMER + k] - ONE, x[BURST + k] - ONE
            rest_left = rest_left if rest_left > ZERO else ZERO
            x[TIMER + k], x[BURST + k] = rest_left, to_second if to_second > ZERO else ZERO
            ready = new_v if rest_left == ZERO else MINUS  # -1 V: below any threshold
            ready = ready if to_second != ONE else ONE  # 1 V: above it
            fired = np.int32(fired | np.int32(ready > th))
        for k in range(LANES):
            x[GE_S + k] *= keep_e
            x[GI_S + k] *= keep_i
            x[GE_D + k] *= keep_e
            x[GI_D + k] *= keep_i
        hot[b] = fired


@njit(error_model="numpy")
def adaptive_exponential(cells, first, last, p, hot, soma):
    """One step of every `AdaptiveExponential` neuron; e^x as (1 + x/256)^256, like the original."""
    widest()
    leak, rest, sharp, v_t, over_sharp = p[0], p[2], p[3], p[4], p[5]
    rise_w, a, low, high, held = p[6], p[7], p[8], p[9], p[10]
    reset, b_jump, keep_e, keep_i, e_exc, e_inh = p[11], p[12], p[14], p[15], p[16], p[17]
    pause, peak = p[19], p[20]
    for b in range(first, last):
        x, found = cells[b * BLOCK : b * BLOCK + BLOCK], np.int32(0)
        for k in range(LANES):
            y = ONE + (x[V_S + k] + soma - v_t) * over_sharp * ADEX_POWER
            y = y * y
            y = y * y
            y = y * y
            y = y * y
            y = y * y
            y = y * y
            y = y * y
            y = y * y
            x[BURST + k] = y
        for k in range(LANES):
            v, ge, gi, w = x[V_S + k] + soma, x[GE_S + k], x[GI_S + k], x[W_S + k]
            y, left = x[BURST + k], x[TIMER + k]
            up = rest - v + sharp * y + ge * (e_exc - v) + gi * (e_inh - v) - w
            new = v + leak * up
            new = new if new > low else low
            new = new if new < high else high
            new = held if left > ZERO else new
            fired = new > peak
            new = reset if fired else new
            w = w + b_jump if fired else w
            left = left - ONE if left > ONE else ZERO
            x[V_S + k], x[TIMER + k] = new, pause if fired else left
            x[W_S + k] = w + rise_w * (a * (new - rest) - w)
            x[GE_S + k], x[GI_S + k] = ge * keep_e, gi * keep_i
            x[BURST + k] = ONE if fired else ZERO
            found = np.int32(found | np.int32(fired))
        hot[b] = found


@njit(error_model="numpy")
def inject(cells, first, last, soma, dendrite):
    """Add the currents that differ from cell to cell, and those that do not (one of them is 0)."""
    for b in range(first, last):
        x = cells[b * BLOCK : b * BLOCK + BLOCK]
        for k in range(LANES):
            x[V_S + k] += x[I_S + k] + soma
            x[V_D + k] += x[I_D + k] + dendrite


@njit(error_model="numpy")
def fire(x, cell, q, kind, what, p, random):
    """A pyramidal cell's spike: reset, adaptation, threshold; draw the second spike of a burst."""
    if kind == TWO:
        x[V_S + cell], x[TIMER + cell] = p[21], p[19]
        x[TH + cell] += p[22]
        x[W_S + cell] += ONE
    elif kind == POISSON_BURST:
        x[TIMER + cell] = p[19]
        if what == 1:
            x[V_S + cell] = p[21]
            x[TH + cell] += p[22]
            x[W_S + cell] += ONE
            y, random[q] = bits(random[q])
            chance = np.float64(y >> np.uint64(11)) * 2.0**-53
            y = min((p[12] - x[V_D + cell]) * p[13] * LOG2E, LIMIT)
            if chance < 1.0 / (1.0 + power_of_two(y)):
                y, random[q] = bits(random[q])
                wait = p[23] + p[24] * np.float64(y >> np.uint64(11)) * 2.0**-53
                x[BURST + cell] = math.floor(wait)


@njit(error_model="numpy")
def spikes(cells, hot, first, last, n, q, kind, p, random, out):
    """Find who fired in the blocks first ... last - 1, let them, list them in ``out``.

    ``what`` a cell does: 0 nothing, 1 an event or a spike, 2 the second of a burst.
    """
    count = 0
    for b in range(first, last):
        if hot[b] == 0:
            continue
        x, behind = cells[b * BLOCK : b * BLOCK + BLOCK], (b - first) * LANES
        for k in range(min(LANES, n - behind)):  # the last block is filled up with silent cells
            what = 0
            if kind == ADEX:
                what = 1 if x[BURST + k] == ONE else 0
            elif x[V_S + k] > x[TH + k] and (kind == TWO or x[TIMER + k] == ZERO):
                what = 1
            elif kind == POISSON_BURST and x[BURST + k] == ONE:
                what = 2
            if what > 0:
                fire(x, k, q, kind, what, p, random)
                out[count] = behind + k
                count += 1
    return count


@njit(error_model="numpy")
def source(at, n, q, random, cut, other, out, pointer, stride):
    """Poisson cells: leap from spike to spike along the cells, step after step.

    As `leap` does, but three draws at a time, used or not: where spikes are rare, whether to draw
    again cannot be foreseen, and each wrong guess of the processor costs more than a draw.
    """
    count, state, last = 0, random[q], TABLE - 1
    while at < n:
        out[count] = at
        prefetch(pointer, at * stride)
        count, at, more = count + 1, at + 1, True
        while more:
            a, s_1 = gap(state, cut, other)
            b, s_2 = gap(s_1, cut, other)
            c, _ = gap(s_2, cut, other)
            second = a == last
            third = second & (b == last)
            at += a + second * b + third * c
            state += STRIDE * np.uint64(1 + second + third)
            more = third & (c == last)
    random[q] = state
    return count, at - n


@njit(error_model="numpy")
def label(cells, kinds, step, z, z_step, in_burst, clock, count):
    """What each new spike is to its own cell and to the synapses it reaches, as bits; count."""
    dt, tau, lag = clock[0], clock[1], clock[2]
    for k in range(len(cells)):
        cell = cells[k]
        ago = float(step - z_step[cell])
        now, found = z[cell] * math.exp(-ago * dt / tau), SPIKE
        if now < E_INV:
            found |= POST_EVENT
            in_burst[cell, 0] = 0
            count[1] += 1
        elif in_burst[cell, 0] == 0:
            found |= POST_BURST
            in_burst[cell, 0] = 1
            count[2] += 1
        if z[cell] * math.exp(-max(ago - lag, 1.0) * dt / tau) < E_INV:
            found |= PRE_EVENT
            in_burst[cell, 1] = 0
        elif in_burst[cell, 1] == 0:
            found |= PRE_BURST
            in_burst[cell, 1] = 1
        z[cell], z_step[cell], kinds[k] = now + 1.0, step, found
    count[0] += len(cells)


@njit(error_model="numpy")
def noises(cells, noise, noise_weight, random, first_random, size, block, cut, other):
    """Deliver every noise input: arrivals are found by leaps, as in `source`."""
    for i in range(noise.shape[0]):
        q, row, table, at = noise[i]
        n, weight, state = size[q], noise_weight[i], random[first_random + i]
        here = cells[block[q] * BLOCK + row : block[q + 1] * BLOCK]
        cut_i, other_i = cut[table], other[table]
        while at < n:
            here[place(at)] += weight
            at, state = leap(at, state, cut_i, other_i)
        noise[i, 3], random[first_random + i] = at - n, state


@njit(error_model="numpy")
def shorten(spiking, step, dt, short, u, x, u_step, amplitude):
    """Short-term plasticity: fix what each new spike will deliver, then use up and facilitate."""
    release, jump, tau_d, tau_f = short[0], short[1], short[2], short[3]
    for k in range(len(spiking)):
        j = spiking[k]
        ago = (step - u_step[j]) * dt
        u_now = release + (u[j] - release) * math.exp(-ago / tau_f)
        x_now = 1.0 - (1.0 - x[j]) * math.exp(-ago / tau_d)
        amplitude[k] = u_now * x_now
        x[j], u[j], u_step[j] = x_now - u_now * x_now, u_now + jump * (1.0 - u_now), step


@intrinsic
def prefetch(context, array, index):
    """Ask memory for the cache line of an array's entry, long before it is needed."""

    def code(context, builder, signature, args):
        view, i32 = context.make_array(array)(context, builder, args[0]), ir.IntType(32)
        at = builder.bitcast(builder.gep(view.data, [args[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), (at.type, i32, i32, i32))
        ask = builder.module.declare_intrinsic("llvm.prefetch", (at.type,), kind)
        builder.call(ask, [at, i32(0), i32(3), i32(1)])  # to read, to keep, data
        return context.get_dummy_value()

    return void(array, index), code


@njit(error_model="numpy")
def foretell(spiking, pointer, stride, target):
    """Have the targets of new spikes at hand when the spikes arrive, some steps later."""
    for k in range(len(spiking)):
        at = np.int64(spiking[k]) * stride
        i, end = np.int64(pointer[at]), np.int64(pointer[at + stride])
        while i < end:
            prefetch(target, i)
            i += 32  # two bytes each, 64 in a line


@njit(error_model="numpy")
def deliver(here, arriving, kinds, sent, sizes, weight, pointer, stride, target):
    """Add weight (times the spike's size where there is one) to the targets of arriving spikes."""
    for k in range(len(arriving)):
        if kinds[k] & sent:
            size = weight * sizes[k] if len(sizes) else weight
            at = np.int64(arriving[k]) * stride
            for i in range(pointer[at], pointer[at + 1]):
                here[place(target[i])] += size


@njit(error_model="numpy")
def send_and_lift(
    here, arriving, kinds, sent, pointer, target, w, out_place, trace, grow, on, rule, rates, scale
):
    """Deliver through learning synapses; lift those onto cells that fire too little; keep x_j."""
    eta, w_max, low = rule[0], np.float32(rule[2]), rule[3]
    base, bar = pointer[0], low / scale  # base: its first synapse, in target
    for k in range(len(arriving)):
        cell, lift = arriving[k], on and kinds[k] & PRE_EVENT > 0
        sends = kinds[k] & sent > 0
        for i in range(pointer[cell] - base, pointer[cell + 1] - base):
            post, k_w = target[base + i], out_place[i]
            if sends:
                here[place(post)] += w[k_w]
            if lift and rates[post] < bar:
                w[k_w] = min(w[k_w] + np.float32(eta * (low - rates[post] * scale)), w_max)
        if kinds[k] & PRE_EVENT:
            trace[cell] += grow


@njit(error_model="numpy")
def learn(fired, kinds, rule, e_sum, b_sum, over, now, w, trace, in_pointer, in_cell):
    """The burst rule at each postsynaptic event and burst, over the cell's incoming synapses."""
    eta, w_max, high = rule[0], np.float32(rule[2]), rule[4]
    for spike in range(len(fired)):
        if kinds[spike] & (POST_EVENT | POST_BURST) == 0:
            continue
        cell = fired[spike]
        rate = e_sum[cell] * over
        brake = (rate - high) / rate if rate > high else 0.0
        if kinds[spike] & POST_BURST:
            change = 1.0 - brake
        else:
            change = -brake - (min(1.0, b_sum[cell] / e_sum[cell]) if e_sum[cell] > 0 else 1.0)
        size = np.float32(eta * change) * now
        a, b = in_pointer[cell], in_pointer[cell + 1]
        own, pre_of = w[a:b], in_cell[a:b]
        for i in range(len(own)):
            new = own[i] + size * trace[pre_of[i]]
            new = new if new > ZERO else ZERO
            own[i] = new if new < w_max else w_max


@njit(error_model="numpy")
def average(fired, kinds, event_sum, burst_sum, spike_sum, grow, slow):
    """Add new events, bursts and spikes to their cells' moving averages."""
    for k in range(len(fired)):
        spike_sum[fired[k]] += slow
        if kinds[k] & POST_EVENT:
            event_sum[fired[k]] += grow
        elif kinds[k] & POST_BURST:
            burst_sum[fired[k]] += grow


@intrinsic
def lent(context, state):
    """The same arrays without their owners: each slice would count its users, a third of all time.

    Safe while the caller holds the state, as it does until `advance` returns.
    """

    def code(context, builder, signature, args):
        views = []
        for k, kind in enumerate(state.types):
            view = context.make_array(kind)(context, builder, builder.extract_value(args[0], k))
            view.meminfo = cgutils.get_null_value(view.meminfo.type)
            view.parent = cgutils.get_null_value(view.parent.type)
            views.append(view._getvalue())
        return context.make_tuple(builder, state, views)

    return state(state), code


@njit(cache=True, error_model="numpy")
def advance(state, start, steps):
    """Run ``steps`` steps from step number ``start``. Order within a step: membranes and spikes,
    connections in the order they were made, noise, averages; what arrives now acts next step."""
    widest()
    s = lent(state)
    cells, kind, first, block, size, factor = s.cells, s.kind, s.first, s.block, s.size, s.factor
    ring_count, ring_cell, ring_kind, link = s.ring_count, s.ring_cell, s.ring_kind, s.link
    drive, course, chance, random, hot = s.drive, s.course, s.chance, s.random, s.hot
    cut, other, z, z_step, in_burst, clock = s.cut, s.other, s.z, s.z_step, s.in_burst, s.clock
    count, shown, raster, raster_n, tau = s.count, s.shown, s.raster, s.raster_n, s.tau
    event_sum, burst_sum, spike_sum = s.event_sum, s.burst_sum, s.spike_sum
    noise, noise_weight, probe, seen = s.noise, s.noise_weight, s.probe, s.seen
    weight, lists, pointer, target = s.weight, s.lists, s.pointer, s.target
    rules, rule_first = s.rule, s.rule_first
    short, short_first, u, x, u_step, amplitude = (
        s.short, s.short_first, s.u, s.x, s.u_step, s.amplitude
    )  # fmt: skip
    w, trace, in_pointer, in_cell, out_place = s.w, s.trace, s.in_pointer, s.in_cell, s.out_place
    slots, populations, dt, base = ring_count.shape[0], len(kind), clock[0], s.base[0]
    no_sizes = amplitude[0, :0]
    for at in range(steps):
        step = start + at
        slot, since = step % slots, (step - base) * dt
        for q in range(populations):
            a, b, p, model = block[q], block[q + 1], factor[q], kind[q]
            out, to = ring_cell[slot, first[q] : first[q + 1]], pointer[lists[q, 0] :]
            if model == SOURCE:
                t, before = chance[q, 0], (slot + slots - 1) % slots
                n = ring_count[before, q]  # those of the step before: their pointers are at hand
                if lists[q, 1] > 0:
                    foretell(ring_cell[before, first[q] : first[q] + n], to, lists[q, 1], target)
                n, chance[q, 1] = source(
                    chance[q, 1], size[q], q, random, cut[t], other[t], out, to, lists[q, 1]
                )
                ring_kind[slot, first[q] : first[q] + n] = SPIKE | POST_EVENT | PRE_EVENT
                count[q, :2] += n
            else:
                soma, dendrite, wave_s, wave_d = p[25], p[26], drive[q, 0], drive[q, 1]
                if p[27] > ZERO or (wave_s >= 0 and soma != 0) or (wave_d >= 0 and dendrite != 0):
                    inject(cells, a, b, soma, dendrite)
                    soma, dendrite = ZERO, ZERO
                soma += course[wave_s, at] if wave_s >= 0 else ZERO
                dendrite += course[wave_d, at] if wave_d >= 0 else ZERO
                if model == TWO and s.inhibited[q]:
                    two_compartments(cells, a, b, p, hot, soma, dendrite, True)
                elif model == TWO:
                    two_compartments(cells, a, b, p, hot, soma, dendrite, None)
                elif model == POISSON_BURST:
                    burst_poisson(cells, a, b, p, hot, soma, dendrite)
                else:
                    adaptive_exponential(cells, a, b, p, hot, soma)
                n = spikes(cells, hot, a, b, size[q], q, model, p, random, out)
                if n > 0:
                    own = slice(first[q], first[q + 1])
                    label(out[:n], ring_kind[slot, own], step, z[own], z_step[own], in_burst[own],
                          clock, count[q])  # fmt: skip
                    if lists[q, 1] > 0:
                        foretell(out[:n], to, lists[q, 1], target)
            ring_count[slot, q] = n
            if shown[q] > 0:
                for k in range(n):
                    if out[k] < shown[q]:
                        if raster_n[0] < len(raster):
                            raster[raster_n[0], 0] = step
                            raster[raster_n[0], 1] = first[q] + out[k]
                            raster[raster_n[0], 2] = ring_kind[slot, first[q] + k]
                        raster_n[0] += 1
        for c in range(len(link)):
            pre, post, sent, delay, begin, stp, r, place_of, stride = link[c]
            arrive = (slot + slots - delay) % slots
            coming, new, fired = (
                ring_count[arrive, pre],
                ring_count[slot, pre],
                ring_count[slot, post],
            )
            if coming + new + fired == 0:
                continue
            a, b = first[pre], first[post]
            arriving, kinds = ring_cell[arrive, a : a + coming], ring_kind[arrive, a : a + coming]
            ends, here = pointer[begin:], cells[place_of:]
            if r < 0:
                sizes = no_sizes
                if stp >= 0:
                    e = short_first[stp]
                    if new > 0:
                        shorten(ring_cell[slot, a : a + new], step, dt, short[stp], u[e:], x[e:],
                                u_step[e:], amplitude[slot, e:])  # fmt: skip
                    sizes = amplitude[arrive, e:]
                deliver(here, arriving, kinds, sent, sizes, weight[c], ends, stride, target)
                continue
            rule, on, own = rules[r], rules[r, 6] > 0, trace[rule_first[r, 2] :]
            grow = math.exp(since / rule[1])
            if coming > 0:
                rates, scale = spike_sum, math.exp(-since / tau[post, 1]) / tau[post, 1]
                if rule[5] > 0:
                    rates, scale = event_sum, math.exp(-since / tau[post, 0]) / tau[post, 0]
                k = rule_first[r, 1]
                send_and_lift(here, arriving, kinds, sent, ends, target, w[k:], out_place[k:], own,
                              np.float32(grow), on, rule, rates[b:], scale)  # fmt: skip
            if on and fired > 0:
                over = math.exp(-since / tau[post, 0]) / tau[post, 0]
                learn(ring_cell[slot, b : b + fired], ring_kind[slot, b:], rule, event_sum[b:],
                      burst_sum[b:], over, np.float32(1 / grow), w, own,
                      in_pointer[rule_first[r, 3] :], in_cell)  # fmt: skip
        noises(cells, noise, noise_weight, random, populations, size, block, cut, other)
        for q in range(populations):
            n, a = ring_count[slot, q], first[q]
            if n > 0 and tau[q, 0] > 0:
                average(ring_cell[slot, a : a + n], ring_kind[slot, a:], event_sum[a:],
                        burst_sum[a:], spike_sum[a:], math.exp(since / tau[q, 0]),
                        math.exp(since / tau[q, 1]))  # fmt: skip
        for k in range(len(probe)):
            for row in range(5):
                seen[at, k, row] = cells[probe[k] + row * LANES]
