"""A client that reads slowly is no client that has stopped: it gets all of its answer, however long that
takes."""

from __future__ import annotations

import asyncio
import json
import socket
from urllib.parse import urlsplit

import pytest

from ..conftest import StartEngine
from ..scripted_engine import DONE, FINISH, ROLE, Call, delta
from ..serving import PATIENCE_S, chat, serving, settings_of
from .streaming_client import Answer

EVENTS = 18
SIZE = 20_000
DEADLINE_S = 0.3


async def long_answer(call: Call) -> None:
    if call.fields.get("stream"):
        await call.stream(ROLE, *[delta("x" * SIZE)] * EVENTS, FINISH, DONE)
    else:
        await call.answer(200, {"choices": [], "padding": "x" * SIZE * EVENTS})


async def read_slowly(sock: socket.socket) -> tuple[bytes, float]:
    """Everything, in pieces with pauses that add up to several deadlines; and how long it took."""
    loop = asyncio.get_running_loop()
    begun, received = loop.time(), b""
    while data := await loop.sock_recv(sock, 16_384):
        received += data
        await asyncio.sleep(0.02)
    return received, loop.time() - begun


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("target", ["/v1/chat/completions", "/v1/chat/completions?way=asgi"])
async def test_is_not_cut_off(start_engine: StartEngine, target: str, stream: bool) -> None:
    engine = await start_engine(long_answer)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url}
    settings = settings_of(backends=[backend], server={"write_timeout_s": DEADLINE_S})
    async with serving(settings) as served, asyncio.timeout(PATIENCE_S):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", urlsplit(served.url).port))
            body = json.dumps(chat(stream=stream)).encode()
            lines = [
                f"POST {target} HTTP/1.1",
                "host: x",
                "connection: close",
                f"content-length: {len(body)}",
            ]
            await loop.sock_sendall(client, "\r\n".join([*lines, "", ""]).encode() + body)
            received, took_s = await read_slowly(client)
        await served.until_idle()
    answer = Answer(received)
    assert answer.status == 200
    assert answer.ended
    if stream:
        assert answer.done
        assert len(answer.text) == EVENTS * SIZE
    else:
        assert len(json.loads(answer.body)["padding"]) == EVENTS * SIZE
    assert took_s > DEADLINE_S  # otherwise nothing was shown
