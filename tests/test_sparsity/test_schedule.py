"""When masks change: counted in steps of the optimizer."""
import math

import pytest

from shiftwise_mm.sparsity import Schedule


def test_updates_come_every_interval_and_end():
    schedule = Schedule(3, 2, .3, 13)
    assert [s for s in range(30) if schedule.is_update(s)] == [3, 6, 9, 12]
    assert not Schedule(4, 1, .3, 12).is_update(12)
    assert [s for s in (3, 6, 9, 12) if schedule.is_common(s)] == [6, 12]
    assert all(Schedule(3, 1, .3, 13).is_common(s) for s in (3, 6, 9, 12))


def test_the_rate_falls_in_a_cosine_to_its_last():
    schedule = Schedule(1, 1, .3, 200)
    assert schedule.rate(0) == .3
    assert schedule.rate(100) == pytest.approx((.3 + .005) / 2)
    assert schedule.rate(50) == pytest.approx(
        .005 + .295 * math.cos(math.pi / 8)**2)
    assert schedule.rate(200) == pytest.approx(.005)
    assert schedule.rate(400) == pytest.approx(.005)
    rates = [schedule.rate(step) for step in range(201)]
    assert rates == sorted(rates, reverse=True)


def test_a_rate_below_the_last_stays():
    assert Schedule(1, 1, .002, 10).rate(3) == pytest.approx(.002)
    assert Schedule(1, 1, 0, 10).rate(3) == 0
