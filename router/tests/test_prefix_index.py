"""The index claims what a naive one does, in a twentieth of the memory."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sluice_router import prefix_index
from sluice_router.prefix_index import GENERATIONS, BlockTable
from sluice_router.prefix_owners import OWNERS, PrefixOwners
from sluice_router.speculation import TTL_S, Speculation


class Naive:
    """Every beginning as a tuple, with the generation in which it was last used."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.used: dict[tuple[int, ...], int] = {}
        self.generation = 1

    def depth(self, chain: tuple[int, ...]) -> int:
        return max((n for n in range(1, len(chain) + 1) if chain[:n] in self.used), default=0)

    def insert(self, chain: tuple[int, ...], cap: int | None = None) -> None:
        limit = self.cap if cap is None else min(cap, self.cap)
        beginnings = [chain[:n] for n in range(1, min(len(chain), limit) + 1)]
        newest = [g for g in self.used.values() if g == self.generation]
        if newest and len(newest) + len(beginnings) > limit // GENERATIONS:
            self.generation += 1
        old = {b: g for b, g in self.used.items() if b not in beginnings}
        while len(old) + len(beginnings) > limit and old:
            oldest = min(old.values())
            old = {b: g for b, g in old.items() if g != oldest}
        self.used = {**old, **dict.fromkeys(beginnings, self.generation)}


def numbers(path: list[int]) -> tuple[int, ...]:
    """A chain for a path: equal as far as the paths are."""
    return tuple(Random(str(path[: n + 1])).getrandbits(64) for n in range(len(path)))


PATHS = st.lists(st.integers(0, 2), max_size=12).map(numbers)


class IndexMachine(RuleBasedStateMachine):
    @initialize(cap=st.integers(1, 40), room=st.integers(1, 40))
    def start(self, cap: int, room: int) -> None:
        self.table, self.naive = BlockTable(cap, room), Naive(cap)
        self.seen: set[tuple[int, ...]] = set()

    @rule(chain=PATHS)
    def use(self, chain: tuple[int, ...]) -> None:
        self.table.insert(chain)
        self.naive.insert(chain)
        self.seen.add(chain)

    @rule(chain=PATHS, cap=st.integers(1, 60))
    def use_with_a_lower_cap(self, chain: tuple[int, ...], cap: int) -> None:
        self.table.insert(chain, cap)
        self.naive.insert(chain, cap)
        self.seen.add(chain)

    @rule()
    def forget_all(self) -> None:
        self.table.clear()
        self.naive = Naive(self.naive.cap)

    @rule(chain=PATHS)
    def claims_what_the_naive_one_does(self, chain: tuple[int, ...]) -> None:
        assert self.table.depth(chain) == self.naive.depth(chain)

    @invariant()
    def knows_what_the_naive_one_does_and_never_more_than_the_cap(self) -> None:
        if hasattr(self, "table"):
            assert self.table.blocks == len(self.naive.used) <= self.table.cap
            for chain in self.seen:
                assert self.table.depth(chain) == self.naive.depth(chain)


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def chains(count: int, length: int, seed: int = 0) -> list[tuple[int, ...]]:
    random = Random(seed)
    return [tuple(random.getrandbits(64) for _ in range(length)) for _ in range(count)]


def test_a_large_index_stays_below_its_cap_and_finds_what_it_has():
    table = BlockTable(2000)
    used = chains(400, 16)
    for chain in used:
        table.insert(chain)
        assert table.blocks <= 2000

    depths = [table.depth(chain) for chain in used]
    assert all(depth in (0, 16) for depth in depths)
    assert depths[-100:] == [16] * 100, "what was used last"
    assert table.blocks == sum(depths) > 2000 * (1 - 1 / GENERATIONS) - 16


def test_what_is_used_again_is_kept():
    table = BlockTable(200)
    system, *others = chains(300, 10)
    for other in others:
        table.insert(system + other)
        assert table.depth(system) == 10
    assert table.depth(system + others[0]) == 10
    assert table.depth(system + others[-1]) == 20


def test_of_a_chain_beyond_the_cap_the_beginning_is_kept():
    table = BlockTable(10)
    (long,) = chains(1, 100)
    table.insert(long)
    assert table.depth(long) == table.blocks == 10


def test_a_block_of_a_full_table_takes_twenty_bytes_and_of_a_growing_one_twice_that():
    table, used = BlockTable(4096), chains(400, 16)
    for number, chain in enumerate(used, start=1):
        table.insert(chain)
        assert table.depth(chain) == 16
        assert table.size_bytes / table.blocks < 42 or table.blocks < 128
        if number * 16 <= 4096:
            assert [table.depth(chain) for chain in used[:number]] == [16] * number

    assert table.size_bytes / 4096 < 20.1
    assert table.blocks > 0.85 * 4096


def test_the_numbers_of_generations_come_to_an_end_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefix_index, "_LAST_GENERATION", 5)
    table = BlockTable(64)
    for chain in chains(200, 8):
        table.insert(chain)
        assert table.depth(chain) == 8
        assert table.blocks <= 64


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60))
def test_owners_are_the_last_four_different_ones(notes):
    owners = PrefixOwners()
    expected: dict[int, list[int]] = {}
    for block, endpoint in notes:
        owners.note(block, endpoint)
        before = [e for e in expected.get(block, []) if e != endpoint]
        expected[block] = [endpoint, *before][:OWNERS]
    for block in range(6):
        assert list(owners.of(block)) == expected.get(block, [])
    deepest = max((b for b in range(6) if b in expected), default=None)
    assert list(owners.find(range(6))) == expected.get(deepest, [])


def test_owners_are_bounded_and_the_last_used_are_kept():
    owners = PrefixOwners(limit=10)
    for block in range(1000):
        owners.note(block, 7)
        owners.note(1_000_000, 8)
        assert len(owners) <= 20
    assert owners.of(1_000_000) == (8,)
    assert owners.of(999) == (7,)
    assert owners.of(0) == ()


def test_what_was_sent_is_known_at_once_and_forgotten_after_a_while():
    speculation = Speculation(blocks=100)
    (chain,) = chains(1, 8)
    speculation.note(chain, 17, 0.0)

    assert speculation.depth(chain[:5], 17, TTL_S / 2) == 5
    assert speculation.depth((*chain, 3), 17, TTL_S) == 8
    assert speculation.depth(chain, 18, 0.0) == 0, "another endpoint"
    assert speculation.depth(chain, 17, 2 * TTL_S) == 0
    assert speculation.depth((), 17, 0.0) == 0


def test_what_was_sent_again_lives_longer_and_all_is_bounded():
    speculation = Speculation(blocks=100)
    often, *others = chains(500, 10)
    now = 0.0
    for other in others:
        now += 0.1
        speculation.note(often, 1, now)
        speculation.note(other, 1, now)
        assert speculation.depth(often, 1, now) == speculation.depth(other, 1, now) == 10
        assert speculation._table.blocks <= 100
    assert speculation.depth(often, 1, now + 3 * TTL_S) == 0
