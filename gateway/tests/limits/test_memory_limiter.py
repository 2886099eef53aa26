"""Limits in one process: what a client may do, and what a refusal says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key, LimitValues
from sluice_gateway.limits.buckets import DAY_US
from sluice_gateway.limits.memory import MemoryLease, MemoryLimiter
from sluice_gateway.limits.money import cost_micro
from sluice_gateway.limits.refusals import LimitProblem
from sluice_gateway.limits.types import FREE, Lease, Price, Spent
from sluice_router.types import Usage

from .limiting import admitted, demand, headers, key_with, limits_of, refusal, used

NOON_US = 1_790_000_000_000_000 // 86_400_000_000 * 86_400_000_000 + 43_200_000_000
PRICE = Price(output=1000.0)
"""0.001 a token."""


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_us = NOON_US

    def __call__(self) -> int:
        return self.now_us

    def pass_s(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


def limiter_of(**values: Any) -> tuple[MemoryLimiter, Clock]:
    clock = Clock()
    return MemoryLimiter(limits_of(**values), clock), clock


async def test_a_minutes_worth_may_come_at_once_and_then_one_at_a_time() -> None:
    limiter, clock = limiter_of()
    alice = key_with(requests_per_min=60)
    for _ in range(60):
        limiter.settle(await admitted(limiter, alice), used(1, 1))
    refused = await refusal(limiter, alice)
    assert (refused.status, refused.type, refused.code) == (429, "requests", "rate_limit_exceeded")
    assert refused.message == ("Rate limit reached for key 'alice': 60 requests per min. Try again in 1s.")
    assert headers(refused)["x-ratelimit-remaining-requests"] == "0"
    clock.pass_s(1)
    await admitted(limiter, alice)
    await refusal(limiter, alice)


async def test_who_comes_back_when_told_is_served() -> None:
    limiter, clock = limiter_of()
    alice = key_with(requests_per_min=7, tokens_per_min=1000)
    for _ in range(50):
        found = await limiter.reserve(alice, demand(100, 133))
        if isinstance(found, Problem):
            assert found.retry_after_s is not None
            clock.pass_s(int(found.retry_after_s * 1000) / 1000)  # as `retry-after-ms` says it
            found = await limiter.reserve(alice, demand(100, 133))
        assert not isinstance(found, Problem)
        limiter.settle(found, used(100, 133))


async def test_failed_and_refused_requests_cost_nothing() -> None:
    limiter, _ = limiter_of(per_tenant={"requests_per_min": 100})
    alice = key_with(concurrent=1, requests_per_min=100, tokens_per_min=1000)
    running = await admitted(limiter, alice)
    for _ in range(30):
        await refusal(limiter, alice)
    limiter.settle(running, None)
    after = headers(await admitted(limiter, alice))
    assert after["x-ratelimit-remaining-requests"] == "99"
    assert after["x-ratelimit-remaining-tokens"] == "980"


async def test_the_tightest_subject_is_shown_and_the_slowest_is_named() -> None:
    limiter, _ = limiter_of(models={"m": {"requests_per_min": 2}})
    key = Key(
        id="k",
        tenant="research",
        limits=LimitValues(requests_per_min=100),
        tenant_limits=LimitValues(requests_per_min=3),
    )
    first = await admitted(limiter, key)
    assert headers(first)["x-ratelimit-limit-requests"] == "2"
    await admitted(limiter, key)
    assert "model 'm': 2 requests per min" in (await refusal(limiter, key)).message
    await admitted(limiter, key, demand(model="other"))
    assert (
        "tenant 'research': 3 requests per min"
        in (await refusal(limiter, key, demand(model="other"))).message
    )


async def test_keys_of_a_tenant_share_its_limits_and_not_their_own() -> None:
    limiter, _ = limiter_of(per_key={"requests_per_min": 5}, per_tenant={"requests_per_min": 7})
    a, b = Key(id="a", tenant="t"), Key(id="b", tenant="t")
    for key in (a, a, a, a, a, b, b):
        await admitted(limiter, key)
    assert "tenant 't'" in (await refusal(limiter, b)).message
    own = Key(id="c", tenant="u", limits=LimitValues(requests_per_min=1))
    await admitted(limiter, own)
    assert "key 'c': 1 requests" in (await refusal(limiter, own)).message


async def test_a_request_larger_than_a_limit_is_told_that_waiting_does_not_help() -> None:
    limiter, _ = limiter_of(default_output_tokens=5000)
    alice = key_with(tokens_per_min=1000)
    too_large = await refusal(limiter, alice, demand(600, 600))
    assert (too_large.status, too_large.code, too_large.param) == (400, "request_too_large", "max_tokens")
    assert too_large.retry_after_s is None
    assert "key 'alice'" in too_large.message
    assert "1200 tokens" in too_large.message
    guessed = await admitted(limiter, alice, demand(600, None))
    assert headers(guessed)["x-ratelimit-remaining-tokens"] == "0"
    limiter.settle(guessed, used(600, 10))
    assert headers(await admitted(limiter, alice, demand(1, 1)))["x-ratelimit-remaining-tokens"] == "388"
    rich = key_with("rich", budget_per_day=1.0)
    too_dear = await refusal(limiter, rich, demand(0, 2000, price=PRICE))
    assert (too_dear.status, too_dear.retry_after_s) == (400, None)
    assert "may cost 2, the budget is 1 per day" in too_dear.message


async def test_a_dollar_is_not_overspent_by_a_hundred_at_once() -> None:
    limiter, clock = limiter_of()
    alice = key_with(budget_per_day=1.0)
    running: list[Lease] = []
    for _ in range(100):
        found = await limiter.reserve(alice, demand(0, 30, price=PRICE))
        if not isinstance(found, Problem):
            running.append(found)
    assert len(running) == 33
    for lease in running:
        limiter.settle(lease, used(0, 30))
    spent = await refusal(limiter, alice, demand(0, 30, price=PRICE))
    assert (spent.status, spent.type, spent.code) == (429, "insufficient_quota", "insufficient_quota")
    assert "1 per day" in spent.message
    assert spent.retry_after_s == pytest.approx(43_200, abs=0.01)
    assert headers(spent)["x-should-retry"] == "false"
    clock.pass_s(43_200)
    await admitted(limiter, alice, demand(0, 30, price=PRICE))


async def test_a_month_goes_on_after_midnight() -> None:
    limiter, clock = limiter_of()
    alice = key_with(budget_per_month=1.0)
    limiter.settle(await admitted(limiter, alice, demand(0, 900, price=PRICE)), used(0, 900))
    clock.pass_s(86_400)
    assert "1 per month" in (await refusal(limiter, alice, demand(0, 900, price=PRICE))).message
    clock.pass_s(31 * 86_400)
    await admitted(limiter, alice, demand(0, 900, price=PRICE))


async def test_a_restart_does_not_make_money_new() -> None:
    limiter, clock = limiter_of()
    day = NOON_US // DAY_US
    alice, bob = key_with(budget_per_day=1.0), key_with("bob", budget_per_month=1.0)
    limiter.restore(
        [
            Spent(kind="key", name="alice", day=day, on_day=900_000, in_month=950_000),
            Spent(kind="key", name="bob", day=day, on_day=0, in_month=950_000),
        ]
    )
    for key in (alice, bob):
        assert (await refusal(limiter, key, demand(0, 200, price=PRICE))).type == "insufficient_quota"
    limiter.settle(await admitted(limiter, alice, demand(0, 100, price=PRICE)), None)
    clock.pass_s(86_400)
    await admitted(limiter, alice, demand(0, 900, price=PRICE))
    await refusal(limiter, bob, demand(0, 200, price=PRICE))


async def test_a_key_whose_limits_change_keeps_the_part_of_the_minute_it_used() -> None:
    limiter, _ = limiter_of()
    await admitted(limiter, key_with(requests_per_min=2, concurrent=9))
    doubled = headers(await admitted(limiter, key_with(requests_per_min=4, concurrent=9)))
    assert doubled["x-ratelimit-remaining-requests"] == "1"
    assert "2 concurrent" in (await refusal(limiter, key_with(concurrent=2))).message
    await admitted(limiter, key_with())


async def test_who_is_idle_is_forgotten_and_who_has_spent_is_not() -> None:
    limiter, clock = limiter_of(per_key={"requests_per_min": 60})
    spender = key_with("spender", budget_per_month=1.0)
    limiter.settle(await admitted(limiter, spender, demand(0, 900, price=PRICE)), used(0, 900))
    for number in range(20_000):
        limiter.settle(await admitted(limiter, Key(id=f"user{number}")), None)
        clock.pass_s(0.1)
    assert limiter.subjects < 5000
    assert limiter.in_use == 0
    await refusal(limiter, spender, demand(0, 900, price=PRICE))


async def test_both_families_read_the_same_state() -> None:
    limiter, _ = limiter_of()
    alice = key_with(requests_per_min=1)
    lease = await admitted(limiter, alice)
    refused = await refusal(limiter, alice)
    assert isinstance(refused, LimitProblem)
    assert refused.state == lease.state
    assert refused.state.requests is not None
    assert (refused.state.requests.limit, refused.state.requests.remaining) == (1, 0)
    assert refused.state.tokens is None


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(0, 5_000_000), st.integers(0, 400), st.integers(0, 400), st.booleans()
        ),
        max_size=60,
    )
)
async def test_no_sequence_passes_a_limit(moves: list[tuple[bool, int, int, int, bool]]) -> None:
    """Requests, tokens as they were really used, and money: never above what time has earned."""
    limiter, clock = limiter_of()
    alice = key_with(requests_per_min=30, tokens_per_min=1000, concurrent=4, budget_per_day=1.0)
    running: list[tuple[MemoryLease, int, int]] = []
    requests = spent = tokens = 0
    for begins, passed_us, prompt, output, fails in moves:
        clock.now_us += passed_us
        if begins:
            found = await limiter.reserve(alice, demand(prompt, output, price=PRICE))
            if isinstance(found, MemoryLease):
                running.append((found, prompt, output))
                requests, tokens = requests + 1, tokens + prompt + output
        elif running:
            lease, prompt, output = running.pop()
            completion = 0 if fails else output // 2
            limiter.settle(
                lease, None if fails else Usage(prompt_tokens=prompt, completion_tokens=completion)
            )
            tokens -= output - completion + (prompt if fails else 0)
            requests -= fails
            spent += completion * 1000
        earned = 1 + (clock.now_us - NOON_US) / 60_000_000
        assert len(running) <= 4
        assert requests <= 30 * earned + 0.01
        assert tokens <= 1000 * earned + 0.01
        assert spent + sum(output for *_, output in running) * 1000 <= 1_000_000
    for lease, *_ in running:
        limiter.settle(lease, None)
    assert limiter.in_use == 0


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.floats(0, 100), st.floats(0, 100))
async def test_money_is_rounded_up_and_never_by_a_whole_unit(
    prompt: int, output: int, price_in: float, price_out: float
) -> None:
    exact = prompt * price_in + output * price_out
    cost = cost_micro(Price(input=price_in, output=price_out), used(prompt, output))
    assert exact - 0.01 <= cost < exact + 1.01
    assert cost_micro(FREE, used(prompt, output)) == 0
