"""The official SDK sees OpenAI, and raises the class that it would there."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from sluice_gateway.auth import digest

from .conftest import StartEngine
from .scripted_engine import ROLE, Call, delta, event
from .serving import ECHO, Served, eventually, serving, settings_of

MESSAGES: Any = [{"role": "user", "content": "one two three"}]
KEYS = [{"id": "a", "sha256": digest("sk-a")}]


def sdk(served: Served, api_key: str = "sk-a") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=api_key, max_retries=0)


async def test_answers_plain_and_streamed() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served, sdk(served) as client:
        assert [model.id async for model in client.models.list()] == ["echo"]
        assert (await client.models.retrieve("echo")).id == "echo"
        plain = await client.chat.completions.create(model="echo", messages=MESSAGES, n=2)
        assert [choice.message.content for choice in plain.choices] == ["one two three"] * 2
        assert plain.usage is not None
        stream = await client.chat.completions.create(model="echo", messages=MESSAGES, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == "one two three"
        legacy = await client.completions.create(model="echo", prompt="one two")
        assert legacy.choices[0].text == "one two"
        vectors = await client.embeddings.create(model="echo", input=["a", "b"])
        assert len(vectors.data) == 2


async def test_usage_comes_when_asked_for_and_only_then() -> None:
    async with serving(settings_of(backends=[ECHO])) as served, sdk(served) as client:
        for options in ({}, {"stream_options": {"include_usage": True}}):
            stream = await client.chat.completions.create(
                model="echo", messages=MESSAGES, stream=True, **options
            )
            chunks = [chunk async for chunk in stream]
            assert bool([chunk for chunk in chunks if chunk.usage]) == bool(options)
            assert (chunks[-1].choices == []) == bool(options)


async def test_each_failure_is_the_right_class() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served:

        async def raised(key: str = "sk-a", **fields: Any) -> openai.APIStatusError:
            async with sdk(served, key) as client:
                with pytest.raises(openai.APIStatusError) as caught:
                    await client.chat.completions.create(**{"model": "echo", "messages": MESSAGES, **fields})
            return caught.value

        assert isinstance(await raised(key="sk-b"), openai.AuthenticationError)
        assert isinstance(await raised(model="x"), openai.NotFoundError)
        wrong_type = await raised(max_tokens="many")
        assert isinstance(wrong_type, openai.BadRequestError)
        assert wrong_type.param == "max_tokens"
        unknown = await raised(extra_headers={"X-Backend": "abacus"})
        assert isinstance(unknown, openai.BadRequestError)
        assert unknown.code == "unknown_backend"
        for status, kind in ((429, openai.RateLimitError), (500, openai.InternalServerError)):
            failed = await raised(extra_headers={"X-Echo-Status": str(status)}, stream=True)
            assert type(failed) is kind
            assert failed.request_id


async def test_a_limit_is_a_rate_limit_error_that_says_when_to_come_back() -> None:
    limits = {"per_key": {"concurrent": 1}}
    async with serving(settings_of(backends=[ECHO], limits=limits)) as served, sdk(served) as client:
        slow = await client.chat.completions.create(
            model="echo", messages=MESSAGES, stream=True, extra_headers={"X-Echo-Tokens-Per-S": "5"}
        )
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="echo", messages=MESSAGES)
        assert caught.value.response.headers["retry-after"]
        assert [chunk async for chunk in slow]
        await served.until_idle()
        await client.chat.completions.create(model="echo", messages=MESSAGES)


async def test_a_full_queue_is_a_rate_limit_error_and_a_long_wait_a_server_error() -> None:
    echo = {**ECHO, "max_in_flight": 1}
    queue = {"max_waiting": 1, "timeout_s": 0.2}
    async with serving(settings_of(backends=[echo], queue=queue)) as served, sdk(served) as client:
        slow = await client.chat.completions.create(
            model="echo", messages=MESSAGES, stream=True, extra_headers={"X-Echo-Tokens-Per-S": "2"}
        )
        waiting = client.chat.completions.create(model="echo", messages=MESSAGES)
        task = asyncio.create_task(waiting)
        await eventually(lambda: served.gateway.router.snapshot().waiting == 1)
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="echo", messages=MESSAGES)
        with pytest.raises(openai.InternalServerError) as caught:
            await task
        assert (caught.value.status_code, caught.value.code) == (503, "overloaded")
        await slow.close()
        await served.until_idle()


async def test_an_error_in_a_stream_raises(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.start_events()
        await call.write(ROLE, delta("half"))
        await call.write(event(error={"message": "lost the plot", "code": 500}))
        await call.end()

    engine = await start_engine(script)
    backend = {"name": "main", "adapter": "openai_compatible", "url": engine.url}
    async with serving(settings_of(backends=[backend])) as served, sdk(served) as client:
        seen = ""
        with pytest.raises(openai.APIError, match="lost the plot"):
            stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            async for chunk in stream:
                seen += chunk.choices[0].delta.content or ""
    assert seen in ("", "half")
