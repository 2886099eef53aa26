"""Anthropic's SDK, the gateway on a real port, and an engine that speaks only chat completions."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, TextBlock, ToolUseBlock

from sluice_gateway.auth import digest

from ..conftest import StartEngine
from ..scripted_engine import DONE, ROLE, Call, ScriptedEngine, event
from ..serving import ECHO, Served, eventually, serving, settings_of
from .messages_chat import LAST, answer, call, chunk, more

KEYS = [{"id": "a", "sha256": digest("sk-a")}]
ASK: dict[str, Any] = {
    "model": "m",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "one two three"}],
}
TOOLS: Any = [{"name": "get_weather", "description": "Weather.", "input_schema": {"type": "object"}}]
CALL = call("call_1", "get_weather", '{"city":"Oslo"}')


def sdk(served: Served, **options: Any) -> anthropic.AsyncAnthropic:
    given = {"api_key": "sk-a", "max_retries": 0, **options}
    return anthropic.AsyncAnthropic(base_url=served.url, **given)


def backend(engine: ScriptedEngine, name: str = "main", **more: Any) -> dict[str, Any]:
    return {"name": name, "adapter": "openai_compatible", "url": engine.url, **more}


def data(chunk: bytes) -> bytes:
    return b"data: " + chunk + b"\n\n"


async def whole_message(served: Served, **fields: Any) -> Message:
    async with sdk(served) as client:
        message: Message = await client.messages.create(**{**ASK, **fields})
        return message


async def streamed_message(served: Served, **fields: Any) -> Message:
    async with sdk(served) as client, client.messages.stream(**{**ASK, **fields}) as stream:
        return await stream.get_final_message()


async def test_text_is_answered_whole_and_streamed() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        whole = await whole_message(served, model="echo", system="Be brief.")
        streamed = await streamed_message(served, model="echo", system="Be brief.")

    for message in (whole, streamed):
        (block,) = message.content
        assert isinstance(block, TextBlock)
        assert block.text == "one two three"
        assert (message.model, message.stop_reason) == ("echo", "end_turn")
        assert message.usage.output_tokens == 3
    assert streamed.usage == whole.usage


async def test_a_tool_is_called_and_its_result_goes_back(start_engine: StartEngine) -> None:
    async def script(asked: Call) -> None:
        if asked.fields["messages"][-1]["role"] == "tool":
            await asked.answer(200, answer(content="It is sunny."))
        elif asked.fields.get("stream"):
            chunks = [
                chunk(content="Let me see."),
                chunk(tool_calls=[call("call_1", "get_weather", "", 0)]),
                chunk(tool_calls=[more(0, '{"city": ')]),
                chunk(tool_calls=[more(0, '"Oslo"}')]),
                chunk("tool_calls"),
                LAST,
            ]
            await asked.stream(*map(data, chunks), DONE)
        else:
            await asked.answer(200, answer("tool_calls", content="Let me see.", tool_calls=[CALL]))

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        for ask in (whole_message, streamed_message):
            called = await ask(served, tools=TOOLS, tool_choice={"type": "any"})
            use = called.content[1]
            assert isinstance(use, ToolUseBlock)
            assert (use.name, use.input, called.stop_reason) == ("get_weather", {"city": "Oslo"}, "tool_use")
            result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
            history = [
                *ASK["messages"],
                {"role": "assistant", "content": called.content},
                {"role": "user", "content": [result]},
            ]
            final = await whole_message(served, tools=TOOLS, messages=history)
            assert final.stop_reason == "end_turn"
            asked = engine.calls[-1].fields
            assert asked["messages"][1]["tool_calls"] == [CALL]
            assert asked["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}


async def test_each_failure_is_the_right_class() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served:

        async def raised(key: str = "sk-a", **fields: Any) -> anthropic.APIStatusError:
            async with sdk(served, api_key=key) as client:
                with pytest.raises(anthropic.APIStatusError) as caught:
                    await client.messages.create(**{**ASK, "model": "echo", **fields})
            error = caught.value
            assert isinstance(error.body, dict)
            assert error.body["type"] == "error"
            assert error.body["request_id"] == error.response.headers["x-request-id"]
            return error

        cases: list[tuple[type[anthropic.APIStatusError], str, dict[str, Any]]] = [
            (anthropic.AuthenticationError, "authentication_error", {"key": "sk-b"}),
            (anthropic.NotFoundError, "not_found_error", {"model": "x"}),
            (anthropic.BadRequestError, "invalid_request_error", {"max_tokens": 0}),
            (anthropic.BadRequestError, "invalid_request_error", {"messages": []}),
            (
                anthropic.BadRequestError,
                "invalid_request_error",
                {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            ),
            (anthropic.RateLimitError, "rate_limit_error", {"extra_headers": {"X-Echo-Status": "429"}}),
            (anthropic.InternalServerError, "api_error", {"extra_headers": {"X-Echo-Status": "500"}}),
        ]
        for expected, kind, fields in cases:
            for stream in (False, True):
                error = await raised(**fields, stream=stream)
                assert isinstance(error, expected)
                assert error.body["error"]["type"] == kind, fields  # type: ignore[index]


async def test_a_missing_max_tokens_is_named() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        body = {"model": "echo", "messages": ASK["messages"]}
        response = await served.http.post("/v1/messages", json=body)

    assert response.status_code == 400
    assert response.json()["error"] == {
        "type": "invalid_request_error",
        "message": "max_tokens: is required.",
    }


async def test_either_header_may_hold_the_key() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served:
        for headers in (
            {"x-api-key": "sk-a"},
            {"authorization": "Bearer sk-a"},
            {"x-api-key": "sk-a", "authorization": "Bearer nonsense"},
            {"x-api-key": "nonsense", "authorization": "bearer sk-a"},
        ):
            asked = {**ASK, "model": "echo"}
            response = await served.http.post("/v1/messages", json=asked, headers=headers)
            assert response.status_code == 200, headers


async def test_a_stream_that_breaks_raises(start_engine: StartEngine) -> None:
    async def script(asked: Call) -> None:
        await asked.start_events()
        await asked.write(ROLE, data(chunk(content="half")))
        await asked.write(event(error={"message": "lost the plot", "code": 500}))
        await asked.end()

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        with pytest.raises(anthropic.APIStatusError, match="lost the plot"):
            await streamed_message(served)


async def test_another_engine_takes_over_before_the_message_has_begun(start_engine: StartEngine) -> None:
    async def dies(asked: Call) -> None:
        await asked.start_events()
        await asked.write(ROLE)
        asked.reset()

    async def lives(asked: Call) -> None:
        await asked.stream(ROLE, data(chunk(content="Hello")), data(chunk("stop")), data(LAST), DONE)

    first, second = await start_engine(dies), await start_engine(lives)
    replicas = {**backend(first), "url": [first.url, second.url]}
    async with serving(settings_of(backends=[replicas])) as served:
        for _ in range(2):
            body = {**ASK, "stream": True}
            text = (await served.http.post("/v1/messages", json=body)).text
            assert text.count("event: message_start") == 1
            assert text.endswith('data: {"type":"message_stop"}\n\n')
    assert first.calls


async def test_usage_is_settled_from_what_the_engine_says(start_engine: StartEngine) -> None:
    async def script(asked: Call) -> None:
        await asked.stream(data(chunk(content="Hello")), data(chunk("stop")), data(LAST), DONE)

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        message = await streamed_message(served)
        usage = message.usage
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (4, 8, 5)
        assert engine.calls[0].fields["stream_options"] == {"include_usage": True}


async def test_an_engine_that_speaks_the_dialect_gets_the_clients_bytes(start_engine: StartEngine) -> None:
    async def script(asked: Call) -> None:
        assert asked.path == "/v1/messages"
        await asked.answer(200, {"type": "message", "its": "own"})

    engine = await start_engine(script)
    native = backend(engine, endpoints=["chat", "messages"])
    body = json.dumps({**ASK, "mcp_servers": [{"type": "url"}]}, indent=3).encode()
    async with serving(settings_of(backends=[native])) as served:
        response = await served.http.post("/v1/messages", content=body)

    assert response.json() == {"type": "message", "its": "own"}
    assert engine.calls[0].body == body


async def test_tokens_are_counted_by_the_engine(start_engine: StartEngine) -> None:
    async def script(asked: Call) -> None:
        assert asked.path == "/tokenize"
        await asked.answer(200, {"count": 17, "max_model_len": 99, "tokens": [1] * 17})

    engine = await start_engine(script)
    counting = backend(engine, endpoints=["chat", "tokenize"])
    async with serving(settings_of(backends=[counting])) as served, sdk(served) as client:
        count = await client.messages.count_tokens(
            model="m", messages=ASK["messages"], system="Be brief.", tools=TOOLS
        )

    assert count.input_tokens == 17
    asked = engine.calls[0].fields
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert asked["tools"][0]["function"]["name"] == "get_weather"


async def test_an_engine_that_cannot_count_is_not_asked() -> None:
    async with serving(settings_of(backends=[ECHO])) as served, sdk(served) as client:
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.count_tokens(model="echo", messages=ASK["messages"])


async def test_a_client_that_leaves_frees_the_engine(start_engine: StartEngine) -> None:
    async def script(asked: Call) -> None:
        await asked.start_events()
        await asked.write(data(chunk(content="Hello")))
        await asked.left.wait()

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine)])) as served:
        async with sdk(served) as client, client.messages.stream(**ASK) as stream:
            await anext(stream.text_stream.__aiter__())
        await eventually(lambda: engine.calls[0].left.is_set())
        await served.until_idle()


async def test_messages_of_many_clients_are_not_mixed_up() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:

        async def one(number: int) -> None:
            said = [{"role": "user", "content": f"number {number}"}]
            message = await streamed_message(served, model="echo", messages=said)
            assert message.content[0].to_dict()["text"] == f"number {number}"

        await asyncio.gather(*map(one, range(20)))
