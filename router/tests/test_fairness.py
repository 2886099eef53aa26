"""Counters of what tenants were given."""

from __future__ import annotations

import pytest

from sluice_router import fairness
from sluice_router.fairness import FairShare


class Row:
    """Tenants that stand in a row, each with a place of its own."""

    def __init__(self) -> None:
        self.shares = FairShare()
        self.events = 0

    def enter(self, *tenants: str, weight: float = 1.0) -> None:
        for tenant in tenants:
            self.events += 1
            self.shares.enter(tenant, weight, (0.0, self.events), self.events)

    def serve(self, cost: float) -> str:
        tenant = self.shares.least()
        assert tenant is not None
        self.events += 1
        self.shares.charge(tenant, cost)
        return tenant


def test_the_least_served_goes_next_and_among_equals_who_is_due_first():
    row = Row()
    row.enter("a", "b", "c")

    assert [row.serve(cost) for cost in (5.0, 1.0, 3.0, 1.0, 9.0)] == ["a", "b", "c", "b", "b"]


def test_a_weight_is_how_much_more_a_tenant_gets():
    row = Row()
    row.enter("light")
    row.enter("heavy", weight=3.0)

    served = [row.serve(1.0) for _ in range(400)]

    assert served.count("heavy") == 300


def test_who_was_away_has_no_claim_to_what_it_did_not_ask_for():
    row = Row()
    row.enter("a", "b")
    for _ in range(10):
        row.serve(7.0)

    row.enter("newcomer")

    assert row.shares.served("newcomer") == row.shares.served("a") == 35.0


def test_who_goes_away_ahead_of_the_others_comes_back_ahead_of_them():
    row = Row()
    row.enter("a", "b")
    row.serve(100.0)
    row.shares.leave("a")

    row.enter("a")

    assert [row.serve(60.0) for _ in range(3)] == ["b", "b", "a"]


def test_a_credit_is_its_tenants_and_no_newcomers():
    """The lowest counter can fall, when an estimate was too high; where newcomers start does not."""
    row = Row()
    row.enter("a", "b")
    row.serve(50.0)
    row.serve(50.0)
    row.enter("c")
    row.shares.correct("a", -40.0, row.events)

    row.enter("d")

    assert row.shares.served("a") == 10.0
    assert row.shares.served("d") == 50.0


def test_a_request_that_cost_more_than_was_charged_is_paid_for_afterwards():
    row = Row()
    row.enter("a", "b")
    assert row.serve(10.0) == "a"

    row.shares.correct("a", 90.0, row.events)

    assert [row.serve(10.0) for _ in range(10)] == ["b"] * 10
    assert row.serve(10.0) == "a", "it is due first among equals"


def test_what_was_charged_before_an_account_was_opened_is_not_put_right_in_it():
    row = Row()
    long_ago = row.events
    row.enter("a")

    row.shares.correct("a", -500.0, long_ago)

    assert row.shares.served("a") == 0.0


def test_a_tenant_that_says_nothing_any_more_is_forgotten():
    row = Row()
    row.enter("busy", "brief")
    row.shares.leave("brief")
    assert row.serve(5.0) == "busy"
    row.enter("a")

    assert row.shares.served("brief") is None


def test_a_tenant_with_something_in_flight_is_remembered_until_it_is_put_right():
    row = Row()
    row.enter("brief", "busy")
    row.serve(1.0)
    charged_at = row.events
    row.shares.leave("brief")
    for number in range(50):
        row.serve(5.0)
        row.enter(f"other {number}")
    assert row.shares.served("other 49") == 5.0, "a newcomer starts ahead of it by now"
    row.shares.correct("brief", 1000.0, charged_at)

    row.enter("brief")

    assert row.shares.served("brief") == 1001.0


def test_memory_is_bounded_whoever_comes(monkeypatch):
    monkeypatch.setattr(fairness, "REMEMBERED", 100)
    row = Row()
    row.enter("busy")
    for number in range(5_000):
        row.enter(f"tenant {number}")
        row.serve(3.0)
        row.shares.leave(f"tenant {number}")

    assert len(row.shares) <= 102
    assert len(row.shares._heap) < 100


@pytest.mark.parametrize("weight", [0.1, 1.0, 7.0])
def test_the_sum_of_weights_is_that_of_who_waits(weight):
    row = Row()
    row.enter("a", "b", weight=weight)
    row.shares.leave("a")

    assert row.shares.weight == pytest.approx(weight)
    assert row.shares.weight_with("a", 2.0) == pytest.approx(weight + 2.0)
    assert row.shares.weight_with("b", weight) == pytest.approx(weight)
    row.shares.leave("b")
    assert row.shares.weight == 0.0
