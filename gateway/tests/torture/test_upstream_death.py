"""An engine that dies amid its answer: the client is told once, and never that all is well."""

from __future__ import annotations

import asyncio
import json

import pytest

from ..scripted_engine import ROLE, delta
from ..serving import chat, eventually, serving, settings_of
from ..upstream.scripted_server import Peer, ScriptedServer
from .conftest import StartProcess
from .processes import settles
from .streaming_client import Answer, Client

STREAMS = 24
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MODELS = b'{"data":[{"id":"m"}]}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def die(peer: Peer, way: str) -> None:
    """How engines end without ending."""
    if way == "reset":
        peer.reset()
    elif way == "cut within a chunk":
        await peer.send(b"ff\r\ndata: {")
    elif way == "cut within an event":
        await peer.send(chunk(b'data: {"choices": [{"del'))
    elif way == "garbage":
        await peer.send(b"\0\0\0\0\r\n")
    elif way == "a clean end without the last event":
        await peer.send(b"0\r\n\r\n")
    elif way == "silence":
        await peer.until_closed()


WAYS = [
    "close",
    "reset",
    "cut within a chunk",
    "cut within an event",
    "garbage",
    "a clean end without the last event",
    "silence",
]


class Dying:
    """Serves `/v1/models`; a chat gets so many words as the question says, and then no more."""

    def __init__(self, way: str) -> None:
        self._way = way

    async def __call__(self, peer: Peer) -> None:
        while (request := await peer.request()).startswith(b"GET"):
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MODELS), MODELS))
        fields = json.loads(request.partition(b"\r\n\r\n")[2])
        text = fields["messages"][0]["content"]
        words = [chunk(delta(f"{number} ")) for number in range(int(text))]
        if fields.get("stream"):
            await peer.send(HEAD + chunk(ROLE), *words)
        else:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b'{"id": "c", ')
        await die(peer, self._way)


def error_keys(answer: Answer) -> list[set[str]]:
    return [set(error) for error in answer.errors]


@pytest.mark.parametrize("way", WAYS)
async def test_streams_end_with_one_error_and_no_done(way: str) -> None:
    server = ScriptedServer(Dying(way))
    await server.start()
    settings = settings_of(
        backends=[{"name": "main", "adapter": "openai_compatible", "url": server.url}],
        timeouts={"idle_s": 1.0 if way == "silence" else 60.0},
        failover={"breaker_failures": 10 * STREAMS},
    )
    async with serving(settings) as served:
        asked = [
            await Client.ask(served.url, chat(text=str(words), stream=True)) for words in range(1, STREAMS)
        ]
        answers = await asyncio.gather(*(client.read_to_the_end() for client in asked))
        for words, answer in enumerate(answers, start=1):
            assert answer.status == 200
            assert answer.text == "".join(f"{number} " for number in range(words))
            assert error_keys(answer) == [{"message", "type", "param", "code"}]
            assert "[DONE]" not in answer.events
            assert "error" in answer.objects[-1]
            assert answer.ended
        await served.until_idle()
        await eventually(lambda: served.metric("requests_in_flight") == 0)
    await server.stop()


@pytest.mark.parametrize("way", WAYS)
async def test_a_plain_answer_that_is_cut_becomes_an_error_status(way: str) -> None:
    server = ScriptedServer(Dying(way))
    await server.start()
    settings = settings_of(
        backends=[{"name": "main", "adapter": "openai_compatible", "url": server.url}],
        timeouts={"idle_s": 1.0 if way == "silence" else 60.0},
    )
    async with serving(settings) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat(text="1"))
        assert answer.status_code in (502, 503, 504)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        await served.until_idle()
    await server.stop()


@pytest.mark.slow
async def test_a_killed_worker(gateway: StartProcess, worker: StartProcess) -> None:
    """`kill -9` amid sixteen streams of the bundled model."""
    engine = worker("--dtype", "float32", "--threads", "1")
    await engine.until_ready(120)
    process = gateway(f"backends:\n  - {{name: main, adapter: worker, url: '{engine.url}'}}\n")
    await process.until_ready(30)
    fields = chat(
        model="sluice-tiny", text="Tell me a long story.", stream=True, max_tokens=2000, ignore_eos=True
    )
    clients = [await Client.ask(process.url, fields) for _ in range(16)]
    for client in clients:
        await client.read_some(1500)

    engine.kill()

    for answer in await asyncio.gather(*(client.read_to_the_end() for client in clients)):
        assert answer.status == 200
        assert answer.text
        assert error_keys(answer) == [{"message", "type", "param", "code"}]
        assert not {"[DONE]"} & set(answer.events)

    async def in_flight() -> float:
        return (await process.metrics())["sluice_gateway_requests_in_flight"]

    await settles(in_flight, 0)
