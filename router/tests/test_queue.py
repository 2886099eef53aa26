"""The waiting room by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice_router.queue import WaitingQueue

A, B, AB = frozenset("a"), frozenset("b"), frozenset("ab")


def queue_of(*entries: tuple[int, frozenset[str]]) -> WaitingQueue[str]:
    queue: WaitingQueue[str] = WaitingQueue()
    for at, (order, lane) in enumerate(entries):
        queue.push((float(order), 0), f"item {order}", lane, order % 2, deadline=float(at))
    return queue


def test_an_endpoint_gets_the_first_of_all_lanes_that_include_it():
    queue = queue_of((1, B), (2, AB), (3, A))

    assert queue.first_for("a") == "item 2"
    assert queue.first_for("b") == "item 1"
    assert queue.first_for("c") is None


def test_an_item_pushed_late_with_an_early_order_goes_to_the_front():
    queue = queue_of((5, A), (6, A), (2, A), (4, A))

    assert list(queue) == ["item 5", "item 2", "item 4", "item 6"], "shelf by shelf"
    assert queue.first_for("a") == "item 2"


def test_a_removed_item_leaves_nothing_behind():
    queue = queue_of((1, A), (2, A))

    for order in (1, 2, 2, 99):
        queue.remove((float(order), 0))

    assert len(queue) == 0
    assert not queue._shelves
    assert queue.next_deadline() is None


def test_a_moved_item_keeps_its_order_and_deadline():
    queue = queue_of((1, A), (2, B), (3, B))

    queue.move((1.0, 0), B)

    assert queue.first_for("a") is None
    assert queue.first_for("b") == "item 1"
    assert queue.next_deadline() == 0.0


def test_moving_within_one_lane_changes_nothing():
    queue = queue_of((1, A), (2, A))

    queue.move((1.0, 0), A)

    assert list(queue) == ["item 1", "item 2"]


def test_expired_lists_the_late_ones_earliest_first_and_keeps_them():
    queue = queue_of((3, A), (1, B), (2, A))

    assert queue.expired(1.0) == ["item 3", "item 1"]
    assert len(queue) == 3


def test_the_heads_are_the_first_of_every_shelf():
    queue = queue_of((1, A), (2, B), (3, AB), (4, A))

    assert {(lane, place[0]) for lane, place in queue.heads()} == {(A, 1), (A, 4), (B, 2), (AB, 3)}


def test_from_the_last_comes_the_least_urgent_class_first_and_what_is_as_urgent_never():
    queue: WaitingQueue[str] = WaitingQueue()
    for order, band in ((1, 0), (2, 2), (3, 1), (4, 2), (5, 2)):
        queue.push((float(order), 0), f"item {order}", B if order == 2 else A, band, deadline=0.0)

    assert list(queue.from_the_last(0)) == ["item 5", "item 4", "item 2", "item 3"]
    assert list(queue.from_the_last(1)) == ["item 5", "item 4", "item 2"]
    assert list(queue.from_the_last(2)) == []


@given(st.permutations(range(12)), st.lists(st.sampled_from([A, B, AB]), min_size=12, max_size=12))
def test_draining_an_endpoint_always_yields_ascending_orders(orders, lanes):
    queue = queue_of(*zip(orders, lanes, strict=True))

    drained = []
    while (item := queue.first_for("a")) is not None:
        drained.append(int(item.split()[1]))
        queue.remove((float(drained[-1]), 0))

    assert drained == sorted(o for o, lane in zip(orders, lanes, strict=True) if "a" in lane)
    assert len(queue) == sum(lane == B for lane in lanes)
