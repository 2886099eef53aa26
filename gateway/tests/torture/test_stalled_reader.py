"""Clients that stay connected and do not read: memory stays flat, and the write deadline ends them."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

from ..conftest import StartEngine
from ..scripted_engine import DONE, FINISH, ROLE, Call, delta
from ..serving import chat, eventually
from .conftest import StartProcess
from .processes import Process, settles
from .streaming_client import Client

STALLED = 16
CONFIG = """
server: {{write_timeout_s: 2.0}}
backends:
  - {{name: main, adapter: openai_compatible, url: '{url}'}}
"""


async def flood_or_answer(call: Call) -> None:
    await call.start_events()
    await call.write(ROLE)
    if call.fields["messages"][0]["content"] == "flood":
        while not call.left.is_set():
            await call.write(delta("x" * 60_000))
    else:
        for number in range(50):
            await call.write(delta(f"{number} "))
            await asyncio.sleep(0.02)
        await call.write(FINISH, DONE)
        await call.end()


def ask_and_do_not_read(url: str) -> socket.socket:
    address = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.hostname, address.port))
    body = json.dumps(chat(text="flood", stream=True)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    client.sendall(head + body)
    return client


async def test_memory_stays_flat_and_the_deadline_ends_them(
    start_engine: StartEngine, gateway: StartProcess
) -> None:
    engine = await start_engine(flood_or_answer)
    process = gateway(CONFIG.format(url=engine.url))
    await process.until_ready(30)
    warm = await (await Client.ask(process.url, chat(text="count", stream=True))).read_to_the_end()
    assert warm.done
    memory = highest = process.memory_bytes()

    with ExitStack() as sockets:
        for _ in range(STALLED):
            sockets.enter_context(ask_and_do_not_read(process.url))
        reader = await Client.ask(process.url, chat(text="count", stream=True))
        beside = asyncio.create_task(reader.read_to_the_end())
        await eventually(lambda: len(engine.calls) == STALLED + 2)
        floods = [call for call in engine.calls if call.fields["messages"][0]["content"] == "flood"]
        while not all(call.left.is_set() for call in floods):
            highest = max(highest, process.memory_bytes())
            await asyncio.sleep(0.05)
        answer = await beside

    assert answer.done
    assert answer.text == "".join(f"{number} " for number in range(50))
    assert highest < memory + STALLED * 3 * 2**20
    await settles(lambda: stalled_short_of(process, STALLED), 0)


async def stalled_short_of(process: Process, wanted: int) -> float:
    metrics = await process.metrics()
    name = 'sluice_gateway_requests_total{backend="main",kind="chat",outcome="client_stalled"}'
    return wanted - metrics.get(name, 0.0)
