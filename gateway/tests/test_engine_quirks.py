"""Where engines are not as one would think, seen through the gateway."""

from __future__ import annotations

import httpx
import pytest

from .conftest import StartEngine
from .scripted_engine import Call, plain
from .serving import Served, chat, serving, settings_of

FULL = {"error": {"message": "The queue is full.", "type": "ServiceUnavailable", "param": None, "code": 503}}


async def test_vllm_with_a_full_queue_means_the_next_replica_not_a_failure(start_engine: StartEngine) -> None:
    """vLLM answers 503 past --max-num-queued-reqs and --max-num-queued-tokens."""

    async def full(call: Call) -> None:
        await call.answer(503, FULL)

    busy, free = await start_engine(full), await start_engine(plain)
    backend = {"name": "vllm", "adapter": "vllm", "url": [busy.url, free.url]}
    async with serving(settings_of(backends=[backend])) as served:
        await served.gateway.health.wait_until_looked()
        answers = [await served.http.post("/v1/chat/completions", json=chat()) for _ in range(6)]
        replicas = {r.endpoint.id: r for r in served.gateway.router.snapshot().replicas}

    assert [answer.status_code for answer in answers] == [200] * 6
    assert busy.calls
    assert (replicas["vllm-0"].failures, replicas["vllm-0"].breaker) == (0, "closed")


async def test_when_every_queue_is_full_the_client_is_told_to_come_again(start_engine: StartEngine) -> None:
    async def full(call: Call) -> None:
        await call.answer(503, FULL)

    engine = await start_engine(full)
    backend = {"name": "vllm", "adapter": "vllm", "url": engine.url}
    async with serving(settings_of(backends=[backend])) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat())

    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "The queue is full.")
    assert int(answer.headers["retry-after"]) >= 1


async def test_backends_of_one_adapter_are_told_apart_by_name(start_engine: StartEngine) -> None:
    full, small = await start_engine(plain), await start_engine(plain)
    backends = [
        {"name": "vllm", "adapter": "vllm", "url": full.url},
        {"name": "vllm-quant", "adapter": "vllm", "url": small.url, "quant": "awq"},
    ]
    async with serving(settings_of(backends=backends)) as served:
        await served.gateway.health.wait_until_looked()
        by_name = await ask(served, {"x-backend": "vllm-quant"})
        by_quant = await ask(served, {"x-quant": "awq"})
        unknown = await ask(served, {"x-backend": "tgi"})

    assert (by_name.status_code, by_quant.status_code) == (200, 200)
    assert (len(full.calls), len(small.calls)) == (0, 2)
    assert unknown.status_code == 400
    assert "vllm, vllm-quant" in unknown.json()["error"]["message"]


@pytest.mark.parametrize(
    "said",
    [
        {
            "message": "This model's maximum context length is 1024 tokens. Your prompt contains 15050"
            " characters.",
            "type": "BadRequestError",
            "param": "input_text",
            "code": 400,
        },
        {
            "message": "request (3010 tokens) exceeds the available context size (1024 tokens)",
            "type": "exceed_context_size_error",
            "code": 400,
        },
        {"message": "The input (3010 tokens) is longer than the model's context length (1024 tokens)."},
        {"message": "Input validation error: `inputs` must have less than 1024 tokens. Given: 3010"},
        {"message": "`inputs` tokens + `max_new_tokens` must be <= 1024. Given: 900 `inputs` tokens"},
    ],
)
async def test_a_prompt_that_does_not_fit_is_told_as_openai_does(
    start_engine: StartEngine, said: dict[str, object]
) -> None:
    """The first two as recorded from vLLM 0.32 and llama.cpp; SGLang and TGI by their sources."""

    async def refuse(call: Call) -> None:
        await call.answer(400, {"error": said})

    engine = await start_engine(refuse)
    backend = {"name": "b", "adapter": "openai_compatible", "url": engine.url}
    async with serving(settings_of(backends=[backend])) as served:
        answer = await served.http.post("/v1/chat/completions", json=chat())
    error = answer.json()["error"]

    assert answer.status_code == 400
    assert (error["code"], error["type"]) == ("context_length_exceeded", "invalid_request_error")
    assert error["message"] == said["message"]


async def ask(served: Served, headers: dict[str, str]) -> httpx.Response:
    return await served.http.post("/v1/chat/completions", json=chat(), headers=headers)
