"""What the router is told of a prompt: the chain of a conversation's next turn begins with this one's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluice_gateway.dialects.messages import facts as messages_facts
from sluice_gateway.facts import BodyFacts, decode
from sluice_gateway.identity import Key
from sluice_gateway.models import Catalog
from sluice_gateway.routes import Kind
from sluice_router.router import Router
from sluice_router.types import Endpoint, RequestFacts

from .conftest import StartEngine
from .scripted_engine import Call, plain
from .serving import chat, serving, settings_of

SYSTEM = "You are the assistant of a shop that sells boats. " * 20
FIRST = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Which one floats? é" * 30}]
SECOND = [*FIRST, {"role": "assistant", "content": "All of them."}, {"role": "user", "content": "Why?" * 99}]
TOOLS = [{"type": "function", "function": {"name": "price", "description": "What a boat costs. " * 30}}]


def catalog(engines: int = 2) -> Catalog:
    endpoints = [Endpoint(id=f"e{n}", backend="b", url=f"http://e{n}") for n in range(engines)]
    return Catalog(Router(endpoints, max_queue=1, queue_timeout_s=1.0), 0)


def prefix(
    body: BodyFacts, kind: Kind = "chat", tenant: str = "default", engines: int = 2
) -> tuple[int, ...]:
    found = catalog(engines).facts("r", kind, body, {}, Key(id="k", tenant=tenant))
    assert isinstance(found, RequestFacts)
    return found.prefix


def of_chat(messages: Any, indent: int | None = None, **more: Any) -> BodyFacts:
    body = {"stream": True, **more, "model": "m", "messages": messages, "temperature": 0.5}
    found = decode("chat", json.dumps(body, indent=indent).encode())
    assert isinstance(found, BodyFacts)
    return found


def begins(second: tuple[int, ...], first: tuple[int, ...]) -> bool:
    return len(second) > len(first) > 3 and second[: len(first)] == first


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("more", [{}, {"tools": TOOLS}])
def test_the_next_turn_of_a_chat_begins_with_the_chain_of_this_one(more: Any, indent: int | None) -> None:
    first, second = (prefix(of_chat(turn, indent, **more)) for turn in (FIRST, SECOND))

    assert begins(second, first)


def test_only_what_the_engine_reads_is_in_the_chain() -> None:
    assert prefix(of_chat(FIRST)) == prefix(of_chat(FIRST, max_tokens=7, user="u", seed=3))
    assert not set(prefix(of_chat(FIRST))) & set(prefix(of_chat(FIRST, tools=TOOLS)))
    assert not set(prefix(of_chat(FIRST))) & set(prefix(of_chat(FIRST), tenant="other"))


def test_the_next_turn_in_anthropics_dialect_does_too() -> None:
    def chain_of(turn: Any) -> tuple[int, ...]:
        body = {"model": "m", "max_tokens": 5, "system": SYSTEM, "messages": turn[1:], "tools": TOOLS}
        found = messages_facts.decode(json.dumps(body).encode())
        assert isinstance(found, BodyFacts)
        return prefix(found, "messages")

    assert begins(chain_of(SECOND), chain_of(FIRST))


def test_a_prompt_that_goes_on_begins_with_the_chain_of_the_shorter_one() -> None:
    def chain_of(prompt: Any) -> tuple[int, ...]:
        found = decode("completions", json.dumps({"model": "m", "prompt": prompt}).encode())
        assert isinstance(found, BodyFacts)
        return prefix(found, "completions")

    assert begins(chain_of(SYSTEM * 3), chain_of(SYSTEM * 2))
    assert begins(chain_of(list(range(900))), chain_of(list(range(400))))


def test_where_there_is_nothing_to_choose_or_to_keep_there_is_no_chain() -> None:
    assert prefix(of_chat(FIRST), engines=1) == ()
    found = decode("embeddings", json.dumps({"model": "m", "input": SYSTEM}).encode())
    assert isinstance(found, BodyFacts)
    assert prefix(found, "embeddings") == ()
    assert prefix(of_chat([{"role": "user", "content": "Hi"}])) == ()


async def test_a_conversation_stays_on_its_engine_and_its_hits_are_counted(start_engine: StartEngine) -> None:
    async def cached(call: Call) -> None:
        usage = {
            "prompt_tokens": 400,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 300},
        }
        message = {"role": "assistant", "content": "x"}
        await call.answer(200, {"choices": [{"index": 0, "message": message}], "usage": usage})

    engines = [await start_engine(cached, "m") for _ in range(4)]
    backends = [
        {"name": f"b{n}", "adapter": "openai_compatible", "url": engine.url, "models": ["m"]}
        for n, engine in enumerate(engines)
    ]
    async with serving(settings_of(backends=backends)) as served:
        routes = []
        for turn in (FIRST, SECOND, [*SECOND, *SECOND]):
            body = {**chat("m"), "messages": turn}
            answer = await served.http.post("/v1/chat/completions", json=body)
            routes.append(answer.headers["x-sluice-route"])
        backend = answer.headers["x-sluice-backend"]
        await served.until_idle()
        by = {"backend": backend, "endpoint": backend}
        cached_tokens = served.metric("prefix_tokens_total", **by, which="cached")
        expected_tokens = served.metric("prefix_tokens_total", **by, which="expected")
    assert [route.rpartition("reason=")[2] for route in routes] == ["prefix_hash", "prefix_hit", "prefix_hit"]
    assert len({route.rpartition("; ")[0] for route in routes}) == 1
    assert cached_tokens == 900
    assert 400 < expected_tokens < 1500


async def test_a_stored_conversation_stays_on_its_engine(start_engine: StartEngine) -> None:
    engines = [await start_engine(plain, "m") for _ in range(4)]
    backends = [
        {"name": f"b{n}", "adapter": "openai_compatible", "url": engine.url, "models": ["m"]}
        for n, engine in enumerate(engines)
    ]
    async with serving(settings_of(backends=backends)) as served:
        body = {"model": "m", "instructions": SYSTEM, "input": "Which one floats?"}
        first = await served.http.post("/v1/responses", json=body)
        body = {**body, "input": "Why?", "previous_response_id": first.json()["id"]}
        second = await served.http.post("/v1/responses", json=body)
    routes = [answer.headers["x-sluice-route"] for answer in (first, second)]
    assert [route.rpartition("reason=")[2] for route in routes] == ["prefix_hash", "prefix_hit"]
