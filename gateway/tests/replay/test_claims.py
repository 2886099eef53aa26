"""Idempotency keys between processes, against a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from redis.asyncio import Redis

from sluice_gateway.errors import Problem
from sluice_gateway.limits.settings import Redis as Config
from sluice_gateway.replay import claims as claims_module
from sluice_gateway.replay.build import build_replays
from sluice_gateway.replay.claims import Claims
from sluice_gateway.replay.replays import Replays
from sluice_gateway.replay.settings import CacheSettings, IdempotencySettings

from ..limits.redis_server import RedisServer, redis_server
from .clients import Client, Engine, named

_numbers = itertools.count()
StartProcess = Callable[..., Replays]


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def start(redis: RedisServer) -> AsyncIterator[StartProcess]:
    """Parts of another gateway process, with the same Redis and nothing else in common."""
    started: list[Replays] = []
    prefix = f"test{next(_numbers)}"

    def start(port: int | None = None) -> Replays:
        client = Redis(host="127.0.0.1", port=port or redis.port)
        claims = Claims(
            client, prefix=prefix, ttl_s=60, timeout_s=0.5, clock=time.monotonic, random_bytes=os.urandom
        )
        parts = Replays(
            IdempotencySettings(), CacheSettings(), clock=time.monotonic, wall_clock=time.time, claims=claims
        )
        started.append(parts)
        return parts

    yield start
    for parts in started:
        await parts.aclose()


async def ask_until_answered(parts: Replays, engine: Engine) -> tuple[Client, str]:
    """As an SDK does: 409 is tried again."""
    async with asyncio.timeout(30):
        while True:
            asking = Client(headers=named())
            found = await asking.ask(parts, engine.answer)
            if not isinstance(found, Problem):
                return asking, str(found)
            assert (found.status, found.retry_after_s) == (409, 1.0)
            await asyncio.sleep(0.02)


async def test_an_answer_made_in_one_process_is_replayed_in_another(start: StartProcess) -> None:
    one, other, engine = start(), start(), Engine()
    first, second = Client(headers=named()), Client(headers=named())
    assert await first.ask(one, engine.answer) == "made"
    await asyncio.sleep(0.05)
    assert await second.ask(other, engine.answer) == "replayed"
    assert second.wire.body == first.wire.body
    assert second.wire.header(b"idempotent-replayed") == b"true"
    assert engine.asked == 1


async def test_duplicates_over_many_processes_are_made_once(start: StartProcess) -> None:
    processes = [start() for _ in range(4)]

    async def a_moment() -> None:
        await asyncio.sleep(0.02)

    engine = Engine(step=a_moment)
    answered = await asyncio.gather(
        *(ask_until_answered(processes[number % 4], engine) for number in range(100))
    )
    assert engine.asked == 1
    assert {client.wire.body for client, _ in answered} == {engine.text}
    assert sorted({how for _, how in answered}) == ["attached", "made", "replayed"]


async def test_another_body_is_refused_in_every_process(start: StartProcess) -> None:
    one, other, engine = start(), start(), Engine()
    await Client(headers=named()).ask(one, engine.answer)
    await asyncio.sleep(0.05)
    found = await Client(b"other", named()).ask(other, engine.answer)
    assert isinstance(found, Problem)
    assert found.code == "idempotency_key_reused"


async def test_a_failure_leaves_the_name_to_others(start: StartProcess) -> None:
    one, other = start(), start()
    failing = Engine([b"{}"], status=503, stream=False)
    await Client(headers=named()).ask(one, failing.answer)
    answered, how = await ask_until_answered(other, Engine())
    assert how == "made"
    assert answered.wire.status == 200


async def test_a_client_that_left_may_come_back_to_the_same_process_at_once(start: StartProcess) -> None:
    parts, never = start(), Engine(step=asyncio.Event().wait)
    gone = asyncio.create_task(Client(headers=named()).ask(parts, never.answer))
    await asyncio.sleep(0.05)
    assert never.asked == 1
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert await Client(headers=named()).ask(parts, Engine().answer) == "made"


async def test_a_claim_outlives_its_lease_while_its_holder_works_and_not_after(
    start: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "LEASE_S", 0.3)
    one, other, working = start(), start(), asyncio.Event()
    engine = Engine(step=working.wait)
    making = asyncio.create_task(Client(headers=named()).ask(one, engine.answer))
    await asyncio.sleep(0.9)
    found = await Client(headers=named()).ask(other, engine.answer)
    assert isinstance(found, Problem)
    assert found.code == "idempotency_in_progress"

    async def no_renewal(*_: object) -> None:
        """As of a process that has died."""

    monkeypatch.setattr(Claims, "renew", no_renewal)
    await asyncio.sleep(0.5)
    assert await Client(headers=named()).ask(other, Engine().answer) == "made"
    working.set()
    assert await making == "made"


@pytest.mark.parametrize("how", ["gone", "frozen"])
async def test_without_redis_every_process_is_on_its_own(
    start: StartProcess, tmp_path_factory: pytest.TempPathFactory, how: str
) -> None:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        parts = start(server.port)
        server.kill() if how == "gone" else server.freeze()
        engine = Engine()
        async with asyncio.timeout(10):
            assert await Client(headers=named()).ask(parts, engine.answer) == "made"
            assert await Client(headers=named()).ask(parts, engine.answer) == "replayed"
            begun = time.monotonic()
            for number in range(20):
                await Client(headers=named(f"n{number}")).ask(parts, engine.answer)
        assert time.monotonic() - begun < 5  # not half a second each
        if how == "frozen":
            server.thaw()


async def test_the_configuration_says_which_redis(tmp_path_factory: pytest.TempPathFactory) -> None:
    socket = tmp_path_factory.mktemp("redis") / "redis.sock"
    with redis_server(socket.parent, "--unixsocket", str(socket)) as server:
        one, other = (
            build_replays(
                IdempotencySettings(),
                CacheSettings(),
                Config(url=url, timeout_ms=1000),
                {},
                clock=time.monotonic,
                wall_clock=time.time,
                random_bytes=os.urandom,
            )
            for url in (f"redis://127.0.0.1:{server.port}/3", f"unix://{socket}?db=3")
        )
        assert await Client(headers=named()).ask(one, Engine().answer) == "made"
        await one.aclose()
        assert await Client(headers=named()).ask(other, Engine().answer) == "replayed"
        await other.aclose()
