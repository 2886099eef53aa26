"""An engine without metrics, whose answers slow down when too many are sent."""

from __future__ import annotations

import pytest

from sluice_router.concurrency_limit import SAMPLES, ConcurrencyLimit


def feed(
    limit: ConcurrencyLimit,
    now: float,
    *,
    in_flight: int,
    ttft_s: float,
    itl_s: float = 0.01,
    tokens: int = 200,
):
    """One period of answers."""
    for _ in range(SAMPLES):
        limit.note_ttft(tokens, ttft_s)
        limit.note_itl(itl_s)
        limit.update(in_flight, now)


def test_it_begins_at_what_is_configured_and_stays_there_while_nothing_slows_down():
    limit = ConcurrencyLimit(64)
    assert limit.limit == 64
    for period in range(100):
        feed(limit, 2.0 * period, in_flight=64, ttft_s=0.5)

    assert limit.limit == 64


def test_it_falls_where_first_tokens_take_longer_and_rises_again_with_them():
    limit = ConcurrencyLimit(64)
    for period in range(20):
        feed(limit, 2.0 * period, in_flight=64, ttft_s=0.3)
    for period in range(20, 30):
        feed(limit, 2.0 * period, in_flight=limit.limit, ttft_s=6.0)
    low = limit.limit
    assert low < 40

    for period in range(30, 80):
        feed(limit, 2.0 * period, in_flight=limit.limit, ttft_s=0.3)
    assert limit.limit > low + 15


def test_it_falls_where_tokens_come_slower():
    limit = ConcurrencyLimit(64)
    for period in range(20):
        feed(limit, 2.0 * period, in_flight=64, ttft_s=0.1, itl_s=0.03)
    for period in range(20, 30):
        feed(limit, 2.0 * period, in_flight=limit.limit, ttft_s=0.1, itl_s=0.4)

    assert limit.limit < 40


def test_longer_prompts_are_no_congestion():
    limit = ConcurrencyLimit(64)
    for period in range(20):
        feed(limit, 2.0 * period, in_flight=64, ttft_s=0.3, tokens=1000)
    for period in range(20, 40):
        feed(limit, 2.0 * period, in_flight=64, ttft_s=3.0, tokens=10_000)

    assert limit.limit == 64


@pytest.mark.parametrize(
    ("before", "after", "in_flight"),
    [(0.001, 0.05, 64), (0.3, 6.0, 20)],
    ids=["what nobody feels", "with half of it unused"],
)
def test_it_is_left_alone(before, after, in_flight):
    limit = ConcurrencyLimit(64)
    for period in range(20):
        feed(limit, 2.0 * period, in_flight=in_flight, ttft_s=before)
    for period in range(20, 40):
        feed(limit, 2.0 * period, in_flight=in_flight, ttft_s=after)

    assert limit.limit == 64


def test_it_never_goes_below_one():
    limit, ttft_s = ConcurrencyLimit(2), 0.3
    for period in range(200):
        feed(limit, 2.0 * period, in_flight=2, ttft_s=ttft_s)
        ttft_s *= 1.5

    assert 1 <= limit.limit <= 2


def test_it_moves_once_a_period_and_not_with_every_answer():
    limit = ConcurrencyLimit(64)
    for period in range(20):
        feed(limit, 2.0 * period, in_flight=64, ttft_s=0.3)
    for _ in range(50):
        feed(limit, 38.5, in_flight=64, ttft_s=6.0)

    assert limit.limit == 64
