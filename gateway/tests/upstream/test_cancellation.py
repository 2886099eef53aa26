"""A request given up, in whatever phase, closes its socket and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from contextlib import suppress

import pytest

from sluice_engines.transport import Deadlines, Transport, UpstreamError
from sluice_gateway.upstream import HttpTransport

from .conftest import ServeScript
from .exchanges import exchange, post, read_all
from .scripted_server import PATIENCE_S, Peer, eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def give_up(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_before_the_head(transport: Transport, serve: ServeScript) -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.until_closed()

    server = await serve(script)
    task = asyncio.create_task(exchange(transport, post(server.url)))
    await asked.wait()
    await give_up(task)
    await server.until_idle()


async def test_within_the_head(transport: Transport, serve: ServeScript) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK[:20])
        sent.set()
        await peer.until_closed()

    sent = asyncio.Event()
    server = await serve(script)
    task = asyncio.create_task(exchange(transport, post(server.url)))
    await sent.wait()
    await give_up(task)
    await server.until_idle()


async def test_while_waiting_for_the_body(transport: Transport, serve: ServeScript) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        await peer.until_closed()

    server = await serve(script)
    response = await transport.send(post(server.url), Deadlines())
    body = aiter(response)
    assert await anext(body) == b"first"

    async def read_on() -> bytes:
        return await anext(body)

    task = asyncio.create_task(read_on())
    await asyncio.sleep(0.01)
    await give_up(task)
    await server.until_idle()


async def test_during_a_large_upload(client: HttpTransport, serve: ServeScript) -> None:
    async def script(peer: Peer) -> None:
        await peer.read(1000)
        reading.set()
        await asyncio.sleep(0.05)
        await peer.until_closed()

    reading = asyncio.Event()
    server = await serve(script)
    task = asyncio.create_task(exchange(client, post(server.url, bytes(32 << 20))))
    await reading.wait()
    await give_up(task)
    await server.until_idle()


async def test_during_the_tls_handshake(client: HttpTransport, serve: ServeScript) -> None:
    async def script(peer: Peer) -> None:
        await peer.read(1000)
        greeted.set()
        await peer.until_closed()

    greeted = asyncio.Event()
    server = await serve(script)
    task = asyncio.create_task(exchange(client, post(server.url.replace("http:", "https:"))))
    await greeted.wait()
    await give_up(task)
    await server.until_idle()


async def test_of_one_request_leaves_the_others_alone(client: HttpTransport, serve: ServeScript) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.send(OK)
        await peer.until_closed()

    server = await serve(script)
    tasks = [asyncio.create_task(exchange(client, post(server.url))) for _ in range(3)]
    await eventually(lambda: server.accepted == 3)
    await give_up(tasks[1])
    go_on.set()
    assert (await tasks[0]).body == (await tasks[2]).body == b"ok"
    assert client.idle_connections == 2


@pytest.mark.parametrize("steps", range(12))
async def test_at_every_step_of_the_event_loop(steps: int, client: HttpTransport, serve: ServeScript) -> None:
    """Whatever `send` waits for after so many steps, giving up there leaves no socket open."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"a", b"b")
        await peer.until_closed()

    server = await serve(script)
    task = asyncio.create_task(exchange(client, post(server.url)))
    for _ in range(steps):
        await asyncio.sleep(0)
    await give_up(task)
    await eventually(lambda: client.open_connections == 0)
    await server.until_idle()


async def storm(
    transport: HttpTransport, server_url: str, requests: int, seed: int, deadlines: Deadlines
) -> int:
    """Send many requests, cancel each with probability one half at a random moment; count the survivors."""
    chance = random.Random(seed)

    async def one() -> bytes:
        response = await transport.send(post(server_url), deadlines)
        return await read_all(response)

    tasks = []
    for _ in range(requests):
        task = asyncio.create_task(one())
        if chance.random() < 0.5:
            asyncio.get_running_loop().call_later(chance.random() * 0.05, task.cancel)
        tasks.append(task)
        if chance.random() < 0.2:
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, bytes | asyncio.CancelledError) for result in results), results
    finished = [result for result in results if isinstance(result, bytes)]
    assert set(finished) <= {b"one two three "}
    return len(finished)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_storm_leaves_no_file_task_or_timer(
    tls: bool,
    client: HttpTransport,
    serve: ServeScript,
    server_tls: ssl.SSLContext,
) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for word in (b"one ", b"two ", b"three "):
                await asyncio.sleep(0.005)
                await peer.send(b"%x\r\n%s\r\n" % (len(word), word))
            await peer.send(b"0\r\n\r\n")

    server = await serve(script, tls=server_tls if tls else None)
    await exchange(client, post(server.url))
    files, tasks = open_files(), len(asyncio.all_tasks())

    async with asyncio.timeout(PATIENCE_S * 3):
        finished = await storm(client, server.url, 100 if tls else 400, 7, Deadlines())
    assert finished > 0
    await eventually(lambda: client.open_connections == client.idle_connections)
    await client.aclose()
    await server.until_idle()

    await eventually(lambda: open_files() <= files)
    assert len(asyncio.all_tasks()) <= tasks
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", [])
    assert [handle for handle in scheduled if not handle.cancelled() and "upstream" in repr(handle)] == []


async def test_deadlines_and_losses_leave_nothing_either(client: HttpTransport, serve: ServeScript) -> None:
    chance = random.Random(11)

    async def script(peer: Peer) -> None:
        await peer.request()
        fate = chance.random()
        if fate < 0.3:
            peer.reset()
        elif fate < 0.6:
            await peer.until_closed()
        else:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")

    server = await serve(script)
    with suppress(UpstreamError):
        await exchange(client, post(server.url), Deadlines(first_byte_s=0.05))
    files = open_files()
    outcomes = await asyncio.gather(
        *(exchange(client, post(server.url), Deadlines(first_byte_s=0.05)) for _ in range(100)),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, UpstreamError) for outcome in outcomes)
    await server.until_idle()
    await eventually(lambda: client.open_connections == 0)
    await eventually(lambda: open_files() <= files)


async def test_reuse_is_refused_after_every_cancellation(client: HttpTransport, serve: ServeScript) -> None:
    """A cancelled answer that arrives later must never be read as the next request's."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await asyncio.sleep(0.005)
            body = request.partition(b"\r\n\r\n")[2]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    server = await serve(script)
    await exchange(client, post(server.url, b"warm"))
    for number in range(40):
        task = asyncio.create_task(exchange(client, post(server.url, b"cancelled %d" % number)))
        await asyncio.sleep(0.0005 * (number % 16))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        kept = b"kept %d" % number
        assert (await exchange(client, post(server.url, kept))).body == kept


async def test_two_readers_of_one_response_are_told(client: HttpTransport, serve: ServeScript) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await peer.until_closed()

    server = await serve(script)
    response = await client.send(post(server.url), Deadlines())
    first = asyncio.create_task(read_all(response))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="two tasks"):
        await anext(response)
    await response.aclose()
    with pytest.raises(UpstreamError):
        await first
