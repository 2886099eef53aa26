"""Clients leave in every phase at once; whatever they held is free again, and the engine knows."""

from __future__ import annotations

import asyncio
import random

from ..conftest import StartEngine
from ..scripted_engine import KEEP_ALIVE, Call, delta, plain
from ..serving import chat, eventually, serving, settings_of
from .streaming_client import Client

CLIENTS = 64
SLOTS = 8


async def never_ends(call: Call) -> None:
    """Answers in the way that the question names, for as long as anyone listens."""
    way = call.fields["messages"][0]["content"].split()[0]
    if way == "plain":
        await plain(call)
    elif way == "silent":
        await call.left.wait()
    elif way == "half":
        await call.promise(100_000, b'{"id":')
        await call.left.wait()
    else:
        await call.start_events()
        while not call.left.is_set():
            await call.write(KEEP_ALIVE if way == "comments" else delta("more"))
            await asyncio.sleep(0.005)


async def test_everything_is_given_back(start_engine: StartEngine) -> None:
    """More clients than slots: some wait in the queue, some for the first byte, some are amid an answer."""
    chance = random.Random(5)
    engine = await start_engine(never_ends)
    backend = {
        "name": "main",
        "adapter": "openai_compatible",
        "url": engine.url,
        "max_in_flight": SLOTS,
    }

    async def visit(number: int) -> None:
        way = chance.choice(["silent", "half", "comments", "words"])
        fields = chat(text=f"{way} {number}", stream=way in ("comments", "words"))
        client = await Client.ask(served.url, fields)
        await asyncio.sleep(chance.random() * 0.5)
        client.leave(politely=chance.random() < 0.5)

    async with serving(settings_of(backends=[backend])) as served:
        await asyncio.gather(*(visit(number) for number in range(CLIENTS)))
        await served.until_idle()
        await eventually(lambda: all(call.left.is_set() for call in engine.calls))
        assert served.metric("requests_in_flight") == 0
        assert SLOTS <= len(engine.calls) < CLIENTS  # The queue was used, and left.
        answer = await served.http.post("/v1/chat/completions", json=chat(text="plain"))
        assert answer.status_code == 200
        assert served.occupied == 0


async def test_who_leaves_the_queue_never_reaches_the_engine(start_engine: StartEngine) -> None:
    engine = await start_engine(never_ends)
    backend = {
        "name": "main",
        "adapter": "openai_compatible",
        "url": engine.url,
        "max_in_flight": 1,
    }
    async with serving(settings_of(backends=[backend])) as served:
        holder = await Client.ask(served.url, chat(text="silent holder"))
        await eventually(lambda: len(engine.calls) == 1)
        waiting = [await Client.ask(served.url, chat(text=f"silent {number}")) for number in range(30)]
        await eventually(lambda: served.gateway.router.snapshot().waiting == 30)
        for client in waiting:
            client.leave()
        await eventually(lambda: served.gateway.router.snapshot().waiting == 0)
        holder.leave()
        await served.until_idle()
    assert len(engine.calls) == 1
