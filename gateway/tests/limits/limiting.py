"""Limiters as tests make them."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key, LimitValues
from sluice_gateway.limits.redis import RedisLimiter
from sluice_gateway.limits.redis_address import parse_address
from sluice_gateway.limits.settings import Limits
from sluice_gateway.limits.types import FREE, Demand, Lease, Limiter, Price
from sluice_router.types import Usage

from .redis_server import RedisServer

PATIENCE_S = 20.0
_PREFIXES = itertools.count()


def fresh_prefix() -> str:
    """Keys that no other test has."""
    return f"test{next(_PREFIXES)}"


def limits_of(**values: Any) -> Limits:
    """The section as a file would give it."""
    return msgspec.convert(values, Limits)


def key_with(name: str = "alice", **values: Any) -> Key:
    """A key with limits of its own."""
    return Key(id=name, limits=LimitValues(**values))


def demand(prompt: int = 10, output: int | None = 10, *, model: str = "m", price: Price = FREE) -> Demand:
    return Demand(model=model, prompt_tokens=prompt, max_tokens=output, price=price)


def used(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion)


async def admitted(limiter: Limiter, key: Key, wanted: Demand | None = None) -> Lease:
    """A reservation that has to succeed."""
    found = await limiter.reserve(key, wanted or demand())
    assert not isinstance(found, Problem), found
    return found


async def refusal(limiter: Limiter, key: Key, wanted: Demand | None = None) -> Problem:
    """A reservation that has to be refused."""
    found = await limiter.reserve(key, wanted or demand())
    assert isinstance(found, Problem)
    return found


def headers(found: Lease | Problem) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in found.headers}


@asynccontextmanager
async def redis_limiter(
    server: RedisServer,
    limits: Limits | None = None,
    *,
    prefix: str | None = None,
    timeout_s: float = 5.0,
) -> AsyncIterator[RedisLimiter]:
    """Started, and closed after the block. Patient: a loaded machine is no outage."""
    limiter = RedisLimiter(
        limits or Limits(),
        parse_address(server.url),
        lambda: time.time_ns() // 1000,
        timeout_s=timeout_s,
        prefix=prefix or fresh_prefix(),
        random=random.random,
    )
    await limiter.start()
    try:
        yield limiter
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await limiter.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fail the test if it never does."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
