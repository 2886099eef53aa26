"""A server that stands still for two seconds, seen by an open and by a closed loop."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.stats.omission import backfilled, omission, stalled_waits
from sluice_bench.stats.percentile import percentile_of

SERVICE_S = 0.05
STALL = (10.0, 12.0)


def closed_loop(users: int, until_s: float, stall: tuple[float, float] | None) -> list[float]:
    """What `users` see who ask again as soon as they have their answer."""
    waits = []
    for user in range(users):
        now = user * SERVICE_S / users
        while now < until_s:
            [wait] = stalled_waits([now], *stall, SERVICE_S) if stall else [SERVICE_S]
            waits.append(wait)
            now += wait
    return waits


def test_the_waits_of_a_stall() -> None:
    due = [1.0, 9.97, 10.0, 11.5, 12.0]
    assert stalled_waits(due, *STALL, SERVICE_S) == pytest.approx([0.05, 2.03, 2.05, 0.55, 0.05])


def test_a_closed_loop_omits_the_stall_and_is_warned_of_it() -> None:
    waits = closed_loop(4, 60.0, STALL)
    found = omission(waits, SERVICE_S)
    assert found.seen == pytest.approx(SERVICE_S)
    assert found.warns
    assert "--rate" in found.sentence() and "p99" in found.sentence()


def test_without_a_stall_there_is_no_warning() -> None:
    found = omission(closed_loop(4, 60.0, None), SERVICE_S)
    assert not found.warns and found.sentence() == ""


def test_filled_up_the_closed_loop_sees_what_the_open_loop_saw() -> None:
    closed = closed_loop(1, 60.0, STALL)
    open_ = stalled_waits([i * SERVICE_S for i in range(1200)], *STALL, SERVICE_S)
    for share in (0.97, 0.99, 0.999):
        corrected = omission(closed, SERVICE_S, share).corrected
        assert corrected == pytest.approx(percentile_of(open_, share), abs=1.1 * SERVICE_S)
    assert percentile_of(open_, 0.99) > 1


def test_ordinary_variation_is_no_reason_to_warn() -> None:
    source = Random(1)
    waits = [SERVICE_S * source.uniform(0.7, 1.3) for _ in range(2000)]
    assert not omission(waits, SERVICE_S).warns


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), st.integers(1, 9))
def test_each_missing_request_is_added_one_interval_later(waits: list[int], interval: int) -> None:
    expected = []
    for wait in waits:
        expected.append(wait)
        left = wait - interval
        while left > 0:
            expected.append(left)
            left -= interval
    assert backfilled(waits, interval) == expected


def test_an_interval_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        backfilled([1.0], 0.0)
    with pytest.raises(ValueError, match="nothing"):
        omission([], 1.0)
