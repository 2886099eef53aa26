"""Idempotency keys and cache as the configuration asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sluice_gateway.limits.redis_address import parse_address
from sluice_gateway.limits.settings import Redis
from sluice_gateway.replay.claims import Claims
from sluice_gateway.replay.replays import Replays
from sluice_gateway.replay.settings import CacheSettings, IdempotencySettings


def build_replays(
    idempotency: IdempotencySettings,
    cache: CacheSettings,
    redis: Redis | None,
    environment: Mapping[str, str],
    *,
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
    random_bytes: Callable[[int], bytes],
) -> Replays:
    """Shared through Redis when there is one. Connects on first use. `clock` is monotonic."""
    claims: Claims | None = None
    if redis is not None:
        claims = _claims(redis, environment, idempotency.ttl_s, clock, random_bytes)
    return Replays(idempotency, cache, clock=clock, wall_clock=wall_clock, claims=claims)


def _claims(
    redis: Redis,
    environment: Mapping[str, str],
    ttl_s: float,
    clock: Callable[[], float],
    random_bytes: Callable[[int], bytes],
) -> Claims:
    # Takes a while to import and some memory; without Redis nobody needs it.
    from redis.asyncio import Redis as Client

    timeout_s = redis.timeout_ms / 1000
    address = parse_address(redis.url, environment.get(redis.password_env or "", ""))
    where: dict[str, object] = {"host": address.host, "port": address.port, "ssl": address.tls}
    if address.path:
        where = {"unix_socket_path": address.path}
    client = Client(
        **where,  # type: ignore[arg-type]
        db=address.database,
        username=address.username or None,
        password=address.password or None,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
    )
    return Claims(
        client,
        prefix=redis.prefix,
        ttl_s=ttl_s,
        timeout_s=timeout_s,
        clock=clock,
        random_bytes=random_bytes,
    )
