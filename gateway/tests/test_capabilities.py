"""What an engine lacks: a 400 that says who has it, or another engine where that was only a wish."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import StartEngine
from .scripted_engine import ScriptedEngine, plain
from .serving import chat, serving, settings_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
FLAT_SCHEMA = {"type": "json_schema", "name": "s", "schema": {"type": "object"}}
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
ANTHROPIC_TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]
ANTHROPIC_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


def backends(engine: ScriptedEngine) -> list[dict[str, object]]:
    """One that can do little, one that writes no log-probabilities of prompts, one that can do all."""
    known = {"url": engine.url, "models": ["m"]}
    return [
        {"name": "simple", "adapter": "worker", **known},
        {"name": "llamacpp", "adapter": "llamacpp", **known},
        {"name": "vllm", "adapter": "vllm", **known},
    ]


@pytest.mark.parametrize(
    ("backend", "path", "body", "param", "able"),
    [
        ("simple", CHAT, {"response_format": SCHEMA}, "response_format", "llamacpp, vllm"),
        ("simple", CHAT, {"tools": TOOLS, "tool_choice": "required"}, "tool_choice", "llamacpp, vllm"),
        ("simple", CHAT, {"messages": IMAGE}, "messages", "llamacpp, vllm"),
        ("llamacpp", COMPLETIONS, {"prompt": "x", "echo": True, "logprobs": 1}, "echo", "simple, vllm"),
        (
            "simple",
            "/v1/responses",
            {"input": "x", "text": {"format": FLAT_SCHEMA}},
            "text.format",
            "llamacpp, vllm",
        ),
        (
            "simple",
            "/v1/messages",
            {"max_tokens": 9, "messages": [{"role": "user", "content": [ANTHROPIC_IMAGE]}]},
            None,
            "llamacpp, vllm",
        ),
        (
            "simple",
            "/v1/messages",
            {"max_tokens": 9, "tools": ANTHROPIC_TOOLS, "tool_choice": {"type": "any"}},
            None,
            "llamacpp, vllm",
        ),
        ("llamacpp", "/tokenize", {"prompt": "x"}, None, "simple, vllm"),
    ],
)
async def test_a_feature_that_is_lacking_is_refused_or_found_elsewhere(
    start_engine: StartEngine, backend: str, path: str, body: dict[str, Any], param: str | None, able: str
) -> None:
    engine = await start_engine(plain)
    sent = chat("m") | body
    async with serving(settings_of(backends=backends(engine))) as served:
        held = await served.http.post(path, json=sent, headers={"x-backend": backend})
        assert engine.calls == [], "the engine is not even asked"
        wished = await served.http.post(path, json=sent, headers={"x-backend": backend, "x-route": "prefer"})
        free = await served.http.post(path, json=sent)
    error = held.json()["error"]
    assert held.status_code == 400
    assert f"Backends that can: {able}" in error["message"]
    assert error.get("param") == param
    for answer in (wished, free):
        assert answer.headers["x-sluice-backend"] in able.split(", ")
    assert "relaxed" in wished.headers["x-sluice-route"]


async def test_what_nobody_has_is_refused_however_softly_it_is_asked(start_engine: StartEngine) -> None:
    engine = await start_engine(plain)
    settings = settings_of(backends=backends(engine)[:1])
    async with serving(settings) as served:
        for headers in ({}, {"x-backend": "simple"}, {"x-backend": "simple", "x-route": "prefer"}):
            answer = await served.http.post(CHAT, json=chat("m", response_format=SCHEMA), headers=headers)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "unsupported_parameter")
            assert error["param"] == "response_format"
            assert "Neither does any other backend." in error["message"]
