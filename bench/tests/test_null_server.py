"""The null server speaks OpenAI well enough for any gateway, and costs nothing on purpose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sluice_bench.answers import read_answers
from sluice_bench.load_run import LoadRun
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.null_server import NullSettings, settings_of, start_null_server
from sluice_bench.records import RequestRecord, TokenSource
from sluice_bench.target import Target, http_request
from sluice_bench.workload import Asking, Shape, chat_requests


@asynccontextmanager
async def null_server(settings: NullSettings) -> AsyncIterator[Target]:
    server = await start_null_server(settings, "127.0.0.1", 0)
    try:
        yield Target(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()


async def ask(target: Target, asking: Asking, count: int = 1) -> list[RequestRecord]:
    requests = chat_requests(target, Shape(prompt_words=20, output_tokens=5), asking, count, seed=1)
    plan = LoadPlan(target=target, requests=requests, loop=ClosedLoop(2), hard_stop_s=30)
    return read_answers(await LoadRun(plan).run())


async def raw(target: Target, wire: bytes, until: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(wire)
    try:
        async with asyncio.timeout(20):
            return await reader.readuntil(until)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_plain_answer_is_json_of_the_size_asked_for() -> None:
    async with null_server(NullSettings(json_bytes=1400)) as target:
        wire = http_request(target, "POST", "/v1/chat/completions", b'{"model":"null"}')
        head = await raw(target, wire, b"\r\n\r\n")
        assert b"Content-Length: 1400\r\n" in head
        (record,) = await ask(target, Asking(model="null", stream=False))
    assert (record.failure, record.output_tokens) == (None, 100)


async def test_an_instant_stream_is_complete() -> None:
    async with null_server(NullSettings(chunks=7)) as target:
        records = await ask(target, Asking(model="null"), count=4)
    assert [record.failure for record in records] == [None] * 4
    assert [len(record.chunks) for record in records] == [7] * 4


async def test_a_paced_stream_sends_each_chunk_alone() -> None:
    async with null_server(NullSettings(chunks=5, pace_ms=50)) as target:
        (record,) = await ask(target, Asking(model="null"))
    assert record.failure is None
    assert len({chunk.arrived_ns for chunk in record.chunks}) >= 3  # 5, unless this machine stalls


async def test_the_usage_event_comes_only_when_asked_for() -> None:
    async with null_server(NullSettings(chunks=3)) as target:
        (asked,) = await ask(target, Asking(model="null"))
        (not_asked,) = await ask(target, Asking(model="null", include_usage=False))
    assert (asked.token_source, asked.prompt_tokens) == (TokenSource.USAGE_SPREAD, 16)
    assert (not_asked.token_source, not_asked.n_events) == (TokenSource.CHUNKS, asked.n_events - 1)


async def test_requests_sent_ahead_are_answered_in_turn() -> None:
    async with null_server(NullSettings(chunks=2, pace_ms=5)) as target:
        stream = http_request(target, "POST", "/v1/chat/completions", b'{"stream":true}')
        models = http_request(target, "GET", "/v1/models")
        answer = await raw(target, stream + models, b'"owned_by":"null"}]}')
    assert answer.index(b"[DONE]") < answer.index(b'"object":"list"')


async def test_a_request_in_pieces_is_understood() -> None:
    async with null_server(NullSettings()) as target:
        wire = http_request(target, "POST", "/v1/chat/completions", b'{"model":"null"}')
        reader, writer = await asyncio.open_connection(target.host, target.port)
        for position in range(0, len(wire), 7):
            writer.write(wire[position : position + 7])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        await writer.wait_closed()


async def test_an_unknown_path_gets_an_openai_error() -> None:
    async with null_server(NullSettings()) as target:
        answer = await raw(target, http_request(target, "GET", "/nowhere"), b"}}")
    status, _, body = answer.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 404 ")
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


async def test_health_and_models_answer() -> None:
    async with null_server(NullSettings(model="m")) as target:
        for path in ("/health", "/ready"):
            assert (await raw(target, http_request(target, "GET", path), b"}")).startswith(b"HTTP/1.1 200")
        assert b'"id":"m"' in await raw(target, http_request(target, "GET", "/v1/models"), b"]}")


async def test_no_more_are_answered_at_once_than_there_are_places() -> None:
    """Six ask at once; two at a time are served 30 ms each, the others wait their turn."""
    async with null_server(NullSettings(chunks=2, pace_ms=5, first_ms=20, capacity=2)) as target:
        requests = chat_requests(
            target, Shape(prompt_words=20, output_tokens=5), Asking(model="null"), 6, seed=1
        )
        plan = LoadPlan(target=target, requests=requests, loop=ClosedLoop(6), hard_stop_s=30)
        records = read_answers(await LoadRun(plan).run())
    assert [record.failure for record in records] == [None] * 6
    begun = sorted(record.first_token_ns or 0 for record in records)
    ended = sorted(record.last_token_ns or 0 for record in records)
    assert all(first > end for first, end in zip(begun[2:], ended, strict=False))


async def test_who_leaves_gives_its_place_up_while_waiting_and_while_served() -> None:
    async with null_server(NullSettings(first_ms=200, capacity=1)) as target:
        wire = http_request(target, "POST", "/v1/chat/completions", b'{"model":"null"}')
        for _ in range(2):  # one is served, one waits; both leave
            _, writer = await asyncio.open_connection(target.host, target.port)
            writer.write(wire)
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.close()
        (record,) = await ask(target, Asking(model="null", stream=False))
    assert record.failure is None


def test_options_of_its_process_are_the_settings_by_name() -> None:
    typed = ["--first-ms", "20.5", "--capacity", "3", "--stamps", "true"]
    assert settings_of(typed) == NullSettings(first_ms=20.5, capacity=3, stamps=True)
    assert settings_of([]) == NullSettings()


@pytest.mark.parametrize("typed", [["--stamps"], ["--slowness", "3"], ["--chunks", "many"]])
def test_options_that_are_none_are_an_error(typed: list[str]) -> None:
    with pytest.raises(ValueError):
        settings_of(typed)
