"""Responses that nobody waits for: followed, left, resumed, cancelled, here or from another process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key
from sluice_gateway.responses_api.ask import ResponseAsk
from sluice_gateway.responses_api.background import BackgroundRun
from sluice_gateway.responses_api.service import LOST_AFTER_S, ResponsesService
from sluice_gateway.store.database import Database
from sluice_gateway.wire import Wire

from .dialects.responses_events import check_sequence, events_of
from .responses_server import Engine, generate, service_of, standing, stored
from .serving import PATIENCE_S

KEY = Key(id="k", tenant="a")
FULL = problem(Failure.QUEUE_FULL, "All engines are busy.")


async def begun(service: ResponsesService, engine: Engine, **fields: Any) -> BackgroundRun:
    body = json.dumps({"model": "m", "input": "hi", "background": True, **fields}).encode()
    ask = await service.open(body, KEY)
    assert isinstance(ask, ResponseAsk), ask

    async def run(ask: ResponseAsk, wire: Wire) -> None:
        await generate(engine, ask, wire)

    found = await service.begin(ask, run)
    assert isinstance(found, BackgroundRun), found
    return found


async def until(service: ResponsesService, response_id: str, *statuses: str) -> dict[str, Any]:
    """The response, once it has one of these statuses."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await service.retrieve(response_id, KEY)
            assert not isinstance(found, Problem), found
            if found["status"] in statuses:
                return found
            await asyncio.sleep(0.005)


async def followed(service: ResponsesService, response_id: str, after: int = -1) -> list[dict[str, Any]]:
    events = await service.follow(response_id, KEY, after)
    assert not isinstance(events, Problem), events
    async with asyncio.timeout(PATIENCE_S):
        return events_of(b"".join([piece async for piece in events]))


async def two_processes(database: Database) -> tuple[ResponsesService, ResponsesService]:
    """Two gateways that share nothing but the store."""
    return service_of(database), service_of(database, seed=1)


async def test_it_is_queued_at_once_and_completed_later(tmp_path: Path) -> None:
    engine = Engine()
    engine.gate.clear()
    async with standing(tmp_path, engine) as stand, stand.sdk() as client:
        made = await client.responses.create(model="m", input="hi", background=True)
        assert (made.status, made.background) == ("queued", True)
        await until(stand.service, made.id, "in_progress")
        with pytest.raises(openai.BadRequestError, match="not ended"):
            await client.responses.create(model="m", input="x", previous_response_id=made.id)
        engine.gate.set()
        await until(stand.service, made.id, "completed")
        done = await client.responses.retrieve(made.id)
        assert done.output_text == "Hello"
        assert done.usage is not None
        await client.responses.create(model="m", input="x", previous_response_id=made.id)


async def test_a_stream_may_be_left_and_taken_up_where_it_was(tmp_path: Path) -> None:
    engine = Engine()
    async with standing(tmp_path, engine) as stand, stand.sdk() as client:
        stream = await client.responses.create(model="m", input="hi", background=True, stream=True)
        engine.gate.clear()
        first = await anext(aiter(stream))
        assert first.type == "response.created"
        await stream.close()
        engine.gate.set()
        rest = await client.responses.retrieve(first.response.id, stream=True, starting_after=0)
        events = [event async for event in rest]
        assert [event.sequence_number for event in events] == [*range(1, len(events) + 1)]
        assert [event.type for event in events][:2] == ["response.queued", "response.in_progress"]
        assert events[-1].type == "response.completed"
        async with client.responses.stream(response_id=first.response.id) as again:
            assert (await again.get_final_response()).output_text == "Hello"


async def test_cancelling_stops_the_engine_and_stays(tmp_path: Path) -> None:
    engine = Engine()
    engine.gate.clear()
    async with standing(tmp_path, engine) as stand, stand.sdk() as client:
        stream = await client.responses.create(model="m", input="hi", background=True, stream=True)
        async for event in stream:
            if event.type == "response.queued":
                response_id = event.response.id
                await until(stand.service, response_id, "in_progress")
                cancelled = await client.responses.cancel(response_id)
                assert cancelled.status == "cancelled"
        assert event.type == "error"
        assert event.code == "cancelled"
        assert engine.cancelled == 1
        assert (await client.responses.cancel(response_id)).status == "cancelled"
        assert (await client.responses.retrieve(response_id)).status == "cancelled"


async def test_a_silent_stream_gets_comments(tmp_path: Path) -> None:
    engine = Engine()
    engine.gate.clear()
    async with standing(tmp_path, engine) as stand, httpx.AsyncClient(timeout=PATIENCE_S) as http:
        run = await begun(stand.service, engine, stream=True)
        url = f"{stand.url}/v1/responses/{run.ask.id}?stream=true"
        async with http.stream("GET", url, headers={"authorization": "Bearer a"}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            seen = ""
            async for text in response.aiter_text():
                seen += text
                if ": keep-alive\n\n" in seen:
                    engine.gate.set()
        assert check_sequence(events_of(without_comments(seen))[2:], first=2)["status"] == "completed"


def without_comments(stream: str) -> bytes:
    return stream.replace(": keep-alive\n\n", "").encode()


async def test_only_background_responses_can_be_cancelled_or_streamed_later(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand, stand.sdk() as client:
        made = await client.responses.create(model="m", input="hi")
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.cancel(made.id)
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.retrieve(made.id, stream=True)


async def test_another_process_follows_and_sees_the_end(tmp_path: Path) -> None:
    async with stored(tmp_path) as database:
        here, there = await two_processes(database)
        engine = Engine()
        engine.gate.clear()
        run = await begun(here, engine, stream=True)
        following = asyncio.create_task(followed(there, run.ask.id))
        await until(there, run.ask.id, "in_progress")
        engine.gate.set()
        events = await following
        assert [e["type"] for e in events[:2]] == ["response.created", "response.queued"]
        final = check_sequence(events[2:], first=2)
        assert final == await there.retrieve(run.ask.id, KEY)
        assert await followed(there, run.ask.id, after=4) == events[5:]
        assert await followed(there, run.ask.id, after=len(events) - 1) == []
        await here.aclose()


async def test_another_process_cancels(tmp_path: Path) -> None:
    async with stored(tmp_path) as database:
        here, there = await two_processes(database)
        engine = Engine()
        engine.gate.clear()
        run = await begun(here, engine)
        await until(there, run.ask.id, "in_progress")
        found = await there.cancel(run.ask.id, KEY)
        assert not isinstance(found, Problem)
        assert found["status"] == "cancelled"
        assert run.task is not None
        await asyncio.wait_for(asyncio.shield(run.task), PATIENCE_S)
        assert engine.cancelled == 1
        assert (await until(here, run.ask.id, "cancelled"))["output"] == []


async def test_deleting_stops_it(tmp_path: Path) -> None:
    async with stored(tmp_path) as database:
        here, there = await two_processes(database)
        for service in (here, there):
            engine = Engine()
            engine.gate.clear()
            run = await begun(here, engine)
            await until(here, run.ask.id, "in_progress")
            assert not isinstance(await service.delete(run.ask.id, KEY), Problem)
            assert run.task is not None
            await asyncio.wait_for(asyncio.shield(run.task), PATIENCE_S)
            assert engine.cancelled == 1


async def test_a_process_that_died_leaves_failed_responses(tmp_path: Path) -> None:
    now = [1_000.0]
    async with stored(tmp_path) as database:
        died = service_of(database, clock=lambda: now[0], beat_s=1_000.0)
        other = service_of(database, clock=lambda: now[0])
        engine = Engine()
        engine.gate.clear()
        run = await begun(died, engine, stream=True)
        await until(other, run.ask.id, "queued")
        now[0] += LOST_AFTER_S + 1
        found = await other.retrieve(run.ask.id, KEY)
        assert not isinstance(found, Problem)
        assert found["status"] == "failed"
        assert (await followed(other, run.ask.id))[-1]["type"] == "response.failed"
        await died.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_a_failed_response(tmp_path: Path, stream: bool) -> None:
    async with stored(tmp_path) as database:
        service = service_of(database)
        run = await begun(service, Engine(refusal=FULL), stream=stream)
        failed = await until(service, run.ask.id, "failed")
        assert failed["error"] == {"code": "rate_limit_exceeded", "message": "All engines are busy."}
        if stream:
            last = (await followed(service, run.ask.id))[-1]
            assert (last["type"], last["sequence_number"]) == ("response.failed", 2)


async def test_an_answer_larger_than_the_bound_fails(tmp_path: Path) -> None:
    async with stored(tmp_path) as database:
        service = service_of(database, max_stored_bytes=2_600)
        run = await begun(service, Engine(), stream=True)
        failed = await until(service, run.ask.id, "failed")
        assert "larger" in failed["error"]["message"]


async def test_stopping_the_gateway_fails_what_is_running(tmp_path: Path) -> None:
    async with stored(tmp_path) as database:
        service = service_of(database)
        engine = Engine()
        engine.gate.clear()
        run = await begun(service, engine)
        await until(service, run.ask.id, "in_progress")
        await service.aclose()
        assert engine.cancelled == 1
        failed = await until(service, run.ask.id, "failed")
        assert "stopped" in failed["error"]["message"]


async def test_a_background_response_needs_the_store(tmp_path: Path) -> None:
    nowhere = Database(f"sqlite:///{tmp_path / 'without_tables.db'}")
    service = service_of(nowhere)
    ask = await service.open(json.dumps({"model": "m", "input": "x", "background": True}).encode(), KEY)
    assert isinstance(ask, ResponseAsk)

    async def never(ask: ResponseAsk, wire: Wire) -> None:
        raise AssertionError

    found = await service.begin(ask, never)
    assert isinstance(found, Problem)
    assert found.code == "store_unavailable"
    await nowhere.aclose()
