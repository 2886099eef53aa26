"""However the failures come, retries stay a share of the requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice_router.budget import RetryBudget


def test_in_quiet_times_a_few_retries_are_free():
    budget = RetryBudget(ratio=0.2, floor=3.0, window_s=10.0)

    assert [budget.withdraw(0.0) for _ in range(4)] == [True, True, True, False]


def test_when_everything_fails_one_request_in_five_is_retried():
    budget = RetryBudget(ratio=0.2, floor=3.0, window_s=10.0)

    granted = 0
    for i in range(10_000):
        budget.note_request(i * 0.001)
        granted += budget.withdraw(i * 0.001)

    assert 2000 <= granted <= 2000 + 3 * 2


def test_the_past_is_forgotten():
    budget = RetryBudget(ratio=0.2, floor=0.0, window_s=10.0)
    for _ in range(1000):
        budget.note_request(0.0)
    assert budget.withdraw(0.0)

    assert not budget.withdraw(1000.0)


def test_a_budget_of_nothing_grants_nothing():
    budget = RetryBudget(ratio=0.0, floor=0.0, window_s=10.0)
    budget.note_request(0.0)

    assert not budget.withdraw(0.0)


@given(
    ratio=st.floats(0.0, 1.0),
    floor=st.floats(0.0, 10.0),
    steps=st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 20), st.integers(0, 20)), max_size=60),
)
def test_the_bound_that_the_module_promises_holds(ratio, floor, steps):
    budget, now, requests, granted = RetryBudget(ratio, floor, 10.0), 0.0, 0, 0

    for elapsed_s, arriving, failing in steps:
        now += elapsed_s
        for _ in range(arriving):
            budget.note_request(now)
        requests += arriving
        granted += sum(budget.withdraw(now) for _ in range(failing))

        assert granted <= ratio * requests + floor * (1.0 + now / 10.0) + 1e-6
