"""lib.spikes.stp: by hand, against closed forms, and what each synapse makes of a burst."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lib.spikes import stp
from lib.spikes.stp import DEPRESSING, FACILITATING, ShortTerm

BOTH = pytest.mark.parametrize("synapse", [FACILITATING, DEPRESSING], ids=["stf", "std"])
JUMPS = pytest.mark.parametrize("jump", ["U", "f"])


def test_by_hand():
    """Two spikes 100 ms apart: e^-1 of what the first changed is left."""
    e = np.exp(-1.0)
    one = ShortTerm(tau_d=0.1, tau_f=0.1, release=0.5, facilitation=0.1)
    u, x = 0.5 + 0.25 * e, 1 - 0.5 * e  # after: u = 0.75, x = 0.5
    assert stp.transmit([0.0, 0.1], one) == pytest.approx([0.5, u * x])
    as_printed = replace(one, jump="f")
    u = 0.5 + 0.05 * e  # after: u = 0.5 + 0.1 . 0.5
    assert stp.transmit([0.0, 0.1], as_printed) == pytest.approx([0.5, u * x])


def test_a_start_fades():
    """u begins at 0.01 in the published simulator: U returns with tau_f."""
    found = stp.transmit([0.0, 100.0], DEPRESSING, start=0.01)
    assert found == pytest.approx([0.01, 0.9])
    assert stp.transmit([0.0], DEPRESSING) == pytest.approx([0.9])


@BOTH
@JUMPS
@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0])
def test_a_regular_train_settles_at_the_closed_form(synapse, jump, rate):
    synapse = replace(synapse, jump=jump)
    train = np.arange(int(20 * rate) + 20) / rate
    found = stp.transmit(train, synapse)[-1]
    assert found == pytest.approx(stp.steady_regular(synapse, rate), rel=1e-9)


@BOTH
@JUMPS
@pytest.mark.parametrize("rate", [2.0, 10.0, 40.0])
def test_a_poisson_train_settles_near_the_closed_form(synapse, jump, rate):
    synapse = replace(synapse, jump=jump)
    train = np.cumsum(np.random.default_rng(2).exponential(1 / rate, 60_000))
    found = stp.transmit(train, synapse)[200:].mean()
    law = stp.steady_poisson(synapse, rate)
    assert 0.94 * law < found < 1.01 * law  # resources are spent where release is high


def test_mean_release_under_poisson_is_exact():
    """With resources that are back at once (tau_d -> 0), u x is u."""
    quick = replace(FACILITATING, tau_d=1e-7)
    train = np.cumsum(np.random.default_rng(3).exponential(1 / 30, 200_000))
    found = stp.transmit(train, quick)[200:].mean()
    assert found == pytest.approx(stp.steady_poisson(quick, 30), rel=0.01)


@BOTH
def test_slow_trains_meet_a_rested_synapse(synapse):
    assert stp.steady_regular(synapse, 1e-3) == pytest.approx(synapse.release)
    assert stp.steady_poisson(synapse, 1e-6) == pytest.approx(synapse.release, rel=1e-5)


def test_what_a_burst_adds_to_an_event():
    """Facilitating: the second spike counts more than the first; depressing: less."""
    first, second = stp.pair(FACILITATING, 0.01)
    assert first == pytest.approx(0.02)
    assert second > 1.5 * first
    first, second = stp.pair(DEPRESSING, 0.01)
    assert first == pytest.approx(0.9)
    assert second == pytest.approx((0.9 + 0.09 * np.exp(-0.01)) * (1 - 0.9 * np.exp(-0.5)))
    assert second < 0.6 * first


def test_the_printed_jump_facilitates_more():
    assert replace(FACILITATING, jump="f").gain == 0.1
    assert FACILITATING.gain == 0.02
    printed = stp.pair(replace(FACILITATING, jump="f"), 0.01)[1]
    assert printed > 2 * stp.pair(FACILITATING, 0.01)[1]


@pytest.mark.parametrize("what", ["tau_d", "tau_f", "release", "facilitation"])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_bad_parameters(what, value):
    with pytest.raises(ValueError, match="expected"):
        replace(FACILITATING, **{what: value})


def test_bad_input():
    with pytest.raises(ValueError, match="jump 'U' or 'f'"):
        replace(FACILITATING, jump="J")
    with pytest.raises(ValueError, match="up to 1"):
        replace(FACILITATING, release=1.2)
    with pytest.raises(ValueError, match="ascending"):
        stp.transmit([0.2, 0.1], FACILITATING)
    with pytest.raises(ValueError, match="interval above 0"):
        stp.pair(FACILITATING, 0.0)
    for law in (stp.steady_regular, stp.steady_poisson):
        with pytest.raises(ValueError, match="rate above 0"):
            law(FACILITATING, 0.0)
