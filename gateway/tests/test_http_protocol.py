"""Clients that speak HTTP badly, oddly, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from sluice_gateway.http_protocol import MAX_HEAD_BYTES

from .serving import ECHO, PATIENCE_S, Served, chat, eventually, serving, settings_of

SLOW_ECHO = {**ECHO, "options": {"tokens_per_s": 2}}


@asynccontextmanager
async def connection(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    port = urlsplit(served.url).port
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


def post(body: dict[str, object], *headers: bytes) -> bytes:
    data = json.dumps(body).encode()
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"host: localhost", *headers]
    return b"\r\n".join([*lines, b"content-length: %d" % len(data), b"", data])


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.strip().split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    body = await reader.readexactly(int(headers[b"content-length"]))
    return int(status.split()[1]), headers, body


def check_error(answer: tuple[int, dict[bytes, bytes], bytes], status: int) -> None:
    assert answer[0] == status
    assert set(json.loads(answer[2])["error"]) == {"message", "type", "param", "code"}
    for name in (b"x-request-id", b"openai-version", b"openai-processing-ms", b"content-type"):
        assert name in answer[1]
    assert answer[1][b"connection"] == b"close"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"BREW /pot HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_told_in_openais_shape(sent: bytes) -> None:
    async with serving(settings_of(backends=[ECHO])) as served, connection(served) as (reader, writer):
        writer.write(sent)
        check_error(await read_answer(reader), 400)
        assert await reader.read() == b""


async def test_a_head_without_end_is_refused() -> None:
    async with serving(settings_of(backends=[ECHO])) as served, connection(served) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nx-long: ")
        for _ in range(MAX_HEAD_BYTES // 4096 + 2):
            await asyncio.sleep(0)
            writer.write(b"y" * 4096)
        check_error(await read_answer(reader), 431)


async def test_a_head_that_does_not_come_is_not_waited_for_for_ever() -> None:
    async with serving(settings_of(backends=[ECHO]), keep_alive_s=1) as served:
        async with connection(served) as (reader, _):
            check_error(await read_answer(reader), 408)
        async with connection(served) as (reader, writer):
            writer.write(b"GET /health HT")
            check_error(await read_answer(reader), 408)


async def test_a_long_body_is_no_long_head() -> None:
    async with serving(settings_of(backends=[ECHO])) as served, connection(served) as (reader, writer):
        for _ in range(2):
            writer.write(post(chat("echo", "x" * 500_000, max_tokens=1)))
            assert (await read_answer(reader))[0] == 200


async def test_garbage_is_not_answered_into_a_running_stream() -> None:
    async with serving(settings_of(backends=[SLOW_ECHO])) as served, connection(served) as (reader, writer):
        writer.write(post(chat("echo", "a b c d e f g h", stream=True)))
        received = await reader.readuntil(b"data: ")
        writer.write(b"\x00garbage\r\n\r\n")
        received += await reader.read()
        assert received.count(b"HTTP/1.1") == 1
        await served.until_idle()


async def test_a_request_that_offers_http2_is_served_with_its_body() -> None:
    offer = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAEAAEAA")
    async with serving(settings_of(backends=[ECHO])) as served, connection(served) as (reader, writer):
        whole = post(chat("echo", "Hello"), *offer)
        for piece in (whole[:70], whole[70:-20], whole[-20:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        status, _, body = await read_answer(reader)
        assert status == 200
        assert json.loads(body)["choices"][0]["message"]["content"] == "Hello"
        writer.write(post(chat("echo", "Again")))
        assert b"Again" in (await read_answer(reader))[2]


async def test_a_client_that_leaves_a_pipeline_leaves_nothing_running() -> None:
    async with serving(settings_of(backends=[SLOW_ECHO])) as served:
        async with connection(served) as (reader, writer):
            stream = post(chat("echo", "word " * 200, stream=True))
            writer.write(stream + stream)
            await reader.readuntil(b"data: ")
            assert served.gateway.pipeline.in_flight == 1
        await eventually(lambda: served.gateway.pipeline.in_flight == 0)
        await served.until_idle()
