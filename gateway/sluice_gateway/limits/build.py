"""Makes the limiter that the configuration asks for, and the clock that it counts minutes and days by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sluice_gateway.limits.memory import MemoryLimiter
from sluice_gateway.limits.redis import RedisLimiter
from sluice_gateway.limits.redis_address import parse_address
from sluice_gateway.limits.settings import Limits, Redis


def build_limiter(
    limits: Limits,
    redis: Redis | None,
    environment: Mapping[str, str],
    clock: Callable[[], int],
    random: Callable[[], float],
) -> MemoryLimiter | RedisLimiter:
    """In Redis when there is one, else in memory. Raises `ValueError` with a sentence for the user.

    `clock`: see `steady_clock`; `random` gives [0, 1).
    """
    if redis is None:
        return MemoryLimiter(limits, clock)
    return RedisLimiter(
        limits,
        parse_address(redis.url, _password(redis, environment)),
        clock,
        timeout_s=redis.timeout_ms / 1000,
        prefix=redis.prefix,
        random=random,
    )


def _password(redis: Redis, environment: Mapping[str, str]) -> str:
    if redis.password_env is None:
        return ""
    password = environment.get(redis.password_env)
    if not password:
        raise ValueError(f"redis.password_env names {redis.password_env}, which is not set.")
    return password


def steady_clock(monotonic: Callable[[], float], wall: Callable[[], float]) -> Callable[[], int]:
    """Microseconds since 1970 that never step: read off the wall once, then counted on."""
    offset_s = wall() - monotonic()
    return lambda: int((monotonic() + offset_s) * 1_000_000)
