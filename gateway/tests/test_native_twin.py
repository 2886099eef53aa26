"""The data plane on the socket and the data plane over ASGI give the same answers, byte for byte.

A query string sends a request the way over ASGI; everything else about the two is equal.
"""

from __future__ import annotations

import asyncio
import json
import random
from urllib.parse import urlsplit

import pytest

from .conftest import StartEngine
from .scripted_engine import DONE, FINISH, KEEP_ALIVE, PLAIN, ROLE, USAGE, Call, delta, event
from .serving import ECHO, PATIENCE_S, Served, serving, settings_of

PATH = "/v1/chat/completions"
KINDS = ("plain", "large", "stream", "cut", "refusal", "failure", "error event", "no json")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
VARYING = {b"x-request-id", b"openai-processing-ms", b"server-timing", b"date", b"transfer-encoding"}


async def by_its_number(call: Call) -> None:
    """Answers with what the request's own number says."""
    rng = random.Random(call.fields["seed"])
    kind = rng.choice(KINDS)
    if kind == "plain":
        await call.answer(200, PLAIN)
    elif kind == "large":
        await call.answer(200, {**PLAIN, "padding": "x" * 1_500_000})
    elif kind == "stream":
        texts = [delta("x" * rng.randrange(1, 3000)) for _ in range(rng.randrange(20))]
        await call.stream(KEEP_ALIVE, ROLE, *texts, FINISH, USAGE, DONE)
    elif kind == "cut":
        await call.start_events()
        await call.write(ROLE, delta("be"))
        call.reset()
    elif kind == "refusal":
        await call.answer(rng.choice([400, 404, 409, 422]), {"error": {"message": "no", "param": "n"}})
    elif kind == "failure":
        await call.answer(rng.choice([500, 502, 503, 429]), {"detail": "broken"})
    elif kind == "error event":
        await call.stream(ROLE, delta("be"), event(error={"message": "broken", "code": 500}))
    else:
        await call.answer(200, "just a string")


def bodies() -> list[bytes]:
    rng = random.Random(7)
    chats = [
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "seed": seed, "stream": stream}
        for seed in range(30)
        for stream in (False, True)
    ]
    wrong: list[object] = [{}, [], {"model": 3}, {"model": "nope", "messages": []}, {"model": "m"}, "text"]
    cut = [json.dumps(chat).encode()[: rng.randrange(1, 60)] for chat in chats[:5]]
    return [json.dumps(body).encode() for body in (*chats, *wrong)] + [*cut, b"", b"\xff\xfe{"]


async def ask(served: Served, target: str, body: bytes, *headers: bytes) -> tuple[bytes, object, bytes]:
    """See `ask_at`."""
    port = urlsplit(served.url).port
    assert port is not None
    return await ask_at(port, target, body, *headers)


async def ask_at(port: int, target: str, body: bytes, *headers: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, headers that do not vary, and the body without its framing."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = (f"POST {target} HTTP/1.1".encode(), b"host: localhost", *headers, b"connection: close")
        head = b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", b""])
        writer.write(head + body)
        received = await reader.read()
        writer.close()
    received = received.removeprefix(CONTINUE)  # needless once the body has come, and only uvicorn sends it
    status_and_headers, _, rest = received.partition(b"\r\n\r\n")
    status, *fields = status_and_headers.split(b"\r\n")
    chunked = b"transfer-encoding: chunked" in fields
    kept = sorted(field for field in fields if field.split(b":")[0] not in VARYING)
    return status, kept, unchunked(rest) if chunked else rest


def unchunked(data: bytes) -> bytes:
    """The content of a chunked body; a cut one is marked, wherever its chunks ended."""
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        if size == b"0":
            return content
        content, data = content + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return content + b"<cut>"


async def test_both_ways_give_the_same_answer(start_engine: StartEngine) -> None:
    engine = await start_engine(by_its_number)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url}
    failover = {"retry_budget": 1.0, "breaker_failures": 1_000_000}
    async with serving(settings_of(backends=[backend], failover=failover)) as served:
        for body in bodies():
            native = await ask(served, PATH, body)
            through_asgi = await ask(served, f"{PATH}?way=asgi", body)
            assert native == through_asgi, body
        await served.until_idle()


@pytest.mark.parametrize(
    "headers",
    [
        (b"x-backend: nope",),
        (b"x-quant: int9",),
        (b"content-encoding: gzip",),
        (b"content-encoding: Identity",),
        (b"expect: 100-continue",),
        (b"origin: http://localhost:3000",),
        (b"authorization: Bearer sk-whatever",),
    ],
)
async def test_headers_mean_the_same_on_both_ways(headers: tuple[bytes, ...]) -> None:
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    async with serving(settings_of(backends=[ECHO])) as served:
        native = await ask(served, PATH, body, *headers)
        through_asgi = await ask(served, f"{PATH}?way=asgi", body, *headers)
    ids = (b'"id":"', b'"created":')
    assert native[:2] == through_asgi[:2]
    assert all(mark not in native[2] for mark in ids) == all(mark not in through_asgi[2] for mark in ids)


@pytest.mark.parametrize("target", [PATH, f"{PATH}?way=asgi"])
async def test_old_clients_get_streams_without_chunks(start_engine: StartEngine, target: str) -> None:
    async def script(call: Call) -> None:
        await call.stream(ROLE, delta("Hi"), FINISH, DONE)

    engine = await start_engine(script)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url}
    async with serving(settings_of(backends=[backend])) as served, asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(served.url).port)
        body = b'{"model":"m","messages":[],"stream":true}'
        writer.write(f"POST {target} HTTP/1.0\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        received = await reader.read()
        writer.close()
    if target == PATH:
        assert b"transfer-encoding" not in received
        assert received.endswith(ROLE + delta("Hi") + FINISH + DONE)
    else:
        assert delta("Hi") in received  # uvicorn's own way answers old clients in chunks
