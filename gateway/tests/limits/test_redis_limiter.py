"""Limits shared through a real Redis, while it is well."""

from __future__ import annotations

import asyncio
import random

import pytest
import redis

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key, LimitValues
from sluice_gateway.limits.scripts import KeyNames
from sluice_gateway.limits.types import Price

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
from .redis_server import RedisServer, free_port, redis_server


async def test_two_processes_share_one_limit(shared_redis: RedisServer) -> None:
    alice, prefix = key_with(requests_per_min=3), fresh_prefix()
    async with (
        redis_limiter(shared_redis, prefix=prefix) as one,
        redis_limiter(shared_redis, prefix=prefix) as two,
    ):
        await admitted(one, alice)
        await admitted(two, alice)
        last = await admitted(one, alice)
        assert headers(last)["x-ratelimit-remaining-requests"] == "0"
        refused = await refusal(two, alice)
        assert (refused.status, refused.type, refused.code) == (429, "requests", "rate_limit_exceeded")
        assert refused.message.startswith("Rate limit reached for key 'alice': 3 requests per min.")
        assert refused.retry_after_s is not None
        assert 15 < refused.retry_after_s <= 20.01
        one.settle(last, None)
        await until(lambda: one.unsettled == 0)
        await admitted(two, alice)


async def test_a_refusal_by_one_subject_takes_nothing_from_the_others(shared_redis: RedisServer) -> None:
    limits = limits_of(models={"m": {"tokens_per_min": 100}})
    key = Key(
        id="k",
        limits=LimitValues(requests_per_min=10, concurrent=5),
        tenant_limits=LimitValues(tokens_per_min=10_000, budget_per_day=1.0),
    )
    price = Price(input=1.0, output=1.0)
    async with redis_limiter(shared_redis, limits) as limiter:
        first = await admitted(limiter, key, demand(50, 50, price=price))
        for _ in range(5):
            refused = await refusal(limiter, key, demand(50, 50, price=price))
            assert refused.type == "tokens"
            assert "model 'm': 100 tokens per min" in refused.message
        other = await admitted(limiter, key, demand(50, 50, model="other", price=price))
        shown = headers(other)
        assert shown["x-ratelimit-remaining-requests"] == "8"
        assert 9800 <= int(shown["x-ratelimit-remaining-tokens"]) <= 9810
        limiter.settle(first, None)
        limiter.settle(other, None)
        await until(lambda: limiter.unsettled == 0)


async def test_tokens_are_put_right_when_the_request_ends(shared_redis: RedisServer) -> None:
    alice = key_with(tokens_per_min=10_000)
    async with redis_limiter(shared_redis) as limiter:
        lease = await admitted(limiter, alice, demand(1000, 8000))
        assert (await refusal(limiter, alice, demand(1000, 8000))).type == "tokens"
        limiter.settle(lease, used(1000, 500))
        await until(lambda: limiter.unsettled == 0)
        again = await admitted(limiter, alice, demand(1000, 7000))
        assert 500 <= int(headers(again)["x-ratelimit-remaining-tokens"]) < 600
        limiter.settle(again, used(1000, 20_000))
        await until(lambda: limiter.unsettled == 0)
        refused = await refusal(limiter, alice, demand(1, 1))
        assert refused.retry_after_s is not None
        assert refused.retry_after_s > 60, "what was used beyond the limit has to be waited for"


async def test_a_budget_holds_what_running_requests_may_cost(shared_redis: RedisServer) -> None:
    alice = key_with(budget_per_day=1.0)
    price = Price(input=0.0, output=1000.0)  # 0.001 a token
    async with redis_limiter(shared_redis) as limiter:
        one = await admitted(limiter, alice, demand(0, 600, price=price))
        waiting = await refusal(limiter, alice, demand(0, 600, price=price))
        assert (waiting.type, waiting.code) == ("insufficient_quota", "insufficient_quota")
        assert waiting.retry_after_s == pytest.approx(1.0, abs=0.01)
        limiter.settle(one, used(0, 100))
        await until(lambda: limiter.unsettled == 0)
        two = await admitted(limiter, alice, demand(0, 900, price=price))
        limiter.settle(two, used(0, 900))
        await until(lambda: limiter.unsettled == 0)
        spent = await refusal(limiter, alice, demand(0, 1, price=price))
        assert "You exceeded the budget of key 'alice': 1 per day." in spent.message
        assert spent.retry_after_s is not None
        assert spent.retry_after_s <= 86_401
        assert headers(spent)["x-should-retry"] == "false"


async def test_a_cancelled_reservation_leaves_nothing_reserved(shared_redis: RedisServer) -> None:
    """Cancelled at any moment: before the answer, with it, after it."""
    alice, prefix = key_with(requests_per_min=1000, concurrent=1000, budget_per_day=5.0), fresh_prefix()
    price, random_ = Price(output=1.0), random.Random(1)
    async with redis_limiter(shared_redis, prefix=prefix) as limiter:

        async def one() -> None:
            lease = await admitted(limiter, alice, demand(price=price))
            try:
                await asyncio.sleep(0.001 * random_.random())
            finally:
                limiter.settle(lease, None)

        for _ in range(10):
            tasks = [asyncio.create_task(one()) for _ in range(30)]
            for task in tasks:
                asyncio.get_running_loop().call_later(0.003 * random_.random(), task.cancel)
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(found is None or isinstance(found, asyncio.CancelledError) for found in done)
        assert limiter.in_use == 0
        await until(lambda: limiter.unsettled == 0)
        last = await admitted(limiter, alice, demand(price=price))
        assert headers(last)["x-ratelimit-remaining-requests"] == "999"
    with redis.Redis.from_url(shared_redis.url) as client:
        subject, leases = KeyNames(prefix).subject("key", "alice")
        members = client.zrange(leases, 0, -1)
        assert len(members) == 1, "only the one that is still out"
        assert int(client.hget(subject, "held") or 0) == 10


async def test_a_script_that_redis_forgot_is_sent_again(shared_redis: RedisServer) -> None:
    alice = key_with(requests_per_min=10)
    async with redis_limiter(shared_redis) as limiter:
        with redis.Redis.from_url(shared_redis.url) as client:
            client.script_flush()
        lease = await admitted(limiter, alice)
        with redis.Redis.from_url(shared_redis.url) as client:
            client.script_flush()
        limiter.settle(lease, None)
        await until(lambda: limiter.unsettled == 0)
        assert headers(await admitted(limiter, alice))["x-ratelimit-remaining-requests"] == "9"
        assert limiter.counters.errors == 0
        assert limiter.counters.mode == "redis"


async def test_calls_of_one_turn_of_the_loop_leave_in_one_write(shared_redis: RedisServer) -> None:
    alice = key_with(requests_per_min=1000)
    async with redis_limiter(shared_redis) as limiter:
        with redis.Redis.from_url(shared_redis.url) as client:
            before = client.info("stats")["total_reads_processed"]
            await asyncio.gather(*(limiter.reserve(alice, demand()) for _ in range(200)))
            reads = client.info("stats")["total_reads_processed"] - before
        assert reads < 10


async def test_a_cluster_takes_all_subjects_in_one_call(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Cluster mode refuses a script whose keys lie in different slots."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis_server(tmp_path_factory.mktemp("cluster"), *options) as server:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
        limits = limits_of(models={"m": {"requests_per_min": 5}})
        key = Key(id="k", limits=LimitValues(concurrent=3), tenant_limits=LimitValues(requests_per_min=9))
        async with redis_limiter(server, limits) as limiter:
            lease = await admitted(limiter, key)
            assert limiter.counters.mode == "redis"
            limiter.settle(lease, None)
            await until(lambda: limiter.unsettled == 0)
            assert limiter.counters.errors == 0


async def test_the_gateways_own_bound_needs_no_redis(shared_redis: RedisServer) -> None:
    async with redis_limiter(shared_redis, limits_of(max_concurrent=1)) as limiter:
        first = await admitted(limiter, Key(id="free"))
        assert (await refusal(limiter, Key(id="free"))).code == "rate_limit_exceeded"
        limiter.settle(first, None)
        await admitted(limiter, Key(id="free"))


async def test_a_refused_request_does_not_count_as_running(shared_redis: RedisServer) -> None:
    alice = key_with(requests_per_min=1)
    async with redis_limiter(shared_redis) as limiter:
        found = [await limiter.reserve(alice, demand()) for _ in range(5)]
        assert sum(isinstance(one, Problem) for one in found) == 4
        assert limiter.in_use == 1
