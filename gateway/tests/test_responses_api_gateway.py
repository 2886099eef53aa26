"""The Responses API through the whole gateway, as OpenAI's SDK uses it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from .conftest import StartEngine
from .scripted_engine import ROLE, Call, delta, plain, streamed
from .serving import PATIENCE_S, Served, serving, settings_of


def sdk(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE_S)


def settings_for(url: str, folder: Path) -> Any:
    backend = {"name": "main", "adapter": "openai_compatible", "url": url}
    return settings_of(backends=[backend], store={"url": f"sqlite:///{folder / 'store.db'}"})


async def answer(call: Call) -> None:
    """A script: as it was asked for."""
    await (streamed if call.fields.get("stream") else plain)(call)


async def test_created_streamed_continued_and_retrieved(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine(answer)
    async with serving(settings_for(engine.url, tmp_path)) as served, sdk(served) as client:
        first = await client.responses.create(model="m", input="one")
        async with client.responses.stream(model="m", input="two", previous_response_id=first.id) as stream:
            second = await stream.get_final_response()
        assert second.output_text == "Hello"
        assert second.usage is not None
        assert second.usage.input_tokens == 7
        kept = await client.responses.retrieve(second.id)
        assert kept.previous_response_id == first.id
        roles = [message["role"] for message in engine.calls[-1].fields["messages"]]
        assert roles == ["user", "assistant", "user"]
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(first.id)


async def test_a_stream_that_breaks_off_has_failed_and_is_kept(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    async def script(call: Call) -> None:
        await call.start_events()
        await call.write(ROLE, delta("half"))
        call.reset()

    engine = await start_engine(script)
    async with serving(settings_for(engine.url, tmp_path)) as served, sdk(served) as client:
        events = [e async for e in await client.responses.create(model="m", input="x", stream=True)]
        assert events[-1].type == "response.failed"
        assert [event.sequence_number for event in events] == [*range(len(events))]
        kept = await client.responses.retrieve(events[-1].response.id)
        assert kept.status == "failed"
        assert kept.output_text == "half"


@pytest.mark.parametrize("stream", [False, True])
async def test_in_the_background(start_engine: StartEngine, tmp_path: Path, stream: bool) -> None:
    engine = await start_engine(answer)
    async with serving(settings_for(engine.url, tmp_path)) as served, sdk(served) as client:
        if stream:
            events = await client.responses.create(model="m", input="x", background=True, stream=True)
            last = [event async for event in events][-1]
            assert last.type == "response.completed"
            response_id = last.response.id
        else:
            made = await client.responses.create(model="m", input="x", background=True)
            assert made.status == "queued"
            response_id = made.id
        found = await client.responses.retrieve(response_id)
        async with asyncio.timeout(PATIENCE_S):
            while found.status != "completed":
                found = await client.responses.retrieve(response_id)
        assert found.output_text == ("Hello" if stream else "Hi")


async def test_a_background_response_is_cancelled_down_to_the_engine(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    async def script(call: Call) -> None:
        await call.start_events()
        await call.write(ROLE, delta("half"))
        await call.left.wait()

    engine = await start_engine(script)
    async with serving(settings_for(engine.url, tmp_path)) as served, sdk(served) as client:
        stream = await client.responses.create(model="m", input="x", background=True, stream=True)
        response_id = ""
        async for event in stream:
            if event.type == "response.created":
                response_id = event.response.id
            elif event.type == "response.output_text.delta":
                await client.responses.cancel(response_id)
        await asyncio.wait_for(engine.calls[0].left.wait(), PATIENCE_S)
        found = await client.responses.retrieve(response_id)
        assert (found.status, found.output_text) == ("cancelled", "half")
        await served.until_idle()


async def test_input_tokens_are_the_engines(start_engine: StartEngine, tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        assert call.path == "/tokenize"
        await call.answer(200, {"count": len(call.fields["messages"]), "max_model_len": 9, "tokens": []})

    engine = await start_engine(script)
    backend = {
        "name": "main",
        "adapter": "openai_compatible",
        "url": engine.url,
        "endpoints": ["chat", "tokenize"],
    }
    store = {"url": f"sqlite:///{tmp_path / 'store.db'}"}
    async with serving(settings_of(backends=[backend], store=store)) as served, sdk(served) as client:
        counted = await client.responses.input_tokens.count(model="m", instructions="brief", input="hi")
        assert counted.input_tokens == 2


async def test_refusals_before_anything_are_real_statuses(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine(answer)
    async with serving(settings_for(engine.url, tmp_path)) as served, sdk(served) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model="m", input="x", tools=[{"type": "web_search"}], stream=True)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tools[0].type")
        with pytest.raises(openai.NotFoundError) as missing:
            await client.responses.create(model="unknown", input="x")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as lost:
            await client.responses.create(model="m", input="x", previous_response_id="resp_0")
        assert lost.value.code == "previous_response_not_found"
        assert not engine.calls
