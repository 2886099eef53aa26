"""Classes and lanes that wait for one endpoint."""

from __future__ import annotations

from collections import Counter

import pytest

from sluice_router.queue import WaitingQueue

INTERACTIVE, DEFAULT, BULK = 0, 1, 2
DEADLINES_S = (2.0, 10.0, 300.0)
A, AB = frozenset("a"), frozenset("ab")


class Room:
    """A queue before the endpoint `a`, which serves one request each second, all of the same cost."""

    def __init__(self) -> None:
        self.queue: WaitingQueue[tuple[str, tuple[float, int], frozenset[str], int]] = WaitingQueue()
        self.now, self.order = 0.0, 0

    def arrive(self, tenant: str, band: int, lane: frozenset[str] = A, number: int = 1) -> None:
        for _ in range(number):
            self.order += 1
            place = (self.now + DEADLINES_S[band], self.order)
            self.queue.push(place, (tenant, place, lane, band), lane, band, 1e9, tenant)

    def serve(self, number: int = 1, cost: float = 1.0) -> list[str]:
        served = []
        for _ in range(number):
            tenant, place, lane, band = self.queue.first_for("a", self.now)
            self.queue.remove(place)
            self.queue.charge("a", lane, band, tenant, cost)
            served.append(tenant)
            self.now += 1.0
        return served


def test_the_more_urgent_class_goes_first_while_a_newcomer_of_it_would_be_due_earlier():
    room = Room()
    room.arrive("d", DEFAULT)
    room.arrive("i", INTERACTIVE, number=20)

    assert room.serve(9) == ["i"] * 8 + ["d"]


def test_a_class_that_is_overrun_leaves_a_quarter_to_the_next_one():
    room = Room()
    room.arrive("d", DEFAULT, number=200)
    room.arrive("i", INTERACTIVE, number=200)
    room.now = 100.0

    assert Counter(room.serve(160)) == {"i": 120, "d": 40}


def test_all_three_share_by_nine_to_three_to_one():
    room = Room()
    for tenant, band in (("b", BULK), ("d", DEFAULT), ("i", INTERACTIVE)):
        room.arrive(tenant, band, number=200)
    room.now = 1000.0

    assert Counter(room.serve(130)) == {"i": 90, "d": 30, "b": 10}


def test_a_class_that_comes_back_has_no_claim_to_what_it_did_not_ask_for():
    room = Room()
    room.arrive("d", DEFAULT, number=100)
    room.now = 100.0
    room.serve(50)
    room.arrive("i", INTERACTIVE, number=40)

    assert Counter(room.serve(20)) == {"i": 15, "d": 5}


def test_parts_are_counted_in_cost():
    room = Room()
    room.arrive("d", DEFAULT, number=100)
    room.arrive("i", INTERACTIVE, number=100)
    room.now = 100.0
    served = Counter()
    for _ in range(100):
        tenant = room.queue.first_for("a", room.now)[0]
        room.serve(cost=10.0 if tenant == "d" else 1.0)
        served[tenant] += 1

    assert served["d"] in (3, 4), "30 for one of 1"


@pytest.mark.parametrize("others", [1, 3])
def test_lanes_share_an_endpoint_by_the_tenants_that_wait_in_them(others):
    """However long those in the other lane have waited, and however much."""
    room = Room()
    for other in range(others):
        room.arrive(f"other {other}", DEFAULT, AB, number=100)
    room.now = 5.0
    room.arrive("mine", DEFAULT, A, number=100)

    served = Counter(room.serve(80))

    assert served["mine"] == pytest.approx(80 / (others + 1), abs=2)


def test_who_waits_in_two_lanes_gets_no_second_part():
    room = Room()
    room.arrive("greedy", DEFAULT, AB, number=100)
    room.arrive("greedy", DEFAULT, A, number=100)
    room.arrive("modest", DEFAULT, A, number=100)

    assert Counter(room.serve(80))["modest"] == pytest.approx(40, abs=2)


def test_what_was_given_elsewhere_does_not_count_here():
    room = Room()
    room.arrive("one", DEFAULT, AB, number=10)
    room.arrive("two", DEFAULT, A, number=10)
    for _ in range(50):
        room.queue.charge("b", AB, DEFAULT, "one", 5.0)

    assert Counter(room.serve(8)) == {"one": 4, "two": 4}
