"""A client that leaves frees everything that it held, in whatever phase."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from .conftest import StartEngine
from .scripted_engine import KEEP_ALIVE, Call, delta, plain
from .serving import PATIENCE_S, Served, chat, eventually, serving, settings_of


async def silent(call: Call) -> None:
    await call.left.wait()


async def head_only(call: Call) -> None:
    await call.start_events()
    await call.write(KEEP_ALIVE)
    await call.left.wait()


async def endless(call: Call) -> None:
    await call.start_events()
    while not call.left.is_set():
        await call.write(delta("more"))
        await asyncio.sleep(0.005)


async def half_a_body(call: Call) -> None:
    await call.promise(1000, b'{"id":')
    await call.left.wait()


@asynccontextmanager
async def asking(served: Served, **more: object) -> AsyncIterator[httpx.AsyncClient]:
    """A client of its own with one request on its way; leaving the block closes the socket."""
    client = httpx.AsyncClient(base_url=served.url, timeout=PATIENCE_S, verify=False)
    task = asyncio.create_task(client.post("/v1/chat/completions", json=chat(**more)))
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


@pytest.mark.parametrize("upstream", ["native", "httpx"])
@pytest.mark.parametrize(
    ("script", "stream"),
    [(silent, False), (silent, True), (head_only, True), (endless, True), (half_a_body, False)],
)
async def test_the_engine_is_let_go(
    start_engine: StartEngine, script: object, stream: bool, upstream: str
) -> None:
    engine = await start_engine(script)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url, "upstream": upstream}
    async with serving(settings_of(backends=[backend])) as served:
        async with asking(served, stream=stream):
            await eventually(lambda: len(engine.calls) == 1)
            await asyncio.sleep(0.03)
            assert served.gateway.pipeline.in_flight == 1
        await eventually(engine.calls[0].left.is_set)
        await served.until_idle()
        assert served.metric("requests_in_flight") == 0
        outcome = served.metric("requests_total", kind="chat", backend="main", outcome="client_gone")
    assert outcome == 1


async def test_a_place_in_the_queue_is_given_up_and_nothing_is_sent_for_it(start_engine: StartEngine) -> None:
    release = asyncio.Event()

    async def busy(call: Call) -> None:
        await release.wait()
        await plain(call)

    engine = await start_engine(busy)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url, "max_in_flight": 1}
    async with serving(settings_of(backends=[backend])) as served:
        first = asyncio.create_task(served.http.post("/v1/chat/completions", json=chat()))
        await eventually(lambda: len(engine.calls) == 1)
        async with asking(served):
            await eventually(lambda: served.gateway.router.snapshot().waiting == 1)
        await eventually(lambda: served.gateway.router.snapshot().waiting == 0)
        release.set()
        assert (await first).status_code == 200
        await served.until_idle()
    assert len(engine.calls) == 1


async def test_the_next_in_the_queue_moves_up_when_a_client_leaves(start_engine: StartEngine) -> None:
    async def first_hangs(call: Call) -> None:
        if call.fields["messages"][0]["content"] == "hang":
            await call.left.wait()
        else:
            await plain(call)

    engine = await start_engine(first_hangs)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url, "max_in_flight": 1}
    async with serving(settings_of(backends=[backend])) as served:
        async with asking(served, text="hang"):
            await eventually(lambda: len(engine.calls) == 1)
            second = asyncio.create_task(served.http.post("/v1/chat/completions", json=chat()))
            await eventually(lambda: served.gateway.router.snapshot().waiting == 1)
        assert (await second).status_code == 200


async def test_a_client_that_leaves_while_it_sends_is_no_error(start_engine: StartEngine) -> None:
    engine = await start_engine(plain)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url}
    async with serving(settings_of(backends=[backend])) as served:
        host, port = served.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{"
        writer.write(head.encode())
        await eventually(lambda: served.gateway.pipeline.in_flight == 1)
        writer.close()
        await served.until_idle()
    assert engine.calls == []


async def test_a_client_that_stops_reading_is_cut_off(start_engine: StartEngine) -> None:
    async def flood(call: Call) -> None:
        await call.start_events()
        while not call.left.is_set():
            await call.write(delta("x" * 60_000))

    engine = await start_engine(flood)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url}
    settings = settings_of(backends=[backend], server={"write_timeout_s": 0.3})
    async with serving(settings) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            body = b'{"model":"m","stream":true,"messages":[]}'
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
            client.sendall(head + body)
            await eventually(lambda: len(engine.calls) == 1)
            await eventually(engine.calls[0].left.is_set)
            await served.until_idle()
        stalled = served.metric("requests_total", kind="chat", backend="main", outcome="client_stalled")
    assert stalled == 1


async def test_a_disconnect_after_the_answer_is_no_failure(start_engine: StartEngine) -> None:
    engine = await start_engine(plain)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url, "upstream": "httpx"}
    async with serving(settings_of(backends=[backend])) as served:
        for _ in range(20):
            async with httpx.AsyncClient(base_url=served.url, verify=False) as client:
                await client.post("/v1/chat/completions", json=chat(), headers={"connection": "close"})
        await served.until_idle()
        assert served.metric("requests_total", kind="chat", backend="main", outcome="ok") == 20
