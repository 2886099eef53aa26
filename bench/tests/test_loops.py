"""How many connections a load needs, known before it starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.loops import (
    MOST_WARM_CONNECTIONS,
    ClosedLoop,
    OpenLoop,
    SessionLoop,
    connections_needed,
    sessions_of,
)

S = 1_000_000_000


@pytest.mark.parametrize(
    ("loop", "requests", "needed"),
    [
        (ClosedLoop(8), 100, 8),
        (ClosedLoop(8), 3, 3),
        (SessionLoop(2, ((0, 1), (2,)), (0, 0, 0)), 3, 2),
        (OpenLoop((0, S, 2 * S, 3 * S)), 4, 2),  # one that is due when another ends takes its connection
        (OpenLoop((0, S, 2 * S, 3 * S)), 1, 1),
        (OpenLoop(()), 0, 0),
        (OpenLoop((0,) * 4000), 4000, MOST_WARM_CONNECTIONS),
    ],
)
def test_a_load_needs_what_is_in_flight_at_once(
    loop: ClosedLoop | SessionLoop | OpenLoop, requests: int, needed: int
) -> None:
    assert connections_needed(loop, requests, answer_s=2.0) == needed


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 20))
def test_of_an_open_loop_it_is_the_largest_crowd(dues: list[int], answer_ns: int) -> None:
    """The slow twin counts at every moment who is in flight."""
    offsets = tuple(sorted(dues))
    crowds = [sum(due <= now < due + answer_ns for due in offsets) for now in range(80)]
    assert connections_needed(OpenLoop(offsets), len(offsets), answer_ns / 1e9) == max(crowds)


def test_turns_find_their_conversation_and_orphans_begin_one() -> None:
    turns = [("a/0", None), ("b/0", None), ("a/1", "a/0"), ("c/3", "c/2"), ("b/1", "b/0"), ("c/4", "c/3")]
    assert sessions_of(turns) == ((0, 2), (1, 4), (3, 5))
    assert sessions_of([]) == ()
