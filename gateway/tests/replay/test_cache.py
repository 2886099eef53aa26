"""The exact response cache: opt-in, the same bytes get the same answer, and nothing broken is kept."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from sluice_gateway.errors import Failure
from sluice_gateway.identity import Key, Scopes
from sluice_gateway.replay.cache import Directives, directives
from sluice_gateway.replay.replays import Replays
from sluice_gateway.replay.settings import CacheSettings, IdempotencySettings

from .clients import Client, Engine, named


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def replays(clock: Clock | None = None, **cache: float) -> Replays:
    clock = clock or Clock()
    settings = msgspec.convert({"enabled": True, **cache}, CacheSettings)
    return Replays(IdempotencySettings(), settings, clock=clock, wall_clock=clock)


async def test_the_same_question_gets_the_recorded_stream() -> None:
    clock = Clock()
    parts, engine = replays(clock), Engine()
    first, second = Client(), Client(request_id="req_2")
    assert await first.ask(parts, engine.answer) == "miss"
    clock.now_s += 7
    assert await second.ask(parts, engine.answer) == "hit"

    assert engine.asked == 1
    assert second.wire.body == first.wire.body == engine.text
    assert (first.wire.header(b"x-sluice-cache"), second.wire.header(b"x-sluice-cache")) == (b"miss", b"hit")
    assert (first.wire.header(b"age"), second.wire.header(b"age")) == (None, b"7")
    assert second.wire.header(b"x-request-id") == b"req_2"
    assert second.wire.header(b"x-ratelimit-limit-requests") is None
    assert not second.wire.was_whole


async def test_a_plain_answer_stays_plain() -> None:
    parts, engine = replays(), Engine([b'{"a":1}'], stream=False)
    await Client().ask(parts, engine.answer)
    second = Client()
    assert await second.ask(parts, engine.answer) == "hit"
    assert second.wire.was_whole


@pytest.mark.parametrize(
    "other",
    [
        Client(b'{"model": "m"}'),
        Client(path="/v1/completions"),
        Client(key=Key(id="carol", tenant="other")),
        Client(key=Key(id="bob", tenant="acme", scopes=Scopes(models=frozenset({"m"})))),
        Client(headers={b"x-backend": b"a"}),
        Client(headers={b"x-quant": b"fp8"}),
        Client(headers={b"anthropic-beta": b"tools"}),
    ],
    ids=["body", "path", "tenant", "scopes", "backend", "quant", "version"],
)
async def test_another_question_is_another_answer(other: Client) -> None:
    parts, engine = replays(), Engine()
    await Client().ask(parts, engine.answer)
    assert await other.ask(parts, engine.answer) == "miss"
    assert engine.asked == 2


async def test_keys_of_a_tenant_that_may_use_the_same_share() -> None:
    parts, engine = replays(), Engine()
    await Client().ask(parts, engine.answer)
    assert await Client(key=Key(id="bob", tenant="acme")).ask(parts, engine.answer) == "hit"


@pytest.mark.parametrize(
    "engine",
    [
        Engine(cut=True, failure=Failure.UPSTREAM_LOST),
        Engine([b'data: {"error":{}}\n\n'], failure=Failure.UPSTREAM_LOST),
        Engine([b"{}"], status=400, stream=False, failure=Failure.INVALID_REQUEST),
        Engine([b"{}"], status=201, stream=False),
    ],
    ids=["cut", "error event", "400", "201"],
)
async def test_only_a_good_200_is_kept(engine: Engine) -> None:
    parts = replays()
    for _ in range(2):
        assert await Client().ask(parts, engine.answer) == "miss"
    assert engine.asked == 2


async def test_a_client_that_leaves_ends_its_answer_as_without_a_cache() -> None:
    parts, engine = replays(), Engine(step=asyncio.Event().wait)
    task = asyncio.create_task(Client().ask(parts, engine.answer))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.interrupted == [None]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Directives()),
        (b"no-store", Directives(look=False, keep=False)),
        (b"no-cache", Directives(look=False)),
        (b"Max-Age=5", Directives(max_age_s=5)),
        (b"max-age=0, no-cache", Directives(look=False, max_age_s=0)),
        (b"max-age=-1, public, ,=,max-age=9999999999999999", Directives()),
    ],
)
def test_cache_control(value: bytes | None, expected: Directives) -> None:
    assert directives(value) == expected


async def test_a_request_may_opt_out() -> None:
    clock = Clock()
    parts, engine = replays(clock), Engine()
    no_store = Client(headers={b"cache-control": b"no-store"})
    assert await no_store.ask(parts, engine.answer) == "made"
    assert no_store.wire.header(b"x-sluice-cache") is None
    assert await Client().ask(parts, engine.answer) == "miss"
    assert await Client(headers={b"cache-control": b"no-cache"}).ask(parts, engine.answer) == "miss"
    clock.now_s += 10
    assert await Client(headers={b"cache-control": b"max-age=9"}).ask(parts, engine.answer) == "miss"
    assert await Client(headers={b"cache-control": b"max-age=9"}).ask(parts, engine.answer) == "hit"


async def test_an_idempotency_key_goes_past_the_cache() -> None:
    parts, engine = replays(), Engine()
    await Client().ask(parts, engine.answer)
    assert await Client(headers=named()).ask(parts, engine.answer) == "made"
    assert engine.asked == 2


async def test_answers_grow_old_and_large_ones_are_not_kept() -> None:
    clock = Clock()
    parts, engine = replays(clock, ttl_s=60.0, max_bytes=80_000), Engine()
    await Client().ask(parts, engine.answer)
    clock.now_s += 61
    assert await Client().ask(parts, engine.answer) == "miss"

    large = Engine([b"x" * 6000] * 3)
    for _ in range(2):
        client = Client(b"large")
        assert await client.ask(parts, large.answer) == "miss"
        assert client.wire.body == large.text


async def test_every_request_comes_here_while_it_is_on() -> None:
    assert replays().applies({})
    off = Replays(IdempotencySettings(), CacheSettings(), clock=Clock(), wall_clock=Clock())
    assert not off.applies({})


async def test_large_bodies_are_told_apart_too() -> None:
    parts, engine = replays(), Engine()
    bodies = [b"x" * 400_000, b"x" * 399_999 + b"y"]
    for body in bodies:
        assert await Client(body).ask(parts, engine.answer) == "miss"
    for body in bodies:
        assert await Client(body).ask(parts, engine.answer) == "hit"
