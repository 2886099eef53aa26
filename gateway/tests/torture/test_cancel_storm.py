"""64 streams at once, and a fifth of the clients hangs up: the others notice nothing, and nothing stays."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from ..conftest import StartEngine
from ..scripted_engine import DONE, FINISH, ROLE, Call, delta
from ..serving import Served, chat, eventually, serving, settings_of
from .conftest import StartProcess
from .processes import Process, settles
from .storm import Storm, storm
from .streaming_client import Client

STREAMS = 64
WORDS = 40


class Countdown:
    """A script that repeats the question's name with every word, so that a mix-up cannot go unseen."""

    def __init__(self) -> None:
        self.running = 0

    async def __call__(self, call: Call) -> None:
        self.running += 1
        try:
            await self._answer(call, call.fields["messages"][0]["content"])
        finally:
            self.running -= 1

    async def _answer(self, call: Call, name: str) -> None:
        pace = random.Random(name)
        await call.start_events()
        await call.write(ROLE)
        for number in range(WORDS):
            if call.left.is_set():
                return
            await call.write(delta(f"{name}:{number} "))
            await asyncio.sleep(pace.random() * 0.01)
        await call.write(FINISH, DONE)
        await call.end()


def questions(round_number: int) -> dict[str, dict[str, object]]:
    names = [f"question-{round_number}-{number}" for number in range(STREAMS)]
    return {name: chat(text=name, stream=True) for name in names}


def check(result: Storm) -> None:
    assert result.left == round(STREAMS * 0.2)
    assert len(result.answers) == STREAMS - result.left
    for name, answer in result.answers.items():
        assert answer.status == 200
        assert answer.text == "".join(f"{name}:{number} " for number in range(WORDS))
        assert answer.done
        assert answer.errors == []


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.parametrize("upstream", ["native", "httpx"])
async def test_within_one_event_loop(start_engine: StartEngine, upstream: str) -> None:
    """Gateway, engine and clients share a loop, so that tasks can be counted too."""
    script = Countdown()
    engine = await start_engine(script)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url, "upstream": upstream}
    async with serving(settings_of(backends=[backend])) as served:
        await storm(served.url, questions(0), seed=0, leaving=0.0)
        await idle(served)
        tasks, files = len(asyncio.all_tasks()), open_files()
        for round_number in (1, 2, 3):
            check(await storm(served.url, questions(round_number), seed=round_number))
            await idle(served)
        # Engine's and probes' idle connections come and go; what may not be is more than before the storms.
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        await eventually(lambda: open_files() <= files)
        left = served.metric("requests_total", kind="chat", backend="main", outcome="client_gone")
        whole = served.metric("requests_total", kind="chat", backend="main", outcome="ok")
    # Who hangs up before the request is read, or after the last word, is not counted as gone.
    leavers = 3 * round(STREAMS * 0.2)
    assert 4 * STREAMS - leavers <= whole <= 4 * STREAMS - left
    assert 0 < left <= leavers
    await eventually(lambda: script.running == 0)


async def idle(served: Served) -> None:
    await served.until_idle()
    assert served.metric("requests_in_flight") == 0


def config(adapter: str, url: str, upstream: str = "native") -> str:
    return f"backends:\n  - {{name: main, adapter: {adapter}, url: '{url}', upstream: {upstream}}}\n"


@pytest.mark.parametrize("upstream", ["native", "httpx"])
async def test_as_a_process(start_engine: StartEngine, gateway: StartProcess, upstream: str) -> None:
    """The installed command, on its own event loop: what it holds is read from outside."""
    script = Countdown()
    engine = await start_engine(script)
    process = gateway(config("openai_compatible", engine.url, upstream))
    await process.until_ready(30)
    await storm(process.url, questions(0), seed=0, leaving=0.0)
    files = await files_at_rest(process)
    memory = process.memory_bytes()

    for round_number in (1, 2, 3):
        check(await storm(process.url, questions(round_number), seed=100 + round_number))

    await settles(lambda: in_flight(process), 0)
    await settles(process.open_files, files)
    assert script.running == 0
    assert process.memory_bytes() < memory + 32 * 2**20
    assert "Traceback" not in process.log()


@pytest.mark.slow
async def test_down_to_the_workers_memory(gateway: StartProcess, worker: StartProcess) -> None:
    """The bundled model: who stays gets the same words as alone, who leaves gives back its KV blocks."""
    engine = worker("--dtype", "float32", "--threads", "1")
    await engine.until_ready(120)
    process = gateway(config("worker", engine.url))
    await process.until_ready(30)
    await one_by_one(process.url, dict(list(bundled_questions().items())[:1]))
    files, engine_files = await files_at_rest(process), engine.open_files()

    result = await storm(process.url, bundled_questions(), seed=42)

    await settles(lambda: in_flight(process), 0)
    await settles(lambda: held_by(engine), 0)
    assert len(result.answers) == STREAMS - result.left
    some = dict(list(bundled_questions().items())[::4])
    for name, text in (await one_by_one(process.url, some)).items():
        assert name not in result.answers or result.answers[name].text == text
    assert all(answer.status == 200 and answer.done and answer.text for answer in result.answers.values())
    await settles(process.open_files, files)
    await settles(engine.open_files, engine_files)


def bundled_questions() -> dict[str, dict[str, object]]:
    animals = ["cat", "dog", "fox", "bird", "horse", "mouse", "bear", "fish"]
    places = ["garden", "forest", "river", "kitchen", "school", "market", "hill", "boat"]
    texts = [f"Tell me a story about a {animal} and a {place}." for animal in animals for place in places]
    more = {"stream": True, "temperature": 0, "max_tokens": 24}
    return {text: chat(model="sluice-tiny", text=text, **more) for text in texts}


async def one_by_one(url: str, requests: dict[str, dict[str, object]]) -> dict[str, str]:
    texts = {}
    for question, fields in requests.items():
        answer = await (await Client.ask(url, fields)).read_to_the_end()
        assert answer.done
        texts[question] = answer.text
    return texts


async def held_by(engine: Process) -> float:
    """Sequences and blocks that requests still hold in the worker; cached prefixes may stay."""
    metrics = await engine.metrics()
    names = ("requests_running", "requests_waiting", "kv_blocks_used", "http_requests_in_flight")
    return sum(metrics[f"sluice_worker_{name}"] for name in names)


async def in_flight(process: Process) -> float:
    metrics = await process.metrics()
    held = {name: value for name, value in metrics.items() if "in_flight" in name or "waiting" in name}
    assert held, "no such metrics"
    return sum(held.values())


async def files_at_rest(process: Process) -> int:
    """File descriptors once idle connections have expired."""
    lowest, since = process.open_files(), 0
    while since < 20:
        await asyncio.sleep(0.1)
        now = process.open_files()
        lowest, since = (now, 0) if now < lowest else (lowest, since + 1)
    return lowest
