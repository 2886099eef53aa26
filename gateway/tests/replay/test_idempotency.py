"""A request that is sent again is not done again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from sluice_gateway.arrival import Arrival
from sluice_gateway.errors import Failure, Problem
from sluice_gateway.exchange import Exchange
from sluice_gateway.identity import Key
from sluice_gateway.interruption import Interruption
from sluice_gateway.replay.replays import Replays
from sluice_gateway.replay.settings import CacheSettings, IdempotencySettings

from .clients import Client, Engine, named


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def replays(clock: Callable[[], float] | None = None, **idempotency: float) -> Replays:
    clock = clock or Clock()
    settings = msgspec.convert(idempotency, IdempotencySettings)
    return Replays(settings, CacheSettings(), clock=clock, wall_clock=clock)


class GoneAlready:
    """The source of a request whose client left while it was read."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, limit: int, timeout_s: float) -> bytes:
        return self._body

    def watch(self, interruption: Interruption) -> None:
        interruption.interrupt(Failure.CLIENT_GONE)

    def unwatch(self) -> None:
        pass


def gate() -> tuple[asyncio.Event, Callable[[], Awaitable[None]]]:
    """Steps wait until the event is set."""
    event = asyncio.Event()

    async def step() -> None:
        await event.wait()

    return event, step


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_thousand_duplicates_are_made_once() -> None:
    parts, engine, clients = replays(), Engine(), [Client(headers=named()) for _ in range(1000)]

    how = await asyncio.gather(*(client.ask(parts, engine.answer) for client in clients))

    assert engine.asked == 1
    assert sorted(map(str, how)) == ["attached"] * 999 + ["made"]
    assert {client.wire.body for client in clients} == {engine.text}
    assert all(client.wire.finished for client in clients)


async def test_the_same_again_later_is_replayed() -> None:
    parts, engine = replays(), Engine()
    first, second = Client(headers=named()), Client(headers=named(), request_id="req_2")
    assert await first.ask(parts, engine.answer) == "made"
    assert await second.ask(parts, engine.answer) == "replayed"

    assert engine.asked == 1
    assert second.wire.body == first.wire.body == engine.text
    assert first.wire.header(b"idempotent-replayed") is None
    assert second.wire.header(b"idempotent-replayed") == b"true"
    assert second.wire.header(b"x-request-id") == b"req_2"
    assert second.wire.header(b"content-type") == first.wire.header(b"content-type")
    assert second.wire.header(b"x-ratelimit-limit-requests") is None


async def test_a_plain_answer_is_replayed_whole() -> None:
    parts, engine = replays(), Engine([b'{"id":1}'], stream=False)
    first, second = Client(headers=named()), Client(headers=named())
    await first.ask(parts, engine.answer)
    await second.ask(parts, engine.answer)
    assert first.wire.was_whole
    assert second.wire.was_whole
    assert second.wire.body == b'{"id":1}'


async def test_a_duplicate_joins_in_the_middle_of_a_stream() -> None:
    parts = replays()
    steps: asyncio.Queue[None] = asyncio.Queue()
    engine = Engine([b"data: %d\n\n" % number for number in range(4)], step=steps.get)
    first, second = Client(headers=named()), Client(headers=named())
    making = asyncio.create_task(first.ask(parts, engine.answer))
    for _ in range(2):
        steps.put_nowait(None)
    await turns()
    joining = asyncio.create_task(second.ask(parts, engine.answer))
    await turns()
    assert second.wire.body == b"data: 0\n\ndata: 1\n\n"
    for _ in range(2):
        steps.put_nowait(None)

    assert await making == "made"
    assert await joining == "attached"
    assert second.wire.body == first.wire.body == engine.text
    assert second.wire.header(b"idempotent-replayed") == b"true"


async def test_the_making_goes_on_when_its_own_client_leaves_and_ends_with_the_last() -> None:
    parts, engine = replays(), Engine(step=asyncio.Event().wait)
    clients = [asyncio.create_task(Client(headers=named()).ask(parts, engine.answer)) for _ in range(3)]
    await turns()

    for client in clients[:2]:
        client.cancel()
    await turns()
    assert engine.interrupted == []

    clients[2].cancel()
    await turns()
    assert engine.interrupted == [Failure.CLIENT_GONE]
    await asyncio.gather(*clients, return_exceptions=True)


async def test_a_client_that_left_and_comes_back_has_it_made_again() -> None:
    parts, never, engine = replays(), Engine(step=asyncio.Event().wait), Engine()
    gone = asyncio.create_task(Client(headers=named()).ask(parts, never.answer))
    await turns()
    gone.cancel()
    await asyncio.sleep(0)

    again = Client(headers=named())
    assert await again.ask(parts, engine.answer) == "made"
    assert again.wire.body == engine.text
    assert never.interrupted == [Failure.CLIENT_GONE]


async def test_leaving_at_once_leaves_nothing_behind() -> None:
    """The making is cancelled before its first step."""
    parts, engine = replays(), Engine()
    client = Client(headers=named())
    client.arrival.source = GoneAlready(client.body)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(client.ask(parts, engine.answer))
    assert engine.asked == 0

    assert await Client(headers=named()).ask(parts, engine.answer) == "made"


@pytest.mark.parametrize("while_running", [True, False])
async def test_the_same_key_with_another_body_is_refused(while_running: bool) -> None:
    parts = replays()
    opened, step = gate()
    engine = Engine(step=step)
    first = asyncio.create_task(Client(b'{"a":1}', named()).ask(parts, engine.answer))
    if not while_running:
        opened.set()
        await first

    await turns()
    other = Client(b'{"a":2}', named())
    found = await other.ask(parts, engine.answer)

    assert isinstance(found, Problem)
    assert (found.status, found.code) == (400, "idempotency_key_reused")
    assert other.wire.status == 0
    opened.set()
    await first


async def test_names_belong_to_a_key_and_a_path() -> None:
    parts, engine = replays(), Engine()
    asked = [
        Client(headers=named()),
        Client(headers=named("twice")),
        Client(headers=named(), path="/v1/completions"),
        Client(headers=named(), key=Key(id="bob", tenant="acme")),
    ]
    for client in asked:
        assert await client.ask(parts, engine.answer) == "made"
    assert engine.asked == 4


@pytest.mark.parametrize(
    "engine",
    [
        Engine([b"{}"], status=503, stream=False, failure=Failure.NO_ENGINE),
        Engine([b"{}"], status=429, stream=False, failure=Failure.QUEUE_FULL),
        Engine([b"{}"], status=408, stream=False, failure=Failure.BODY_TIMEOUT),
        Engine(cut=True, failure=Failure.UPSTREAM_LOST),
        Engine([b"data: {}\n\n", b'data: {"error":{}}\n\n'], failure=Failure.UPSTREAM_LOST),
    ],
    ids=["503", "429", "408", "cut", "error event"],
)
async def test_what_is_worth_a_second_try_is_not_kept(engine: Engine) -> None:
    parts = replays()
    clients = [Client(headers=named()) for _ in range(2)]
    for client in clients:
        assert await client.ask(parts, engine.answer) == "made"
        assert client.wire.finished is not engine.cut
    assert engine.asked == 2


async def test_a_refusal_that_would_come_again_is_kept() -> None:
    parts = replays()
    engine = Engine([b'{"error":{}}'], status=400, stream=False, failure=Failure.INVALID_REQUEST)
    assert await Client(headers=named()).ask(parts, engine.answer) == "made"
    again = Client(headers=named())
    assert await again.ask(parts, engine.answer) == "replayed"
    assert again.wire.status == 400


async def test_a_failure_is_everybodys() -> None:
    parts = replays()
    opened, step = gate()
    engine = Engine(cut=True, failure=Failure.UPSTREAM_LOST, step=step)
    clients = [Client(headers=named()) for _ in range(3)]
    asking = [asyncio.create_task(client.ask(parts, engine.answer)) for client in clients]
    await turns()
    opened.set()
    await asyncio.gather(*asking)

    assert {(client.wire.body, client.wire.finished) for client in clients} == {(engine.text, False)}
    assert all(client.delivery is not None and not client.delivery.finished for client in clients)


async def test_a_bug_in_the_making_is_a_problem_for_everybody(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(arrival: Arrival) -> Exchange:
        await asyncio.sleep(0)
        raise ValueError("a bug")

    parts = replays()
    found = await asyncio.gather(*(Client(headers=named()).ask(parts, broken) for _ in range(2)))
    assert [problem.failure for problem in found if isinstance(problem, Problem)] == [Failure.INTERNAL] * 2
    assert "a bug" in caplog.text


async def test_answers_are_kept_for_their_time() -> None:
    clock, engine = Clock(), Engine()
    parts = replays(clock, ttl_s=60.0)
    await Client(headers=named()).ask(parts, engine.answer)
    await turns()
    clock.now_s += 59
    assert await Client(headers=named()).ask(parts, engine.answer) == "replayed"
    clock.now_s += 2
    assert await Client(headers=named()).ask(parts, engine.answer) == "made"


async def test_memory_is_bounded_and_the_least_used_go_first() -> None:
    parts = replays(max_bytes=20_000)
    engine = Engine([b"x" * 1000], stream=False)
    for number in range(15):
        await Client(headers=named(f"n{number}")).ask(parts, engine.answer)
        assert await Client(headers=named("n0")).ask(parts, engine.answer) == "replayed"
    assert await Client(headers=named("n14")).ask(parts, engine.answer) == "replayed"
    assert await Client(headers=named("n1")).ask(parts, engine.answer) == "made"


async def test_an_answer_too_large_to_keep_reaches_its_client_whole() -> None:
    parts = replays(max_bytes=8000)
    opened, step = gate()
    engine = Engine([b"x" * 600] * 20, step=step)
    first, late = Client(headers=named()), Client(headers=named())
    making = asyncio.create_task(first.ask(parts, engine.answer))
    opened.set()
    await turns(6)
    found = await late.ask(parts, engine.answer)
    assert await making == "made"

    assert first.wire.body == engine.text
    assert isinstance(found, Problem)
    assert (found.status, found.code, found.retry_after_s) == (409, "idempotency_in_progress", 1.0)


@pytest.mark.parametrize("name", [b"", b"x" * 256, "é".encode()])
async def test_a_bad_name_is_refused(name: bytes) -> None:
    found = await Client(headers={b"idempotency-key": name}).ask(replays(), Engine().answer)
    assert isinstance(found, Problem)
    assert found.status == 400


async def test_requests_without_the_header_do_not_come_here() -> None:
    parts = replays()
    assert not parts.applies({b"content-type": b"application/json"})
    assert parts.applies(named())
