"""What an endpoint holds, and what its engine says of it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sluice_router.types import EngineLoad
from sluice_router.work_ledger import LEAST_SHARE, Lease, WorkLedger

TTL_S = 10.0


def ledger_with(*leases: Lease) -> WorkLedger:
    ledger = WorkLedger(TTL_S)
    for lease in leases:
        ledger.take(lease)
    return ledger


def lease(new: int = 100, output: int = 50, at: float = 0.0) -> Lease:
    return Lease(new, output, new + 2 * output, at)


def test_a_lease_holds_its_prompt_until_the_first_token_and_its_room_until_the_end():
    one = lease()
    ledger = ledger_with(one, lease(new=30))
    assert (ledger.new_tokens_queued(0.0), ledger.kv_tokens(0.0), ledger.running(0.0)) == (130, 230, 2)

    ledger.first_token(one)
    assert (ledger.new_tokens_queued(0.0), ledger.kv_tokens(0.0), ledger.running(0.0)) == (30, 230, 2)

    ledger.give_back(one)
    assert (ledger.new_tokens_queued(0.0), ledger.kv_tokens(0.0), ledger.running(0.0)) == (30, 80, 1)
    assert ledger.work == 130


def test_giving_back_twice_gives_back_once():
    one = lease()
    ledger = ledger_with(one, lease())
    for _ in range(3):
        ledger.first_token(one)
        ledger.give_back(one)

    assert (ledger.leases, ledger.new_tokens_queued(0.0), ledger.kv_tokens(0.0)) == (1, 100, 150)


def test_a_newcomer_is_told_what_was_there_before_it():
    second = lease(new=7)
    ledger_with(lease(new=100), second)

    assert (second.ahead_tokens, second.batch) == (100, 1)


def test_an_unseen_first_token_counts_as_come_when_it_was_due():
    ledger = WorkLedger(TTL_S)
    ledger.take(lease(new=10, at=0.0), due_s=2.0)
    ledger.take(lease(new=5, at=0.0), due_s=1.0)

    assert [ledger.new_tokens_queued(now) for now in (0.0, 1.0, 1.9, 2.0)] == [15, 10, 10, 0]


# The traps: each of them is a bug of a router that is in use.


def test_a_missing_gauge_is_unknown_and_never_zero():
    ledger = ledger_with(lease())
    ledger.record(EngineLoad(kv_used_ratio=0.9, kv_capacity_tokens=1000, max_running=4), 1.0)
    assert ledger.kv_used_ratio(1.0) == 0.9

    ledger.record(EngineLoad(running=1), 2.0)

    assert ledger.kv_used_ratio(2.0) is None
    assert ledger.kv_capacity_tokens() is None
    assert ledger.max_running(2.0) is None
    assert ledger.kv_tokens(2.0) == 150, "the ledger's own count goes on"


def test_a_ratio_without_a_capacity_is_still_a_ratio():
    ledger = ledger_with(lease())
    ledger.record(EngineLoad(kv_used_ratio=0.7), 1.0)

    assert ledger.kv_used_ratio(1.0) == 0.7
    assert ledger.kv_used_ratio(1.0 + TTL_S + 0.1) is None


def test_what_was_placed_since_the_reading_comes_on_top_of_it():
    """Else a herd goes to whoever looked empty half a second ago."""
    ledger = ledger_with()
    ledger.record(
        EngineLoad(
            running=3, waiting=0, waiting_uncached_tokens=40, kv_used_ratio=0.5, kv_capacity_tokens=1000
        ),
        0.0,
    )
    mine = lease(new=100, output=50, at=0.1)
    ledger.take(mine)
    assert (ledger.new_tokens_queued(0.1), ledger.running(0.1), ledger.kv_tokens(0.1)) == (140, 4, 650)

    ledger.first_token(mine)
    ledger.give_back(mine)
    assert (ledger.new_tokens_queued(0.2), ledger.running(0.2), ledger.kv_tokens(0.2)) == (40, 3, 500)


def test_a_reading_that_came_before_the_requests_does_not_hide_them():
    """`max(ledger, reading)`: a late page that says empty does not make a full engine look empty."""
    ledger = ledger_with(lease(), lease())
    ledger.record(
        EngineLoad(running=0, waiting_uncached_tokens=0, kv_used_ratio=0.0, kv_capacity_tokens=9999), 0.5
    )

    assert (ledger.new_tokens_queued(0.5), ledger.running(0.5), ledger.kv_tokens(0.5)) == (200, 2, 300)


def test_requests_of_others_that_wait_in_the_engine_are_taken_to_be_like_ours():
    ledger = ledger_with(*(lease(new=100) for _ in range(60)))
    ledger.record(EngineLoad(waiting=62), 0.0)

    assert ledger.new_tokens_queued(0.0) == pytest.approx(60 * 100 + 2 * 100, abs=2)


def test_a_reading_grows_old_and_the_ledger_goes_on_alone():
    ledger = ledger_with(lease())
    ledger.record(EngineLoad(running=50, waiting=9, kv_used_ratio=0.99, kv_capacity_tokens=1000), 0.0)
    late = TTL_S + 0.01

    assert (ledger.running(late), ledger.new_tokens_queued(late)) == (1, 100)
    assert ledger.kv_used_ratio(late) == 0.15, "the size of a cache does not grow old"


def test_prompts_that_share_a_prefix_are_counted_as_the_engine_counts_them_after_three_readings():
    leases = [lease(new=1000, output=0) for _ in range(10)]
    ledger = ledger_with(*leases)
    for one in leases:
        ledger.first_token(one)
    reading = EngineLoad(kv_used_ratio=0.2, kv_capacity_tokens=10_000)

    counted = []
    for at in (1.0, 1.5, 2.0):
        ledger.record(reading, at)
        counted.append(ledger.kv_tokens(at))

    assert counted == [10_000, 10_000, 2000]


def test_readings_that_come_with_every_answer_do_not_count_three_times():
    leases = [lease(new=1000, output=0) for _ in range(10)]
    ledger = ledger_with(*leases)
    for one in leases:
        ledger.first_token(one)
    for number in range(50):
        ledger.record(EngineLoad(kv_used_ratio=0.2, kv_capacity_tokens=10_000), 1.0 + number / 1000)

    assert ledger.shared == 1.0


def test_one_odd_reading_between_others_changes_nothing():
    leases = [lease(new=1000, output=0) for _ in range(10)]
    ledger = ledger_with(*leases)
    for one in leases:
        ledger.first_token(one)
    for number, used in enumerate([0.2, 0.2, 0.99, 0.2, 0.2, 1.0]):
        ledger.record(EngineLoad(kv_used_ratio=used, kv_capacity_tokens=10_000), float(number))

    assert ledger.shared == 1.0


def test_prompts_that_still_wait_inside_the_engine_are_not_taken_for_shared():
    leases = [lease(new=1000, output=0) for _ in range(10)]
    ledger = ledger_with(*leases)
    ledger.first_token(leases[0])
    for at in range(5):
        ledger.record(EngineLoad(kv_used_ratio=0.1, kv_capacity_tokens=10_000), float(at))

    assert ledger.kv_tokens(5.0) == 10_000


def test_the_share_is_never_nothing_and_never_more_than_was_counted():
    leases = [lease(new=1000, output=0) for _ in range(5)]
    ledger = ledger_with(*leases)
    for one in leases:
        ledger.first_token(one)
    for at in range(4):
        ledger.record(EngineLoad(kv_used_ratio=0.0, kv_capacity_tokens=10_000), float(at))
    assert ledger.shared == LEAST_SHARE

    for at in range(4, 8):
        ledger.record(EngineLoad(kv_used_ratio=1.0, kv_capacity_tokens=10_000), float(at))
    assert ledger.shared == 1.0


@pytest.mark.parametrize(
    ("before", "after", "restarted"),
    [
        (EngineLoad(generation_tokens=100), EngineLoad(generation_tokens=101), False),
        (EngineLoad(generation_tokens=100), EngineLoad(generation_tokens=3), True),
        (EngineLoad(prompt_tokens=100), EngineLoad(prompt_tokens=0), True),
        (EngineLoad(ttft_count=9), EngineLoad(ttft_count=1), True),
        (EngineLoad(preemptions=9), EngineLoad(preemptions=1), True),
        (EngineLoad(generation_tokens=100), EngineLoad(), False),
        (EngineLoad(), EngineLoad(generation_tokens=0), False),
        (EngineLoad(running=9, waiting=9), EngineLoad(running=0, waiting=0), False),
    ],
)
def test_counters_that_fall_mean_a_new_engine(before, after, restarted):
    ledger = ledger_with()
    assert not ledger.record(before, 0.0)

    assert ledger.record(after, 1.0) is restarted


class LedgerMachine(RuleBasedStateMachine):
    """In any order, every sum is what adding up the open leases gives."""

    leases = Bundle("leases")

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.ledger = WorkLedger(TTL_S)
        self.open: dict[Lease, bool] = {}
        self.due: dict[Lease, float] = {}

    @rule(
        target=leases,
        new=st.integers(0, 5000),
        output=st.integers(0, 500),
        due=st.none() | st.floats(0.0, 5.0),
    )
    def take(self, new: int, output: int, due: float | None) -> Lease:
        self.pass_by()
        made = lease(new, output, self.now)
        self.ledger.take(made, due)
        self.open[made] = True
        if due is not None:
            self.due[made] = self.now + due
        return made

    @rule(one=leases)
    def first_token(self, one: Lease) -> None:
        self.ledger.first_token(one)
        if one in self.open:
            self.open[one] = False

    @rule(one=leases)
    def give_back(self, one: Lease) -> None:
        self.ledger.give_back(one)
        self.open.pop(one, None)

    @rule(seconds=st.floats(0.0, 3.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    def pass_by(self) -> None:
        for one, at in self.due.items():
            if at <= self.now and one in self.open:
                self.open[one] = False

    @invariant()
    def sums_are_the_sums(self) -> None:
        self.pass_by()
        assert self.ledger.new_tokens_queued(self.now) == sum(
            x.new_tokens for x, queued in self.open.items() if queued
        )
        assert self.ledger.kv_tokens(self.now) == sum(x.new_tokens + x.output_tokens for x in self.open)
        assert self.ledger.work == sum(x.work for x in self.open)
        assert self.ledger.leases == self.ledger.running(self.now) == len(self.open)

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for one in list(self.open):
            self.ledger.give_back(one)
        assert (self.ledger.leases, self.ledger.work, self.ledger.kv_tokens(self.now)) == (0, 0, 0)
        assert not self.ledger._due


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
