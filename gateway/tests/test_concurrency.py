from __future__ import annotations

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.limits.concurrency import ConcurrencyLimiter
from sluice_gateway.limits.types import Demand, Lease

ALICE, BOB = Key(id="alice"), Key(id="bob")
SMALL = Demand(model="m", prompt_tokens=1, max_tokens=None)


async def lease(limiter: ConcurrencyLimiter, key: Key) -> Lease:
    found = await limiter.reserve(key, SMALL)
    assert not isinstance(found, Problem)
    return found


async def test_a_key_at_its_limit_waits_and_others_do_not() -> None:
    limiter = ConcurrencyLimiter(10, 1)
    first = await lease(limiter, ALICE)
    refused = await limiter.reserve(ALICE, SMALL)
    assert isinstance(refused, Problem)
    assert (refused.status, refused.type, refused.code) == (429, "requests", "rate_limit_exceeded")
    assert refused.retry_after_s is not None
    await lease(limiter, BOB)
    limiter.settle(first, None)
    await lease(limiter, ALICE)


async def test_the_gateways_own_limit_holds_over_all_keys() -> None:
    limiter = ConcurrencyLimiter(1, None)
    first = await lease(limiter, ALICE)
    assert isinstance(await limiter.reserve(BOB, SMALL), Problem)
    limiter.settle(first, None)
    assert limiter.in_use == 0
    await lease(limiter, BOB)


async def test_a_refusal_leaves_no_trace() -> None:
    limiter = ConcurrencyLimiter(1, None)
    first = await lease(limiter, ALICE)
    for _ in range(5):
        await limiter.reserve(ALICE, SMALL)
    limiter.settle(first, None)
    assert limiter.in_use == 0
