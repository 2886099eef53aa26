"""`kill -9` of one of two workers amid a greedy answer: the client's text is that of an answer in peace."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from ..serving import chat
from .conftest import StartProcess
from .processes import Process
from .streaming_client import Answer, Client

ASK: dict[str, Any] = chat(
    model="sluice-tiny",
    text="Tell me a long story.",
    stream=True,
    temperature=0,
    max_tokens=800,
    ignore_eos=True,
    stream_options={"include_usage": True},
)


async def of(process: Process) -> int:
    """Requests that a worker runs."""
    async with httpx.AsyncClient() as http:
        page = (await http.get(f"{process.url}/metrics")).text
    return int(float(page.split("\nsluice_worker_requests_running ")[1].split("\n")[0]))


def usage(answer: Answer) -> dict[str, Any]:
    told = [piece["usage"] for piece in answer.objects if piece.get("usage")]
    assert len(told) == 1
    return {name: told[0][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


@pytest.mark.slow
async def test_the_whole_text_is_that_of_an_answer_in_peace(
    gateway: StartProcess, worker: StartProcess
) -> None:
    workers = [worker("--dtype", "float32", "--threads", "1") for _ in range(2)]
    for process in workers:
        await process.until_ready(120)
    urls = [process.url for process in workers]
    front = gateway(f"backends:\n  - {{name: main, adapter: worker, url: {urls}}}\n")
    await front.until_ready(30)
    peace = await (await Client.ask(front.url, ASK)).read_to_the_end()
    assert peace.done

    clients = [await Client.ask(front.url, ASK) for _ in range(4)]
    for client in clients:
        await client.read_some(4000)
    running = [await of(process) for process in workers]
    doomed = max(range(2), key=lambda number: running[number])
    workers[doomed].kill()
    answers = await asyncio.gather(*(client.read_to_the_end() for client in clients))

    assert running[doomed] > 0
    for answer in answers:
        assert answer.done, answer.errors
        assert answer.text == peace.text
        assert usage(answer) == usage(peace)
        assert len({piece["id"] for piece in answer.objects}) == 1
    metrics = await front.metrics()
    assert metrics['sluice_gateway_resumptions_total{result="completed"}'] == running[doomed]
