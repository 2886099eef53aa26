"""Settlements that wait for Redis."""

from __future__ import annotations

from sluice_gateway.limits.journal import Journal

ALICE, BOB = ("{p}:alice", "{p}:alice:leases"), ("{p}:bob", "{p}:bob:leases")
MINUTE_US = 60_000_000


class Clock:
    now_us = 1_000_000

    def __call__(self) -> int:
        return self.now_us


def test_settlements_of_one_subject_are_added_up() -> None:
    journal = Journal(Clock(), 10)
    for number in range(3):
        assert journal.add(ALICE, -10, 100, 5, f"l{number}:0")
    journal.add(BOB, 1, 2, -1, None)
    batch = journal.batch()
    assert batch is not None
    assert batch.keys == (*ALICE, *BOB)
    assert batch.arguments == (1, -30, 300, 15, 3, "l0:0", "l1:0", "l2:0", 1, 2, -1, 0)


def test_a_batch_keeps_its_number_until_it_is_acknowledged() -> None:
    journal = Journal(Clock(), 10)
    journal.add(ALICE, 0, 1, -1, None)
    first = journal.batch()
    journal.add(ALICE, 0, 5, -1, None)
    assert journal.batch() == first
    assert first is not None
    journal.acknowledge(first)
    second = journal.batch()
    assert second is not None
    assert second.arguments == (2, 0, 5, -1, 0)
    journal.acknowledge(first)
    assert journal.batch() == second, "an acknowledgement of the first says nothing of the second"
    journal.acknowledge(second)
    assert journal.batch() is None
    assert len(journal) == 0


def test_after_an_outage_only_the_last_minute_counts_and_all_of_the_money() -> None:
    clock = Clock()
    journal = Journal(clock, 10)
    journal.draining = True
    for _ in range(100):
        journal.add(ALICE, 1_000_000, -3_000_000, 7, None)
        clock.now_us += MINUTE_US
    journal.add(ALICE, 1_000_000, -3_000_000, 7, None)
    clock.now_us += 400_000
    batch = journal.batch()
    assert batch is not None
    assert batch.arguments == (1, 600_000, -2_600_000, 707, 0)


def test_a_full_journal_says_so_and_leases_are_bounded() -> None:
    journal = Journal(Clock(), 1)
    assert journal.add(ALICE, 0, 0, 1, None)
    assert not journal.add(BOB, 0, 0, 1, None)
    for number in range(10_000):
        assert journal.add(ALICE, 0, 0, 0, f"l{number}:0")
    batch = journal.batch()
    assert batch is not None
    assert len(batch.arguments) < 5000
    assert batch.arguments[-1] == "l9999:0"
