"""What clients ask of engines, asked of real ones through the gateway."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from .fleet import ALIAS, Fleet
from .streams import body, contents, on

QUESTION = "What is the capital of France?"
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}


def chat(fleet: Fleet, engine: str, text: str = QUESTION, **more: Any) -> httpx.Response:
    sent = body(text, temperature=0, **more)
    return httpx.post(f"{fleet.url}/v1/chat/completions", json=sent, headers=on(engine), timeout=300)


def refused_with_names(answer: httpx.Response, param: str, able: list[str]) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", param)
    assert all(name in error["message"] for name in able)


def test_a_stream_is_the_plain_answer_in_pieces(fleet: Fleet, engine: str) -> None:
    plain = chat(fleet, engine)
    sent = body(QUESTION, temperature=0, stream=True)
    with httpx.stream(
        "POST", f"{fleet.url}/v1/chat/completions", json=sent, headers=on(engine), timeout=300
    ) as stream:
        pieces = list(contents(stream.iter_lines()))

    assert plain.headers["x-sluice-backend"] == engine
    answer = plain.json()
    assert "".join(pieces) == answer["choices"][0]["message"]["content"]
    assert "Paris" in "".join(pieces)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] > answer["usage"]["completion_tokens"] > 0


def test_log_probabilities_have_an_entry_for_each_token(fleet: Fleet, engine: str) -> None:
    if not fleet.can(engine, "logprobs"):
        pytest.skip("the adapter says that the engine has none")
    choice = chat(fleet, engine, logprobs=True, top_logprobs=2).json()["choices"][0]

    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries).startswith(choice["message"]["content"])
    assert all(entry["logprob"] <= 0 and entry["top_logprobs"] for entry in entries)


def test_log_probabilities_of_a_prompt_come_or_are_refused(fleet: Fleet, engine: str) -> None:
    sent = {"model": ALIAS, "prompt": "Once upon a time", "echo": True, "logprobs": 1, "max_tokens": 2}
    answer = httpx.post(f"{fleet.url}/v1/completions", json=sent, headers=on(engine), timeout=300)

    if not fleet.can(engine, "prompt_logprobs"):
        refused_with_names(answer, "echo", fleet.able("prompt_logprobs"))
        return
    found = answer.json()["choices"][0]
    assert found["text"].startswith("Once upon a time")
    assert found["logprobs"]["token_logprobs"][0] is None
    assert len(found["logprobs"]["tokens"]) == answer.json()["usage"]["total_tokens"]


def test_a_tool_is_called_or_the_wish_is_refused(fleet: Fleet, engine: str) -> None:
    answer = chat(fleet, engine, "What is the weather in Paris?", tools=TOOLS, tool_choice="required")

    if not fleet.can(engine, "tool_calls"):
        refused_with_names(answer, "tool_choice", fleet.able("tool_calls"))
        return
    choice = answer.json()["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert choice["finish_reason"] in ("tool_calls", "stop")
    assert call["id"] and call["type"] == "function"
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_an_answer_fits_a_schema_or_the_schema_is_refused(fleet: Fleet, engine: str) -> None:
    answer = chat(fleet, engine, "Red or blue?", response_format=SCHEMA, max_tokens=60)

    if not fleet.can(engine, "json_schema"):
        refused_with_names(answer, "response_format", fleet.able("json_schema"))
        return
    assert json.loads(answer.json()["choices"][0]["message"]["content"])["colour"] in ("red", "blue")


def test_what_one_engine_lacks_another_does_for_a_client_who_only_prefers_it(fleet: Fleet) -> None:
    lacking = [name for name in fleet.engines if not fleet.can(name, "json_schema")]
    able = fleet.able("json_schema")
    if not lacking or not able:
        pytest.skip("all engines here can, or none")
    sent = body("Red or blue?", response_format=SCHEMA, max_tokens=60)
    answer = httpx.post(
        f"{fleet.url}/v1/chat/completions", json=sent, headers=on(lacking[0], prefer=True), timeout=300
    )

    assert answer.status_code == 200
    assert answer.headers["x-sluice-backend"] in able
    assert "relaxed" in answer.headers["x-sluice-route"]


def test_a_stored_response_is_continued_on_another_engine(
    fleet: Fleet, client: openai.OpenAI, engine: str
) -> None:
    other = next((name for name in fleet.engines if name != engine), engine)
    first = client.responses.create(
        model=ALIAS, input=QUESTION, temperature=0, extra_headers={"X-Backend": engine}
    )
    second = client.responses.create(
        model=ALIAS,
        input="Thank you!",
        previous_response_id=first.id,
        temperature=0,
        extra_headers={"X-Backend": other},
    )

    assert "Paris" in first.output_text
    assert second.output_text
    assert second.usage is not None and first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens, "the first turn is part of the prompt"


def test_anthropics_messages_are_served(fleet: Fleet, engine: str) -> None:
    sent = {"model": ALIAS, "max_tokens": 30, "temperature": 0}
    sent |= {"messages": [{"role": "user", "content": QUESTION}]}
    answer = httpx.post(f"{fleet.url}/v1/messages", json=sent, headers=on(engine), timeout=300).json()

    assert "Paris" in answer["content"][0]["text"]
    assert answer["stop_reason"] == "end_turn"


def test_a_prompt_over_the_context_is_told_as_openai_does(fleet: Fleet, engine: str) -> None:
    error = chat(fleet, engine, "again and " * 40_000).json()["error"]

    assert (error["code"], error["type"]) == ("context_length_exceeded", "invalid_request_error")


def test_a_kind_that_no_engine_was_started_for_is_refused_before_it_is_asked(
    fleet: Fleet, engine: str
) -> None:
    if fleet.can(engine, "embeddings"):
        pytest.skip("the adapter says that the engine has them")
    sent = {"model": ALIAS, "input": "Hi"}
    answer = httpx.post(f"{fleet.url}/v1/embeddings", json=sent, headers=on(engine), timeout=60)

    assert answer.status_code == 400
    assert "'embeddings' is not offered" in answer.json()["error"]["message"]
