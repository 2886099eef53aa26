"""A breaker by itself: in a row, half-open, and whose word counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_router.breaker import JITTER, Breaker, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def breaker(limit: int = 3, random: float = 0.5) -> Breaker:
    return Breaker(limit, 10.0, 60.0, lambda: random)


def opened(limit: int = 3) -> Breaker:
    made = breaker(limit)
    for _ in range(limit):
        made.fail(made.admit(), 0.0)
    return made


def test_failures_in_a_row_open_it():
    b = breaker()

    for _ in range(3):
        assert b.state is CLOSED
        b.fail(b.admit(), 0.0)

    assert b.state is OPEN
    assert not b.permits
    assert b.half_open_at == 10.0


def test_one_success_in_between_starts_the_count_again():
    b = breaker()

    for _ in range(10):
        b.fail(b.admit(), 0.0)
        b.fail(b.admit(), 0.0)
        b.succeed(b.admit())

    assert b.state is CLOSED


def test_what_says_nothing_of_the_endpoint_neither_counts_nor_forgives():
    b = breaker()
    b.fail(b.admit(), 0.0)
    b.fail(b.admit(), 0.0)

    for _ in range(10_000):
        b.dismiss(b.admit())
    assert b.state is CLOSED
    b.fail(b.admit(), 0.0)

    assert b.state is OPEN


def test_half_open_lets_one_probe_pass_and_its_success_closes():
    b = opened()
    assert not b.half_open(9.9)
    assert b.half_open(10.0)

    probe = b.admit()
    assert not b.permits, "one at a time"
    b.succeed(probe)

    assert b.state is CLOSED
    assert b.permits


def test_a_probe_that_fails_doubles_the_pause_up_to_the_bound():
    b, now, pauses = opened(), 10.0, []

    for _ in range(5):
        b.half_open(now)
        b.fail(b.admit(), now)
        pauses.append(b.half_open_at - now)
        now = b.half_open_at

    assert pauses == [20.0, 40.0, 60.0, 60.0, 60.0]


def test_a_success_makes_the_next_pause_short_again():
    b = opened()
    b.half_open(10.0)
    b.fail(b.admit(), 10.0)
    b.half_open(30.0)
    b.succeed(b.admit())

    for _ in range(3):
        b.fail(b.admit(), 40.0)

    assert b.half_open_at == 50.0


@pytest.mark.parametrize(("random", "pause_s"), [(0.0, 10 * (1 - JITTER)), (1.0, 10 * (1 + JITTER))])
def test_pauses_are_spread_by_the_jitter(random, pause_s):
    b = breaker(limit=1, random=random)

    b.fail(b.admit(), 0.0)

    assert b.half_open_at == pytest.approx(pause_s)


def test_a_probe_that_tells_nothing_hands_its_turn_on():
    b = opened()
    b.half_open(10.0)

    b.dismiss(b.admit())

    assert b.state is HALF_OPEN
    assert b.permits


def test_what_was_sent_before_it_opened_has_no_say():
    b = breaker()
    early = [b.admit() for _ in range(4)]
    for permit in early[:3]:
        b.fail(permit, 0.0)

    b.succeed(early[3])
    assert b.state is OPEN
    b.half_open(10.0)
    probe = b.admit()
    b.fail(early[3], 10.0)
    b.dismiss(early[3])
    assert b.state is HALF_OPEN
    assert not b.permits
    b.succeed(probe)

    assert b.state is CLOSED


def test_content_is_enough_of_a_probe_but_no_clean_record():
    b = opened()
    b.half_open(10.0)

    permit = b.answered(b.admit())
    assert b.state is CLOSED
    b.fail(permit, 11.0)
    b.fail(b.admit(), 11.0)
    b.fail(b.admit(), 11.0)

    assert b.half_open_at == 31.0, "the pause goes on growing"


def test_streams_that_die_after_their_first_content_open_it():
    b = breaker()

    for _ in range(3):
        b.fail(b.answered(b.admit()), 0.0)

    assert b.state is OPEN


def test_forced_open_it_stays_open_until_released():
    b = breaker()

    b.force(OPEN)

    assert not b.permits
    assert b.half_open_at is None
    assert not b.half_open(1e9)
    b.release()
    assert b.permits


def test_forced_closed_no_failure_opens_it():
    b = opened()

    b.force(CLOSED)
    for _ in range(100):
        b.fail(b.admit(), 0.0)

    assert b.state is CLOSED
    b.release()
    for _ in range(3):
        b.fail(b.admit(), 0.0)
    assert b.state is OPEN


def test_nobody_can_force_it_half_open():
    with pytest.raises(ValueError, match="open or closed"):
        breaker().force(HALF_OPEN)


def test_other_news_of_recovery_brings_the_probe_forward():
    b = opened()

    b.hasten(3.0)

    assert b.half_open(3.0)


Steps = st.lists(
    st.tuples(st.sampled_from(["admit", "succeed", "fail", "dismiss", "answered"]), st.integers(0, 20)),
    max_size=80,
)


@given(Steps)
def test_half_open_there_is_one_probe_at_a_time_and_closed_the_count_stays_below_the_limit(steps):
    b, now, running, probe = breaker(), 0.0, [], None

    for verb, which in steps:
        now += which
        b.half_open(now)
        if verb == "admit" and b.permits:
            running.append(b.admit())
            if b.state is HALF_OPEN:
                assert probe is None or probe not in running, "the one before has not ended"
                probe = running[-1]
        elif verb != "admit" and running:
            permit = running.pop(which % len(running))
            if verb == "answered":
                running.append(b.answered(permit))
            elif verb == "fail":
                b.fail(permit, now)
            else:
                getattr(b, verb)(permit)
        if b.state is not HALF_OPEN:
            probe = None
        assert b.permits == (b.state is CLOSED or (b.state is HALF_OPEN and probe not in running))
        assert b.failures < 3
        assert (b.state is OPEN) == (b.half_open_at is not None)
