"""Tools, structured output, embeddings, ranking, audio and images, to the letter of what the engine says.

Each test runs on the scripted engine, and on the worker as well once that declares the capability.
"""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import openai
import pydantic
import pytest
from running_stack import Stack

from . import payloads
from .conftest import Engine
from .scripted_upstream import ScriptedServer

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "get_weather", "parameters": WEATHER, "strict": True},
    }
]
ASKED: Any = [{"role": "user", "content": "What is the weather in Oslo and Bergen?"}]


class Person(pydantic.BaseModel):
    """What an answer is to be."""

    name: str
    age: int


def cities(calls: Any) -> list[str]:
    return [json.loads(call.function.arguments)["city"] for call in calls]


@pytest.mark.needs_engine("tool_calls")
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_in_chat(
    client: openai.OpenAI, engine: Engine, upstream: ScriptedServer, stream: bool
) -> None:
    asked: dict[str, Any] = {"model": engine.model, "tools": TOOLS, "tool_choice": "required"}
    if stream:
        with client.chat.completions.stream(**asked, messages=ASKED) as events:
            called = events.get_final_completion().choices[0]
    else:
        called = client.chat.completions.create(**asked, messages=ASKED).choices[0]
    calls: Any = called.message.tool_calls
    assert called.finish_reason == "tool_calls"
    assert all(call.type == "function" and call.function.name == "get_weather" for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    assert cities(calls)

    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls]
    history = [*ASKED, called.message.to_dict(), *results]
    told = client.chat.completions.create(**{**asked, "tool_choice": "auto"}, messages=history)
    assert told.choices[0].finish_reason == "stop"
    if engine.is_scripted:
        assert [call.id for call in calls] == [call["id"] for call in payloads.TOOL_CALLS]
        assert cities(calls) == ["Oslo", "Bergen"]
        assert told.choices[0].message.content == payloads.FORECAST
        sent = upstream.last("/v1/chat/completions").fields
        assert sent["tools"] == TOOLS
        assert sent["messages"][2]["tool_call_id"] == "call_Oslo"


@pytest.mark.needs_engine("tool_calls")
def test_a_tools_name_comes_once_and_its_arguments_in_pieces(client: openai.OpenAI, engine: Engine) -> None:
    chunks = list(
        client.chat.completions.create(
            model=engine.model, messages=ASKED, tools=TOOLS, tool_choice="required", stream=True
        )
    )
    pieces = [piece for c in chunks if c.choices for piece in c.choices[0].delta.tool_calls or []]

    first = [piece for piece in pieces if piece.id]
    assert [piece.index for piece in first] == [*range(len(first))]
    assert all(piece.type == "function" and piece.function and piece.function.name for piece in first)
    assert not [piece for piece in pieces if not piece.id and piece.function and piece.function.name]
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "tool_calls"


@pytest.mark.needs_engine("tool_calls")
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_in_responses(client: openai.OpenAI, engine: Engine, stream: bool) -> None:
    tool: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    asked: dict[str, Any] = {"model": engine.model, "tools": [tool]}
    first: Any = ASKED[0]["content"]
    if stream:
        with client.responses.stream(**asked, input=first, tool_choice="required") as events:
            kinds = [event.type for event in events]
            called = events.get_final_response()
        assert "response.function_call_arguments.delta" in kinds
        assert "response.function_call_arguments.done" in kinds
    else:
        called = client.responses.create(**asked, input=first, tool_choice="required")
    calls = [item for item in called.output if item.type == "function_call"]
    assert calls
    assert all(json.loads(call.arguments)["city"] for call in calls)

    results: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls
    ]
    told = client.responses.create(**asked, input=results, previous_response_id=called.id)
    assert told.output_text
    if engine.is_scripted:
        assert [call.call_id for call in calls] == ["call_Oslo", "call_Bergen"]
        assert told.output_text == payloads.FORECAST


@pytest.mark.needs_engine("tool_calls")
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_in_messages(claude: anthropic.Anthropic, engine: Engine, stream: bool) -> None:
    asked: dict[str, Any] = {
        "model": engine.model,
        "max_tokens": 200,
        "tools": [{"name": "get_weather", "input_schema": WEATHER}],
    }
    if stream:
        with claude.messages.stream(**asked, messages=ASKED, tool_choice={"type": "any"}) as events:
            called = events.get_final_message()
    else:
        called = claude.messages.create(**asked, messages=ASKED, tool_choice={"type": "any"})
    uses = [block for block in called.content if block.type == "tool_use"]
    assert called.stop_reason == "tool_use"
    assert uses
    assert all(use.name == "get_weather" and use.input["city"] for use in uses)

    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"} for use in uses]
    history = [
        *ASKED,
        {"role": "assistant", "content": [block.to_dict() for block in called.content]},
        {"role": "user", "content": results},
    ]
    told = claude.messages.create(**asked, messages=history)
    assert told.stop_reason == "end_turn"
    if engine.is_scripted:
        assert [use.input for use in uses] == [{"city": "Oslo"}, {"city": "Bergen"}]
        assert told.content[0].to_dict()["text"] == payloads.FORECAST
        assert (called.usage.input_tokens, called.usage.cache_read_input_tokens) == (13, 8)


@pytest.mark.needs_engine("json_schema")
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_parsed_in_chat(
    client: openai.OpenAI, engine: Engine, upstream: ScriptedServer, stream: bool
) -> None:
    asked: dict[str, Any] = {"model": engine.model, "messages": ASKED, "response_format": Person}
    if stream:
        with client.chat.completions.stream(**asked) as events:
            parsed = events.get_final_completion().choices[0].message.parsed
    else:
        parsed = client.chat.completions.parse(**asked).choices[0].message.parsed

    assert isinstance(parsed, Person)
    if engine.is_scripted:
        assert parsed == Person(name="Ada", age=36)
        sent = upstream.last("/v1/chat/completions").fields["response_format"]
        assert (sent["type"], sent["json_schema"]["strict"]) == ("json_schema", True)


@pytest.mark.needs_engine("json_schema")
def test_an_answer_is_parsed_in_responses(
    client: openai.OpenAI, engine: Engine, upstream: ScriptedServer
) -> None:
    answer = client.responses.parse(model=engine.model, input="Who?", text_format=Person)

    assert isinstance(answer.output_parsed, Person)
    assert answer.text is not None
    assert answer.text.format is not None
    assert answer.text.format.type == "json_schema"
    if engine.is_scripted:
        assert answer.output_parsed == Person(name="Ada", age=36)
        sent = upstream.last("/v1/chat/completions").fields["response_format"]
        assert sent["json_schema"]["name"] == "Person"


@pytest.mark.needs_engine("json_schema")
def test_an_answer_is_parsed_in_messages(claude: anthropic.Anthropic, engine: Engine) -> None:
    answer = claude.messages.parse(model=engine.model, max_tokens=200, messages=ASKED, output_format=Person)

    assert isinstance(answer.parsed_output, Person)
    if engine.is_scripted:
        assert answer.parsed_output == Person(name="Ada", age=36)


@pytest.mark.needs_engine("embeddings")
def test_vectors_are_the_same_however_they_travel(
    client: openai.OpenAI, engine: Engine, upstream: ScriptedServer
) -> None:
    asked: dict[str, Any] = {"model": engine.model, "input": ["one", "two"]}
    packed = client.embeddings.create(**asked)
    floats = client.embeddings.create(**asked, encoding_format="float")
    raw = client.embeddings.create(**asked, encoding_format="base64")

    assert [item.index for item in packed.data] == [0, 1]
    assert [item.embedding for item in packed.data] == [item.embedding for item in floats.data]
    assert isinstance(raw.data[0].embedding, str)
    assert packed.usage.prompt_tokens > 0
    assert client.embeddings.create(model=engine.model, input=[[1, 2, 3]]).data
    if engine.is_scripted:
        assert packed.data[0].embedding == payloads.VECTOR
        assert upstream.last("/v1/embeddings").fields["input"] == [[1, 2, 3]]


@pytest.mark.needs_engine("rerank")
@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_documents_are_ranked(
    client: openai.OpenAI, engine: Engine, upstream: ScriptedServer, sluice: Stack, path: str
) -> None:
    body = {"model": engine.model, "query": "capitals", "documents": ["Bread is baked.", "Paris."]}
    answer = client.post(f"{sluice.url}{path}", body=body, cast_to=httpx.Response).json()

    assert {found["index"] for found in answer["results"]} == {0, 1}
    scores = [found["relevance_score"] for found in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    if engine.is_scripted:
        assert answer == payloads.RANKED
        assert upstream.calls[-1].fields == body


@pytest.mark.needs_engine("score")
def test_pairs_are_scored(client: openai.OpenAI, engine: Engine) -> None:
    body = {"model": engine.model, "text_1": "one", "text_2": ["two"]}
    answer = client.post("/score", body=body, cast_to=httpx.Response).json()

    assert [found["index"] for found in answer["data"]] == [0]
    if engine.is_scripted:
        assert answer == payloads.SCORED


@pytest.mark.needs_engine("audio_speech")
def test_speech_is_the_bytes_that_it_is(client: openai.OpenAI, engine: Engine) -> None:
    asked: dict[str, Any] = {"model": engine.model, "voice": "alloy", "input": "Hello"}
    speech = client.audio.speech.create(**asked)
    with client.audio.speech.with_streaming_response.create(**asked) as stream:
        streamed = b"".join(stream.iter_bytes())

    assert speech.content == streamed
    assert speech.response.headers["content-type"] == "audio/mpeg"
    if engine.is_scripted:
        assert streamed == payloads.SOUND


@pytest.mark.needs_engine("audio_transcriptions")
def test_speech_is_heard(client: openai.OpenAI, engine: Engine, upstream: ScriptedServer) -> None:
    heard = client.audio.transcriptions.create(
        model=engine.model, file=("a.mp3", payloads.SOUND), language="en"
    )

    assert heard.text
    if engine.is_scripted:
        assert heard.text == payloads.TRANSCRIPTION["text"]
        call = upstream.last("/v1/audio/transcriptions")
        assert payloads.SOUND in call.body
        assert b'name="language"' in call.body
        assert call.headers["content-type"].startswith("multipart/form-data; boundary=")


@pytest.mark.needs_engine("audio_translations")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_speech_is_translated(client: openai.OpenAI, engine: Engine) -> None:
    heard = client.audio.translations.create(model=engine.model, file=("a.mp3", payloads.SOUND))

    assert heard.text


@pytest.mark.needs_engine("images_generations")
def test_images_are_drawn(client: openai.OpenAI, engine: Engine, upstream: ScriptedServer) -> None:
    drawn = client.images.generate(model=engine.model, prompt="A cat", n=1)
    events = list(client.images.generate(model=engine.model, prompt="A cat", stream=True))

    assert drawn.data
    assert drawn.data[0].b64_json
    assert events[-1].type == "image_generation.completed"
    if engine.is_scripted:
        assert drawn.data[0].b64_json == payloads.PIXELS
        assert [event.type for event in events] == [name for name, _ in payloads.IMAGE_EVENTS]
        assert upstream.last("/v1/images/generations").fields["prompt"] == "A cat"


@pytest.mark.needs_engine("images_edits")
def test_images_are_edited(client: openai.OpenAI, engine: Engine) -> None:
    edited = client.images.edit(model=engine.model, image=[("a.png", b"\x89PNG")], prompt="More")

    assert edited.data


@pytest.mark.needs_engine("images_variations")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_images_are_varied(client: openai.OpenAI, engine: Engine) -> None:
    varied = client.images.create_variation(model=engine.model, image=("a.png", b"\x89PNG"))

    assert varied.data


def test_what_an_engine_does_not_declare_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.audio.speech.create(model="echo", voice="alloy", input="Hello")
    with pytest.raises(openai.BadRequestError):
        client.images.generate(model="echo", prompt="A cat")
