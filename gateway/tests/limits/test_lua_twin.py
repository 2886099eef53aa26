"""`limits.lua` in a real Redis and `buckets.py` are one algorithm: the same sequence, the same answers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_gateway.identity import LimitValues
from sluice_gateway.limits.bounds import WINDOW_US, Bounds, bounds_of
from sluice_gateway.limits.buckets import DAY_US, Bucket, first_day, month_of, reserve
from sluice_gateway.limits.scripts import TEXT_SHA256, VERSION, KeyNames, LimitsScript

from .redis_server import RedisServer

CLOCK = 'local time = redis.call("TIME")'
BASE_US = 4_100_000_000 * 1_000_000
"""In the future, so that Redis expires nothing meanwhile."""
PREFIXES = itertools.count()

maybe = st.none() | st.integers(1, 8)
limits = st.builds(
    LimitValues,
    requests_per_min=maybe,
    tokens_per_min=st.none() | st.integers(1, 500),
    concurrent=maybe,
    budget_per_day=st.none() | st.floats(0.00001, 0.002),
    budget_per_month=st.none() | st.floats(0.00001, 0.004),
)
step = st.sampled_from(
    [0, 1, 999, 50_000, WINDOW_US // 7, WINDOW_US, 61 * WINDOW_US, DAY_US // 3, 40 * DAY_US]
)
moves = st.one_of(
    st.tuples(st.just("reserve"), step, st.integers(0, 300), st.integers(0, 900)),
    st.tuples(st.just("settle"), step, st.integers(0, 400), st.integers(0, 1200)),
)


class LuaLimits:
    """The script in Redis, told the time instead of reading it."""

    def __init__(self, client: redis.Redis) -> None:
        text = LimitsScript().text
        assert text.count(CLOCK) == 1
        self._script = LimitsScript(text.replace(CLOCK, "local time = {0, table.remove(ARGV)}"))
        self._client = client
        self._names = KeyNames(f"twin{next(PREFIXES)}")

    def keys(self, subject: int) -> tuple[str, str]:
        return self._names.subject("key", str(subject))

    def run(self, now: int, operation: str, keys: list[str], arguments: list[Any]) -> Any:
        short = self._script.evalsha(operation, keys, [*arguments, now])
        return self._client.execute_command(*self._script.eval(short))

    def marker(self) -> str:
        return self._names.marker("test")


@pytest.fixture(scope="module")
def client(shared_redis: RedisServer) -> Any:
    with redis.Redis.from_url(shared_redis.url) as found:
        yield found


@settings(max_examples=150)
@given(st.lists(limits, min_size=1, max_size=3), st.lists(moves, max_size=25))
def test_lua_and_python_decide_alike(client: redis.Redis, subjects: list[LimitValues], sequence: Any) -> None:
    """Answers, waits, and what is left, to the last microsecond; over days, months and expiring leases."""
    bounds = [found for values in subjects if (found := bounds_of(values)) is not None]
    lua, buckets = LuaLimits(client), [Bucket(found) for found in bounds]
    keys = [name for index in range(len(bounds)) for name in lua.keys(index)]
    now, running, numbers = BASE_US, [], itertools.count(1)
    lease_us = 2 * WINDOW_US
    for move, passed, tokens, money in sequence:
        now += passed
        if move == "reserve" and bounds:
            lease = f"l{next(numbers)}"
            asks = [(bucket, min(WINDOW_US, bucket.bounds.token_us(tokens))) for bucket in buckets]
            arguments: list[Any] = [lease, lease_us, money]
            for found, (_, token_us) in zip(bounds, asks, strict=True):
                arguments += [found.request_us, token_us, found.concurrent, found.day_cap, found.month_cap]
            allowed, at, index, dimension, wait_us, *used = lua.run(now, "reserve", keys, arguments)
            refusal = reserve(now, asks, money, lease, now + lease_us)
            assert at == now
            assert (allowed, index, dimension, wait_us) == (
                (1, 0, 0, 0) if refusal is None else (0, *refusal)
            )
            left = [max(0, tat - now) for bucket, _ in asks for tat in (bucket.request_tat, bucket.token_tat)]
            assert used == left
            if refusal is None:
                running.append((lease, money, [token_us for _, token_us in asks]))
        elif move == "settle" and running:
            lease, held, reserved = running.pop(tokens % len(running))
            arguments = [next(numbers)]
            for bucket, token_us in zip(buckets, reserved, strict=True):
                found = bucket.bounds
                request_us = -bucket.request_us if money % 3 == 0 else 0
                delta = found.token_us(tokens) - token_us
                spent = money if found.has_budget else -1
                members = [f"{lease}:{held if found.has_budget else 0}"] if found.leased else []
                arguments += [request_us, delta, spent, len(members), *members]
                bucket.settle(now, request_us, delta, lease, max(0, spent))
            assert lua.run(now, "settle", [lua.marker(), *keys], arguments) == 1


def test_a_batch_of_settlements_counts_once(client: redis.Redis) -> None:
    lua = LuaLimits(client)
    keys = [lua.marker(), *lua.keys(1)]
    assert lua.run(BASE_US, "settle", keys, [7, WINDOW_US // 2, 0, 500, 0]) == 1
    assert lua.run(BASE_US, "settle", keys, [7, WINDOW_US // 2, 0, 500, 0]) == 0
    assert lua.run(BASE_US, "settle", keys, [6, WINDOW_US // 2, 0, 500, 0]) == 0
    assert client.hmget(lua.keys(1)[0], "requests", "day_spent") == [
        str(BASE_US + WINDOW_US // 2).encode(),
        b"500",
    ]


def test_money_that_is_known_to_be_spent_counts_in_its_own_day_and_month(client: redis.Redis) -> None:
    lua, bucket = LuaLimits(client), Bucket(Bounds())
    today = BASE_US // DAY_US
    for day, on_day, in_month in (
        (today, 500, 900),
        (today, 400, 1000),
        (today - 1, 700, 1100),
        (0, 9000, 9000),
    ):
        lua.run(BASE_US, "restore", [lua.keys(1)[0]], [day, on_day, in_month])
        bucket.restore(BASE_US, day, on_day, in_month)
    assert client.hmget(lua.keys(1)[0], "day_spent", "month_spent") == [b"500", b"1100"]
    assert (bucket.day_spent, bucket.month_spent) == (500, 1100)


def test_a_heartbeat_puts_back_leases_that_redis_lost(client: redis.Redis) -> None:
    lua = LuaLimits(client)
    subject, leases = lua.keys(1)
    members = KeyNames("beats").members
    beat = ["me", 5_000_000, 60_000_000, 2, "me:1:300", "me:2:0"]
    assert lua.run(BASE_US, "beat", [members, leases, subject], beat) == 1
    assert lua.run(BASE_US + 1, "beat", [members, leases, subject], beat) == 1
    assert client.hget(subject, "held") == b"300", "counted once"
    assert client.zcard(leases) == 2
    other = ["you", 5_000_000, 60_000_000]
    assert lua.run(BASE_US + 2, "beat", [members], other) == 2
    assert lua.run(BASE_US + 5_000_002, "beat", [members], other) == 1, "a silent member is none"


def test_nothing_outlives_its_use(client: redis.Redis) -> None:
    """Every key expires: a subject that nobody asks for again leaves no trace."""
    lua = LuaLimits(client)
    now = client.time()[0] * 1_000_000
    lua.run(now, "reserve", list(lua.keys(1)), ["l", WINDOW_US, 5, 1000, 1000, 2, 100, 100])
    lua.run(now, "settle", [lua.marker(), *lua.keys(1)], [1, 0, 0, 5, 0])
    assert all(client.pttl(key) > 0 for key in (*lua.keys(1), lua.marker()))


@given(st.integers(0, 40_000))
def test_a_day_lies_in_its_month(day: int) -> None:
    assert first_day(month_of(day)) <= day < first_day(month_of(day) + 1)


def test_the_version_belongs_to_the_text() -> None:
    assert LimitsScript().digest == TEXT_SHA256, (
        "limits.lua has changed: in scripts.py raise VERSION (unless no release has it), and the digest"
    )
    assert f"-- sluice limits, version {VERSION}." in LimitsScript().text


def test_all_keys_of_a_call_share_a_slot(client: redis.Redis) -> None:
    names = KeyNames("prod")
    keys = [*names.subject("key", "a{b}"), *names.subject("model", "m"), names.members, names.marker("p")]
    assert all(key.startswith("{prod}:limits:1:") for key in keys)
