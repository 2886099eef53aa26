"""Redis frozen, killed, come back: no request hangs, limits hold as declared, and the counts settle."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import redis

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.limits.buckets import DAY_US
from sluice_gateway.limits.redis import RedisLimiter
from sluice_gateway.limits.scripts import KeyNames
from sluice_gateway.limits.types import Lease, Price, Spent

from .limiting import (
    admitted,
    demand,
    fresh_prefix,
    headers,
    key_with,
    limits_of,
    redis_limiter,
    refusal,
    until,
    used,
)
from .redis_server import RedisServer, free_port

quick_limiter = partial(redis_limiter, timeout_s=0.1)
PRICE = Price(output=1000.0)
"""0.001 a token."""


def stored(server: RedisServer, prefix: str, key: str) -> dict[str, int]:
    """A key's hash, and the number of its leases."""
    subject, leases = KeyNames(prefix).subject("key", key)
    with redis.Redis.from_url(server.url) as client:
        found = {name.decode(): int(value) for name, value in client.hgetall(subject).items()}
        return {**found, "leases": client.zcard(leases)}


async def lose_redis(server: RedisServer, limiter: RedisLimiter, key: Key) -> None:
    """Freeze it, and have one request find out."""
    server.freeze()
    found = await limiter.reserve(key, demand())
    if not isinstance(found, Problem):
        limiter.settle(found, None)
    assert limiter.counters.mode == "degraded"


async def test_a_frozen_redis_holds_nobody_up_and_counts_settle_when_it_is_back(
    own_redis: RedisServer,
) -> None:
    alice, prefix = (
        key_with(requests_per_min=1_000_000, concurrent=1000, budget_per_day=1000.0),
        fresh_prefix(),
    )
    limits = limits_of(when_redis_is_down={"budget": "local"})
    spent, slowest_s, modes = 0, 0.0, set()
    stop = asyncio.Event()

    async def client(limiter: RedisLimiter) -> None:
        nonlocal spent, slowest_s
        while not stop.is_set():
            started_s = time.monotonic()
            lease = await admitted(limiter, alice, demand(0, 5, price=PRICE))
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            modes.add(headers(lease).get("x-sluice-limits", "shared"))
            await asyncio.sleep(0.002)
            limiter.settle(lease, used(0, 3))
            spent += 3000

    async with quick_limiter(own_redis, limits, prefix=prefix) as limiter:
        clients = [asyncio.create_task(client(limiter)) for _ in range(16)]
        await until(lambda: spent > 100_000)
        own_redis.freeze()
        await until(lambda: limiter.counters.mode == "degraded")
        during = spent
        await until(lambda: spent > during + 100_000)
        own_redis.thaw()
        await until(lambda: limiter.counters.mode == "redis")
        after = spent
        await until(lambda: spent > after + 100_000)
        stop.set()
        await asyncio.gather(*clients)
        await until(lambda: limiter.unsettled == 0)
        assert limiter.in_use == 0
        assert slowest_s < 10, "nothing hangs"
        assert modes == {"shared", "local"}
        found = stored(own_redis, prefix, "alice")
        assert (found["day_spent"], found["leases"], found["held"]) == (spent, 0, 0)


async def test_a_killed_redis_that_comes_back_empty_learns_what_is_running(own_redis: RedisServer) -> None:
    alice, prefix = key_with(concurrent=3, budget_per_day=10.0), fresh_prefix()
    limits = limits_of(when_redis_is_down={"budget": "local"})
    async with quick_limiter(own_redis, limits, prefix=prefix) as limiter:
        long = await admitted(limiter, alice, demand(0, 1000, price=PRICE))
        own_redis.kill()
        await until(lambda: limiter.counters.mode == "degraded")
        begun = await admitted(limiter, alice, demand(0, 2000, price=PRICE))
        ended = await admitted(limiter, alice, demand(0, 4000, price=PRICE))
        limiter.settle(ended, used(0, 500))
        own_redis.start()
        await until(lambda: limiter.counters.mode == "redis" and limiter.unsettled == 0)
        found = stored(own_redis, prefix, "alice")
        assert found["leases"] == 2
        assert (found["held"], found["day_spent"]) == (3_000_000, 500_000)
        limiter.settle(long, used(0, 100))
        limiter.settle(begun, None)
        await until(lambda: limiter.unsettled == 0)
        found = stored(own_redis, prefix, "alice")
        assert (found["leases"], found["held"], found["day_spent"]) == (0, 0, 600_000)


async def test_a_redis_that_lost_its_money_is_told_again(own_redis: RedisServer) -> None:
    alice, prefix = key_with(budget_per_day=1.0), fresh_prefix()
    today = time.time_ns() // 1000 // DAY_US
    async with quick_limiter(own_redis, prefix=prefix) as limiter:
        limiter.restore([Spent(kind="key", name="alice", day=today, on_day=900_000, in_month=900_000)])
        own_redis.kill()
        await until(lambda: limiter.counters.mode == "degraded")
        own_redis.start()
        await until(lambda: limiter.counters.mode == "redis")
        await refusal(limiter, alice, demand(0, 200, price=PRICE))
        await admitted(limiter, alice, demand(0, 100, price=PRICE))


async def test_each_limit_holds_as_it_was_declared(own_redis: RedisServer) -> None:
    limits = limits_of(when_redis_is_down={"tokens": "open", "concurrent": "closed"})
    local, free, busy = (
        key_with("local", requests_per_min=2),
        key_with("free", tokens_per_min=10),
        key_with("busy", concurrent=5),
    )
    rich = key_with("rich", budget_per_day=5.0)
    async with quick_limiter(own_redis, limits) as limiter:
        await lose_redis(own_redis, limiter, local)
        assert headers(await admitted(limiter, local))["x-sluice-limits"] == "local"
        await admitted(limiter, local)
        over = await refusal(limiter, local)
        assert (over.status, headers(over)["x-sluice-limits"]) == (429, "local")
        for _ in range(3):
            assert headers(await admitted(limiter, free, demand(5, 5)))["x-sluice-limits"] == "open"
        for key, words in ((busy, "concurrent requests of key 'busy'"), (rich, "budget of key 'rich'")):
            closed = await refusal(limiter, key)
            assert (closed.status, headers(closed)["x-sluice-limits"]) == (503, "closed")
            assert f"The {words} cannot be checked" in closed.message
            assert closed.retry_after_s is not None
        await admitted(limiter, Key(id="nobody"))
        own_redis.thaw()


async def test_the_share_is_one_part_in_as_many_as_were_last_seen(own_redis: RedisServer) -> None:
    alice, prefix = key_with(requests_per_min=8, concurrent=9), fresh_prefix()
    async with (
        quick_limiter(own_redis, prefix=prefix),
        quick_limiter(own_redis, prefix=prefix),
        quick_limiter(own_redis, prefix=prefix),
        quick_limiter(own_redis, prefix=prefix) as last,
    ):
        own_redis.freeze()
        assert (await last.reserve(alice, demand())).headers
        assert headers(await admitted(last, alice))["x-ratelimit-remaining-requests"] == "0"
        refused = await refusal(last, alice)
        assert refused.retry_after_s is not None
        assert 25 < refused.retry_after_s < 31, "two a minute"
        own_redis.thaw()


async def test_a_reservation_without_an_answer_ends_when_redis_wakes_up(own_redis: RedisServer) -> None:
    """The frozen server finds it in its socket and makes it; nobody is left who would settle it."""
    alice, prefix = key_with(concurrent=5), fresh_prefix()
    async with quick_limiter(own_redis, prefix=prefix) as limiter:
        await lose_redis(own_redis, limiter, alice)
        own_redis.thaw()
        await until(lambda: limiter.counters.mode == "redis" and limiter.unsettled == 0)
        await until(lambda: stored(own_redis, prefix, "alice")["leases"] == 0)


async def test_a_batch_whose_answer_was_lost_counts_once(own_redis: RedisServer) -> None:
    alice, prefix = key_with(budget_per_day=100.0), fresh_prefix()
    async with quick_limiter(own_redis, prefix=prefix) as limiter:
        leases: list[Lease] = [await admitted(limiter, alice, demand(0, 10, price=PRICE)) for _ in range(20)]
        own_redis.freeze()
        for lease in leases:
            limiter.settle(lease, used(0, 10))
            await asyncio.sleep(0)
        await until(lambda: limiter.counters.mode == "degraded")
        own_redis.thaw()
        await until(lambda: limiter.counters.mode == "redis" and limiter.unsettled == 0)
        found = stored(own_redis, prefix, "alice")
        assert (found["day_spent"], found["held"], found["leases"]) == (200_000, 0, 0)


async def test_the_breaker_opens_on_errors_that_no_request_saw(own_redis: RedisServer) -> None:
    """A replica takes no writes: settlements fail, though nobody waits for them."""
    alice = key_with(requests_per_min=1000)
    async with quick_limiter(own_redis) as limiter:
        leases = [await admitted(limiter, alice) for _ in range(10)]
        with redis.Redis.from_url(own_redis.url) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", free_port())
            for lease in leases:
                limiter.settle(lease, used(1, 1))
                await asyncio.sleep(0.02)
            await until(lambda: limiter.counters.mode == "degraded")
            assert limiter.unsettled > 0
            client.execute_command("REPLICAOF", "NO", "ONE")
        await until(lambda: limiter.counters.mode == "redis" and limiter.unsettled == 0)


async def test_a_gateway_starts_and_stops_without_redis() -> None:
    class Nowhere(RedisServer):
        @property
        def url(self) -> str:
            return f"redis://127.0.0.1:{free_port()}/0"

    async with quick_limiter(Nowhere.__new__(Nowhere)) as limiter:
        assert limiter.counters.mode == "degraded"
        lease = await admitted(limiter, key_with(requests_per_min=10))
        limiter.settle(lease, None)
        assert limiter.counters.errors > 0
