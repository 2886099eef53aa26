"""`/admin/v1/engines`: what is configured, how it is, and how busy it says it is."""

from __future__ import annotations

import asyncio
from typing import Any

from ..conftest import StartEngine
from ..scripted_engine import ScriptedEngine, plain
from ..serving import ECHO, PATIENCE_S, Served, serving, settings_of
from .test_keys_api import ADMIN, KEYS

BUSY = b"""\
vllm:num_requests_running{engine="0",model_name="m"} 5.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0
"""
PROBES = {"interval_s": 0.05, "load_interval_s": 0.02, "timeout_s": 1.0}


async def engines(served: Served) -> dict[str, Any]:
    answer = await served.http.get("/admin/v1/engines", headers=ADMIN)
    assert answer.status_code == 200
    return {backend["backend"]: backend for backend in answer.json()["data"]}


async def until(served: Served, condition: Any) -> dict[str, Any]:
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition(found := await engines(served)):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("the condition never became true")


def settings(*backends: dict[str, Any]) -> Any:
    return settings_of(backends=[*backends], keys=KEYS, health=PROBES)


async def vllm(start_engine: StartEngine) -> tuple[ScriptedEngine, dict[str, Any]]:
    engine = await start_engine(plain, "m")
    engine.pages = {"/metrics": (200, BUSY), "/version": (200, b'{"version": "0.32.0"}')}
    return engine, {"name": "vllm-quant", "adapter": "vllm", "url": engine.url, "quant": "awq"}


async def test_it_shows_what_an_engine_is_and_what_it_said(start_engine: StartEngine) -> None:
    engine, backend = await vllm(start_engine)
    async with serving(settings(backend, ECHO)) as served:
        found = (await engines(served))["vllm-quant"]

    assert (found["adapter"], found["engine"]) == ("vllm", "vLLM")
    assert {"chat", "responses", "messages"} <= set(found["capabilities"]["endpoints"])
    assert found["capabilities"]["prompt_logprobs"] is True
    [replica] = found["replicas"]
    assert (replica["id"], replica["url"], replica["state"]) == ("vllm-quant", engine.url, "ready")
    assert (replica["version"], replica["models"], replica["quant"]) == ("0.32.0", ["m"], "awq")
    assert (replica["problem"], replica["load_problem"]) == (None, None)
    load = replica["load"]
    assert (load["running"], load["waiting"], load["kv_used_ratio"]) == (5, 2, 0.5)
    assert (load["kv_block_tokens"], load["kv_capacity_tokens"]) == (16, 1600)
    assert load["preemptions"] is None
    assert replica["load_age_s"] >= 0


async def test_a_change_of_the_engine_reaches_it(start_engine: StartEngine) -> None:
    engine, backend = await vllm(start_engine)
    async with serving(settings(backend)) as served:
        engine.pages["/metrics"] = (200, BUSY.replace(b"} 5.0", b"} 6.0"))
        await until(served, lambda f: f["vllm-quant"]["replicas"][0]["load"]["running"] == 6)
        engine.pages["/metrics"] = (404, b"")
        found = await until(served, lambda f: f["vllm-quant"]["replicas"][0]["load_problem"])

    replica = found["vllm-quant"]["replicas"][0]
    assert replica["load_problem"].startswith("/metrics answered 404 (start it")
    assert replica["load"]["running"] == 6  # the last that it said, with its age
    assert replica["state"] == "ready"


async def test_replicas_are_told_apart_and_a_dead_one_says_why(start_engine: StartEngine) -> None:
    engine, backend = await vllm(start_engine)
    backend["url"] = [engine.url, "http://127.0.0.1:9"]
    async with serving(settings(backend, ECHO)) as served:
        found = await engines(served)

    alive, dead = found["vllm-quant"]["replicas"]
    assert (alive["id"], alive["state"]) == ("vllm-quant-0", "ready")
    assert (dead["id"], dead["state"], dead["load"]) == ("vllm-quant-1", "not_ready", None)
    assert dead["problem"]
    [echo] = found["echo"]["replicas"]
    assert (echo["state"], echo["load"], echo["load_age_s"]) == ("ready", None, None)


async def test_it_is_for_administrators_only(start_engine: StartEngine) -> None:
    async with serving(settings(ECHO)) as served:
        nobody = await served.http.get("/admin/v1/engines")
        user = await served.http.get("/admin/v1/engines", headers={"x-api-key": "sk-user"})

    assert (nobody.status_code, user.status_code) == (401, 403)


async def test_quantization_is_known_before_the_first_request(start_engine: StartEngine) -> None:
    engine = await start_engine(plain, "m")
    engine.pages["/metrics"] = (200, b'sluice_worker_model_info{quantization="int4"} 1\n')
    worker = {"name": "worker", "adapter": "worker", "url": engine.url}
    async with serving(settings_of(backends=[worker], keys=KEYS, health={"load_interval_s": 60})) as served:
        found = await engines(served)

    assert found["worker"]["replicas"][0]["quant"] == "int4"


async def test_an_engine_that_is_slow_to_tell_its_load_stays_ready(start_engine: StartEngine) -> None:
    engine, backend = await vllm(start_engine)
    probes = {**PROBES, "timeout_s": 0.1}
    async with serving(settings_of(backends=[backend], keys=KEYS, health=probes)) as served:
        engine.stalled.add("/metrics")
        found = await until(served, lambda f: f["vllm-quant"]["replicas"][0]["load_problem"])
        await asyncio.sleep(0.3)
        later = await engines(served)

    assert "did not answer" in found["vllm-quant"]["replicas"][0]["load_problem"]
    assert later["vllm-quant"]["replicas"][0]["state"] == "ready"
