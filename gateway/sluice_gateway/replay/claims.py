"""Idempotency keys shared by several processes: who makes an answer, and the answer, in Redis.

A claim is a key set only if it is not there, for a short time that its holder renews while it works: a
process that dies frees it within `LEASE_S`. The finished answer takes the claim's place. Both changes happen
only where the claim is still the holder's own, in one script.

Redis down or slow: `take` says `None` and every process is on its own, until Redis is asked again a moment
later. So the promise "made once" holds within a process always, between processes while Redis is there. One
that does not follow a cluster's redirections counts as down.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from sluice_gateway.replay.answer import Answer

if TYPE_CHECKING:
    from redis.asyncio import Redis

LEASE_S = 10.0
"""How long a claim outlives its holder."""

_log = logging.getLogger("sluice")
_T = TypeVar("_T")
_PAUSE_S = 1.0

_SETTLE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""Version 1 of "replace or remove what is still mine": claim, answer or nothing, milliseconds."""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


class _Pending(msgspec.Struct, frozen=True, array_like=True, tag=True):
    digest: bytes
    token: bytes


class Finished(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The answer that another process, or an earlier run, has kept."""

    digest: bytes
    answer: Answer


class Busy(msgspec.Struct, frozen=True):
    """Another process is making the answer at this moment."""

    digest: bytes


_DECODER = msgspec.msgpack.Decoder(_Pending | Finished)


class Claim:
    """This process makes the answer. To be settled exactly once."""

    def __init__(self, claims: Claims, key: str, value: bytes) -> None:
        self._claims = claims
        self._key = key
        self._value = value
        self._renewing = asyncio.create_task(self._keep_renewing())

    async def settle(self, digest: bytes, answer: Answer | None) -> None:
        """Leave the answer for the others, or, without one, let them try themselves."""
        self._renewing.cancel()
        kept = b"" if answer is None else msgspec.msgpack.encode(Finished(digest, answer))
        await self._claims.settle(self._key, self._value, kept)

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self._claims.renew(self._key, self._value)


class Claims:
    """All processes' claims, as this one sees them."""

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str,
        ttl_s: float,
        timeout_s: float,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """`timeout_s` bounds each question; `clock` gives monotonic seconds."""
        self._redis = redis
        self._prefix = prefix
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self._timeout_s = timeout_s
        self._clock = clock
        self._random_bytes = random_bytes
        self._down_until_s = 0.0

    async def take(self, name: bytes, digest: bytes) -> Claim | Busy | Finished | None:
        """Claim a name for a request's digest. `None`: Redis cannot say."""
        key = f"{{{self._prefix}}}:idempotency:{hashlib.sha256(name).hexdigest()}"
        value = msgspec.msgpack.encode(_Pending(digest, self._random_bytes(16)))
        lease_ms = int(LEASE_S * 1000)
        for _ in range(2):
            if await self._ask(lambda: self._redis.set(key, value, nx=True, px=lease_ms)):
                return Claim(self, key, value)
            held = await self._ask(lambda: self._redis.get(key))
            if held is not None:
                return _read(held if isinstance(held, bytes) else held.encode())
            # Gone between the two questions, or Redis is down.
        return None

    async def settle(self, key: str, value: bytes, kept: bytes) -> None:
        """For `Claim`."""
        await self._ask(lambda: _awaited(self._redis.eval(_SETTLE, 1, key, value, kept, str(self._ttl_ms))))

    async def renew(self, key: str, value: bytes) -> None:
        """For `Claim`."""
        await self._ask(lambda: _awaited(self._redis.eval(_RENEW, 1, key, value, str(int(LEASE_S * 1000)))))

    async def aclose(self) -> None:
        """Close the connections."""
        with contextlib.suppress(Exception):
            await self._redis.aclose()

    async def _ask(self, question: Callable[[], Awaitable[_T]]) -> _T | None:
        """Redis' answer; `None` also when it is down, and then at once for a while."""
        from redis.exceptions import RedisError

        if self._clock() < self._down_until_s:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                return await question()
        except (RedisError, OSError, TimeoutError) as error:
            self._down_until_s = self._clock() + _PAUSE_S
            _log.warning("idempotency keys are not shared now: Redis: %s", type(error).__name__)
            return None


def _read(held: bytes) -> Busy | Finished | None:
    try:
        found = _DECODER.decode(held)
    except msgspec.DecodeError:
        return None  # another version's
    return found if isinstance(found, Finished) else Busy(found.digest)


async def _awaited(answer: Any) -> Any:
    """redis-py types one class for both of its worlds."""
    return await answer
