"""The waiting room by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice_router import queue as queue_module
from sluice_router.queue import WaitingQueue

A, B, AB = frozenset("a"), frozenset("b"), frozenset("ab")
FOREVER = 1e9


def queue_of(*entries: tuple[int, frozenset[str]]) -> WaitingQueue[str]:
    queue: WaitingQueue[str] = WaitingQueue()
    for at, (order, lane) in enumerate(entries):
        queue.push((float(order), order), f"item {order}", lane, order % 2, until=float(at))
    return queue


def push(queue: WaitingQueue[str], name: str, order: int, **kwargs) -> None:
    given = {"lane": A, "band": 1, "until": FOREVER, "deadline": float(order), **kwargs}
    queue.push((given.pop("deadline"), order), name, **given)


def serve(queue: WaitingQueue[str], places: dict[str, tuple[float, int]], now: float = 0.0) -> str | None:
    item = queue.first_for("a", now)
    if item is not None:
        queue.remove(places[item])
    return item


# Whose turn it is


def test_an_endpoint_gets_the_first_of_all_lanes_that_include_it():
    queue = queue_of((1, B), (2, AB), (3, A))

    assert queue.first_for("a", 0.0) == "item 2"
    assert queue.first_for("b", 0.0) == "item 1"
    assert queue.first_for("c", 0.0) is None


def test_an_item_pushed_late_with_an_early_place_goes_to_the_front():
    queue = queue_of((5, A), (7, A), (3, A))

    assert queue.first_for("a", 0.0) == "item 3"


def test_an_item_that_waits_again_has_its_place_again():
    queue = queue_of((1, A), (3, A))

    for _ in range(3):
        queue.remove((1.0, 1))
        push(queue, "item 1", 1)

    assert queue.first_for("a", 0.0) == "item 1"
    assert len(queue) == 2


def test_a_moved_item_keeps_its_place_and_the_end_of_its_wait():
    queue = queue_of((1, A), (2, B), (3, B))

    queue.move((1.0, 1), B)

    assert queue.first_for("a", 0.0) is None
    assert queue.first_for("b", 0.0) == "item 1"
    assert queue.next_deadline() == 0.0


def test_an_item_that_moved_there_and_back_is_there_once():
    queue = queue_of((1, A), (3, A))

    for lane in (B, A, A, AB, A):
        queue.move((1.0, 1), lane)
    queue.remove((1.0, 1))

    assert queue.first_for("a", 0.0) == "item 3"
    assert len(queue._shelves) == len(queue) == 1


@given(st.permutations(range(12)), st.lists(st.sampled_from([A, B, AB]), min_size=12, max_size=12))
def test_one_tenants_requests_of_one_class_leave_a_lane_by_deadline(orders, lanes):
    queue: WaitingQueue[int] = WaitingQueue()
    for order, lane in zip(orders, lanes, strict=True):
        queue.push((float(order), order), order, lane, 1, FOREVER)

    drained = []
    while (item := queue.first_for("a", 0.0)) is not None:
        drained.append(item)
        queue.remove((float(item), item))
        queue.charge("a", lanes[orders.index(item)], 1, "", 1.0)

    for wanted in (A, AB):
        mine = [o for o, lane in zip(orders, lanes, strict=True) if lane == wanted]
        assert [o for o in drained if o in mine] == sorted(mine)
    assert len(queue) == sum(lane == B for lane in lanes)


# Room


def test_a_removed_item_leaves_nothing_behind():
    queue = queue_of((1, A), (2, A), (4, AB))
    queue.first_for("a", 0.0)

    for order in (1, 2, 2, 99, 4):
        queue.remove((float(order), order))

    assert len(queue) == 0
    assert queue.next_deadline() is None
    assert not any(getattr(queue, name) for name in ("_entries", "_shelves", "_turns", "_crowds", "_ends"))


def test_what_has_left_is_swept_out_of_a_queue_that_is_never_empty():
    queue: WaitingQueue[int] = WaitingQueue()
    for order in range(5_000):
        queue.push((float(-order), order), order, A, 1, FOREVER, f"tenant {order % 7}")
        if order >= 10:
            queue.remove((float(10 - order), order - 10))

    (shelf,) = queue._shelves.values()
    heaps = [queue._ends, shelf._all._heap, shelf.shares._heap, queue._crowds[1]._heap]
    heaps += [line._heap for line in shelf._lines.values()]
    assert len(queue) == 10
    assert max(len(heap) for heap in heaps) < 100


def test_endpoints_are_claimed_by_whoever_waits_for_them():
    queue = queue_of((1, A), (2, B), (4, AB))

    assert queue.claimed() == AB
    assert queue.claimed((1.0, 1)) == AB
    queue.remove((4.0, 4))
    assert queue.claimed((1.0, 1)) == B
    assert queue_of().claimed() == frozenset()


def test_rivals_are_those_who_wait_for_some_of_the_endpoints_in_the_same_class():
    queue: WaitingQueue[str] = WaitingQueue()
    push(queue, "one", 1, tenant="t", weight=2.0)
    push(queue, "two", 2, tenant="t", weight=2.0)
    push(queue, "three", 3, tenant="u", weight=0.5, lane=AB)
    push(queue, "four", 4, tenant="v", weight=8.0, band=2)

    assert queue.rivals(A, 1, "t", 2.0) == 2.5
    assert queue.rivals(A, 1, "new", 1.0) == 3.5
    assert queue.rivals(B, 1, "t", 2.0) == 2.5
    assert queue.rivals(B, 0, "t", 2.0) == 2.0


def test_expired_lists_the_late_ones_earliest_first_and_keeps_them():
    queue = queue_of((3, A), (1, B), (2, A))

    assert queue.expired(1.0) == queue.expired(1.0) == ["item 3", "item 1"]
    assert len(queue) == 3
    assert queue.next_deadline() == 0.0
    queue.remove((3.0, 3))
    assert queue.next_deadline() == 1.0


# Who gives way


def gives_way(queue: WaitingQueue[str], band: int, tenant: str = "new", weight: float = 1.0) -> list[str]:
    return list(queue.from_the_last(band, tenant, weight))


def test_the_least_urgent_give_way_first_and_of_them_the_newest():
    queue: WaitingQueue[str] = WaitingQueue()
    for order, band in ((1, 0), (2, 2), (3, 1), (4, 2), (5, 2)):
        push(queue, f"item {order}", order, lane=B if order == 2 else A, band=band, tenant="t")

    assert gives_way(queue, 0, "t") == ["item 5", "item 4", "item 2", "item 3"]
    assert gives_way(queue, 1, "t") == ["item 5", "item 4", "item 2"]
    assert gives_way(queue, 2, "t") == []


def test_in_a_full_class_whoever_holds_most_gives_way_to_who_holds_less():
    queue: WaitingQueue[str] = WaitingQueue()
    for order in range(4):
        push(queue, f"greedy {order}", order, tenant="greedy")
    push(queue, "modest", 4, tenant="modest")

    assert gives_way(queue, 1, "another") == ["greedy 3", "greedy 2", "greedy 1"]
    assert gives_way(queue, 1, "modest") == ["greedy 3", "greedy 2"]
    assert gives_way(queue, 1, "greedy") == []
    queue.remove((3.0, 3))
    queue.remove((2.0, 2))
    assert gives_way(queue, 1, "modest") == [], "it would hold as much as the greedy one"
    assert gives_way(queue, 1, "another") == ["greedy 1"]


def test_a_heavier_tenant_may_hold_more():
    queue: WaitingQueue[str] = WaitingQueue()
    for order in range(4):
        push(queue, f"heavy {order}", order, tenant="heavy", weight=4.0)
    push(queue, "light 4", 4, tenant="light")
    push(queue, "light 5", 5, tenant="light")

    assert gives_way(queue, 1, "new") == gives_way(queue, 1, "heavy", 4.0) == ["light 5"]
    assert gives_way(queue, 1, "light") == []


def test_who_waits_again_after_a_failure_is_not_the_newest():
    queue: WaitingQueue[str] = WaitingQueue()
    push(queue, "new", 2, band=2)
    push(queue, "retried", 1, band=2)

    assert gives_way(queue, 0) == ["new", "retried"]


# Several gateways


def test_what_one_gateway_gave_counts_in_another():
    here, there = WaitingQueue[str](shared=True), WaitingQueue[str](shared=True)
    for queue in (here, there):
        push(queue, "busy", 1, tenant="busy")
        push(queue, "quiet", 2, tenant="quiet")

    charge = here.charge("a", A, 1, "busy", 100.0)
    here.charge("b", B, 1, "busy", 5.0)
    there.apply_delta(here.export_delta())

    assert there.first_for("a", 0.0) == "quiet"
    here.settle(charge, 30.0)
    assert here.export_delta() == (("a", 1, "busy", -70.0),)
    assert here.export_delta() == there.export_delta() == (), "it is told once, and not passed on"


def test_a_delta_that_nobody_fetches_stays_small(monkeypatch):
    monkeypatch.setattr(queue_module, "UNSENT", 3)
    queue, lone = WaitingQueue[str](shared=True), WaitingQueue[str]()

    for number in range(10):
        queue.charge("a", A, 1, f"tenant {number % 5}", 1.0)
        lone.charge("a", A, 1, "tenant", 1.0)

    assert queue.export_delta() == tuple(("a", 1, f"tenant {n}", 2.0) for n in range(3))
    assert lone.export_delta() == ()
