"""Chat completions, completions and models of the bundled engine, as OpenAI's SDK sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from running_stack import Stack

from .conftest import WORKER_MODEL
from .scripted_upstream import ScriptedServer, wait_for

PARIS: Any = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: dict[str, Any] = {"model": WORKER_MODEL, "messages": PARIS, "temperature": 0}


def test_a_question_is_answered_whole(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**GREEDY)

    (choice,) = answer.choices
    assert "Paris" in (choice.message.content or "")
    assert (choice.message.role, choice.finish_reason, choice.index) == ("assistant", "stop", 0)
    assert (answer.object, answer.model) == ("chat.completion", WORKER_MODEL)
    assert answer.id.startswith("chatcmpl-")
    assert isinstance(answer.created, int)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_and_in_pieces_that_are_well_formed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY)
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(**GREEDY, stream=True, stream_options=options))

    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in deltas) == whole.choices[0].message.content
    assert [choice.delta.role for choice in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert [choice.finish_reason for choice in deltas if choice.finish_reason] == ["stop"]
    assert deltas[-1].finish_reason == "stop"
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], chunks[-1].usage)
    assert whole.usage and chunks[-1].usage
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_the_stream_helper_gathers_the_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**GREEDY) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "Paris" in (final.choices[0].message.content or "")


def test_logprobs_come_streamed_as_well(client: openai.OpenAI) -> None:
    asked = {**GREEDY, "max_tokens": 4, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked).choices[0].logprobs
    chunks = client.chat.completions.create(**asked, stream=True)
    pieces = [
        entry
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for entry in choice.logprobs.content or []
    ]

    assert whole is not None
    assert [entry.token for entry in pieces] == [entry.token for entry in whole.content or []]
    assert all(len(entry.top_logprobs) == 2 for entry in pieces)


def test_a_completion_echoes_its_prompt(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": WORKER_MODEL, "prompt": "Once upon a time", "temperature": 0}
    whole = client.completions.create(**asked, max_tokens=8, echo=True)
    pieces = list(client.completions.create(**asked, max_tokens=8, stream=True))

    text = "".join(chunk.choices[0].text for chunk in pieces if chunk.choices)
    assert whole.choices[0].text == "Once upon a time" + text
    assert [chunk.choices[0].finish_reason for chunk in pieces if chunk.choices][-1] == "length"


def test_models_are_listed_and_looked_up(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed[0] == WORKER_MODEL
    found = client.models.retrieve(WORKER_MODEL)
    assert (found.id, found.object, found.owned_by) == (WORKER_MODEL, "model", "sluice")


def test_raw_responses_have_the_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        **GREEDY, max_tokens=2, extra_headers={"X-Request-Id": "mine-1"}
    )

    assert raw.request_id == raw.headers["x-request-id"] == "mine-1"
    assert raw.parse().choices
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert raw.headers["openai-version"] == "2020-10-01"
    assert raw.headers["x-sluice-backend"] == "worker"
    assert f"model={WORKER_MODEL}" in raw.headers["x-sluice-route"]
    assert raw.headers["server-timing"].startswith("queue;dur=")


def test_a_raw_stream_is_not_to_be_buffered(client: openai.OpenAI) -> None:
    asked = {**GREEDY, "max_tokens": 2, "stream": True}
    with client.chat.completions.with_streaming_response.create(**asked) as raw:
        lines = list(raw.iter_lines())

    assert raw.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert raw.headers["cache-control"] == "no-cache"
    assert raw.headers["x-accel-buffering"] == "no"
    assert "content-length" not in raw.headers
    assert raw.headers["x-request-id"]
    assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_stream_that_is_closed_early_frees_the_engine(
    client: openai.OpenAI, upstream: ScriptedServer
) -> None:
    with client.chat.completions.create(model="pauses", messages=PARIS, stream=True) as stream:
        assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "Wait"]
        call = upstream.last("/v1/chat/completions", "pauses")
        assert not call.left.is_set()

    wait_for(call.left.is_set, "the engine hears that the client left")


def test_a_client_that_gives_up_waiting_frees_the_engine(
    client: openai.OpenAI, upstream: ScriptedServer
) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="never", messages=PARIS, timeout=0.5)

    wait_for(upstream.last("/v1/chat/completions", "never").left.is_set, "the engine hears of it")


def test_the_bundled_engine_is_freed_as_well(client: openai.OpenAI, sluice: Stack) -> None:
    before = cancelled(sluice)
    for_ever: Any = {"max_tokens": 400, "extra_body": {"ignore_eos": True}}
    with client.chat.completions.create(**GREEDY, **for_ever, stream=True) as stream:
        next(stream)

    wait_for(lambda: cancelled(sluice) > before, "the worker has cancelled the request")
    wait_for(lambda: not sluice.metric("sluice_gateway_requests_in_flight"), "no request is left")


def cancelled(sluice: Stack) -> float:
    """Requests that the worker cancelled, by its own count."""
    (listening,) = [c for c in sluice.worker_process("server").net_connections() if c.status == "LISTEN"]
    page = httpx.get(f"http://127.0.0.1:{listening.laddr.port}/metrics").text
    lines = [line for line in page.splitlines() if 'outcome="cancelled"' in line and "_total{" in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def test_the_asynchronous_client_asks_many_things_at_once(sluice: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=f"{sluice.url}/v1", api_key="sk-sdk") as client:

        async def ask(number: int) -> tuple[str, str]:
            said: Any = [{"role": "user", "content": f"number {number}"}]
            whole = await client.chat.completions.create(model="echo", messages=said)
            stream = await client.chat.completions.create(model="echo", messages=said, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            return whole.choices[0].message.content or "", "".join(pieces)

        answers = await asyncio.gather(*map(ask, range(20)))

    assert answers == [(f"number {number}",) * 2 for number in range(20)]


async def test_an_asynchronous_stream_closed_early_frees_the_engine(
    sluice: Stack, upstream: ScriptedServer
) -> None:
    async with openai.AsyncOpenAI(base_url=f"{sluice.url}/v1", api_key="sk-sdk") as client:
        stream = await client.chat.completions.create(model="pauses", messages=PARIS, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        call = upstream.last("/v1/chat/completions", "pauses")
        await stream.close()
        await asyncio.to_thread(wait_for, call.left.is_set, "the engine hears that the client left")
