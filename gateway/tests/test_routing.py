"""What headers and aliases do to a request, over real sockets."""

from __future__ import annotations

import asyncio
import json

import pytest

from sluice_gateway.auth import digest
from sluice_router.latency_model import MEASURED

from .conftest import StartEngine
from .scripted_engine import Call, ScriptedEngine, plain, streamed
from .serving import ECHO, Served, chat, eventually, serving, settings_of

PATH = "/v1/chat/completions"
ALIASES = {"fast": [{"model": "big", "backend": "gpu"}, {"model": "tiny"}]}


def backends(gpu: ScriptedEngine, cpu: ScriptedEngine) -> list[dict[str, object]]:
    return [
        {"name": "gpu", "adapter": "openai_compatible", "url": gpu.url, "models": ["big"], "quant": "fp8"},
        {"name": "cpu", "adapter": "openai_compatible", "url": cpu.url, "models": ["big", "tiny"]},
    ]


async def healthy(served: Served) -> None:
    await eventually(lambda: all(r.healthy for r in served.gateway.router.snapshot().replicas))


def asked_for(engine: ScriptedEngine) -> list[str]:
    return [json.loads(call.body)["model"] for call in engine.calls if call.path == PATH]


async def test_an_alias_asks_the_engine_for_the_model_it_stands_for(start_engine: StartEngine) -> None:
    gpu, cpu = await start_engine(plain), await start_engine(plain)
    async with serving(settings_of(backends=backends(gpu, cpu), aliases=ALIASES)) as served:
        await healthy(served)
        answer = await served.http.post(PATH, json=chat("fast"))
        listed = (await served.http.get("/v1/models")).json()["data"]
    assert answer.status_code == 200
    assert answer.headers["x-sluice-route"] == ("model=big; backend=gpu; endpoint=gpu; reason=least_loaded")
    assert (asked_for(gpu), asked_for(cpu)) == (["big"], [])
    assert [model["id"] for model in listed] == ["big", "tiny", "fast"]


async def test_a_failing_choice_falls_back_to_the_next(start_engine: StartEngine) -> None:
    async def busy(call: Call) -> None:
        await call.answer(503, {"error": {"message": "later"}})

    gpu, cpu = await start_engine(busy), await start_engine(plain)
    async with serving(settings_of(backends=backends(gpu, cpu), aliases=ALIASES)) as served:
        await healthy(served)
        answer = await served.http.post(PATH, json=chat("fast"))
    assert answer.status_code == 200
    assert answer.headers["x-sluice-route"] == (
        "model=tiny; backend=cpu; endpoint=cpu; reason=retry:2,fallback:1,least_loaded"
    )
    assert (asked_for(gpu), asked_for(cpu)) == (["big"], ["tiny"])


async def test_a_preferred_backend_may_be_left_out_a_required_one_may_not(start_engine: StartEngine) -> None:
    gpu, cpu = await start_engine(plain), await start_engine(plain)
    async with serving(settings_of(backends=backends(gpu, cpu))) as served:
        await healthy(served)

        async def backend(model: str, **headers: str) -> str | int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = await served.http.post(PATH, json=chat(model), headers=sent)
            return answer.headers["x-sluice-backend"] if answer.is_success else answer.status_code

        assert await backend("big", x_backend="gpu", x_route="prefer") == "gpu"
        assert await backend("tiny", x_backend="gpu", x_route="Prefer") == "cpu"
        assert await backend("tiny", x_quant="fp8", x_route="prefer") == "cpu"
        assert await backend("tiny", x_backend="gpu") == 404
        assert await backend("tiny", x_backend="gpu", x_route="require") == 404


@pytest.mark.parametrize(
    ("headers", "code", "words"),
    [
        ({"X-Backend": "abacus"}, "unknown_backend", ("abacus", "echo")),
        ({"X-Backend": "abacus", "X-Route": "prefer"}, "unknown_backend", ("abacus", "echo")),
        ({"X-Quant": "int2"}, "unknown_quant", ("int2", "awq", "fp8")),
        ({"X-Route": "maybe"}, None, ("X-Route", "maybe", "require, prefer")),
        ({"X-Priority": "asap"}, None, ("X-Priority", "asap", "interactive, default, bulk")),
        ({"X-SLO-TTFT-Ms": "soon"}, None, ("X-SLO-TTFT-Ms", "soon", "milliseconds")),
        ({"X-SLO-TTFT-Ms": "0"}, None, ("X-SLO-TTFT-Ms", "more than 0")),
        ({"X-SLO-TTFT-Ms": "nan"}, None, ("X-SLO-TTFT-Ms", "3600000")),
        ({"x-llm-d-slo-ttft-ms": "-5"}, None, ("X-SLO-TTFT-Ms", "-5")),
    ],
)
async def test_a_value_that_does_not_exist_is_refused_naming_those_that_do(
    headers: dict[str, str], code: str | None, words: tuple[str, ...]
) -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        answer = await served.http.post(PATH, json=chat("echo"), headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code)
    assert all(word in error["message"] for word in words)


async def test_a_session_meets_itself_on_one_engine(start_engine: StartEngine) -> None:
    engines = [await start_engine(plain) for _ in range(3)]
    backend = {"name": "b", "adapter": "openai_compatible", "url": [e.url for e in engines], "models": ["m"]}
    async with serving(settings_of(backends=[backend])) as served:
        await healthy(served)
        for _ in range(4):
            await served.http.post(PATH, json=chat("m"), headers={"X-Session-Id": "s"})
        by_header = [len(asked_for(engine)) for engine in engines]
        for _ in range(4):
            await served.http.post(PATH, json=chat("m") | {"prompt_cache_key": "s"})
        by_body = [len(asked_for(engine)) for engine in engines]
    assert sorted(by_header) == [0, 0, 4]
    assert sorted(by_body) == [0, 0, 8], "both mean the same"


async def test_an_alias_opens_no_backend_that_the_key_may_not_use(start_engine: StartEngine) -> None:
    gpu, cpu = await start_engine(plain), await start_engine(plain)
    keys = [
        {"id": "k", "sha256": digest("sk-k"), "backends": ["cpu"]},
        {"id": "q", "sha256": digest("sk-q"), "quants": ["none"], "models": ["fast"]},
    ]
    settings = settings_of(backends=backends(gpu, cpu), aliases=ALIASES, keys=keys)
    async with serving(settings) as served:
        await healthy(served)
        for secret in ("sk-k", "sk-q"):
            answer = await served.http.post(PATH, json=chat("fast"), headers={"x-api-key": secret})
            assert answer.headers["x-sluice-backend"] == "cpu"
        listed = (await served.http.get("/v1/models", headers={"x-api-key": "sk-q"})).json()["data"]
        refused = await served.http.post(PATH, json=chat("big"), headers={"x-api-key": "sk-q"})
    assert [model["id"] for model in listed] == ["fast"]
    assert refused.status_code == 403


async def test_an_engine_that_keeps_failing_is_suspended_and_tried_again(start_engine: StartEngine) -> None:
    broken = True

    async def sometimes(call: Call) -> None:
        if broken:
            await call.answer(500, {"error": {"message": "boom"}})
        else:
            await plain(call)

    engine = await start_engine(sometimes)
    failover = {"breaker_failures": 3, "breaker_open_s": 0.2}
    backend = {"name": "b", "adapter": "openai_compatible", "url": engine.url, "models": ["m"]}
    async with serving(settings_of(backends=[backend], failover=failover)) as served:
        await healthy(served)
        answers = [await served.http.post(PATH, json=chat("m")) for _ in range(4)]
        broken = False
        await eventually_serves(served)
    assert [answer.status_code for answer in answers] == [500, 500, 500, 503]
    assert "suspended" in answers[3].json()["error"]["message"]
    assert int(answers[3].headers["retry-after-ms"]) <= 240
    assert len(asked_for(engine)) == 4, "three failures, and the probe"


async def eventually_serves(served: Served) -> None:
    while (await served.http.post(PATH, json=chat("m"))).status_code != 200:
        pass


@pytest.mark.parametrize("header", ["X-SLO-TTFT-Ms", "x-llm-d-slo-ttft-ms"])
async def test_a_time_that_no_engine_keeps_is_refused_once_that_is_known(
    start_engine: StartEngine, header: str
) -> None:
    async def slow(call: Call) -> None:
        await asyncio.sleep(0.05)
        await streamed(call)

    engine = await start_engine(slow)
    backend = {"name": "b", "adapter": "openai_compatible", "url": engine.url, "models": ["m"]}
    async with serving(settings_of(backends=[backend])) as served:
        await healthy(served)
        asked = chat("m") | {"stream": True}
        hurried = {header: "5"}
        assert (await served.http.post(PATH, json=asked, headers=hurried)).status_code == 200, "nothing known"
        for _ in range(MEASURED):
            await served.http.post(PATH, json=asked)

        late = await served.http.post(PATH, json=asked, headers=hurried)
        patient = await served.http.post(PATH, json=asked, headers={header: "60000"})
        page = (await served.http.get("/metrics")).text

    assert (late.status_code, late.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "5 ms" in late.json()["error"]["message"]
    assert int(late.headers["retry-after"]) >= 1
    assert patient.status_code == 200
    assert 'outcome="too_late"' in page
