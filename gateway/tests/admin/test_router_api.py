"""`/admin/v1/router`: what waits, and what the engines hold."""

from __future__ import annotations

import asyncio
import json

from ..conftest import StartEngine
from ..scripted_engine import Call
from ..serving import chat, eventually, serving, settings_of
from .test_keys_api import ADMIN, KEYS

PATH = "/v1/chat/completions"


async def test_it_shows_what_waits_and_what_is_held_and_nothing_once_all_have_ended(
    start_engine: StartEngine,
) -> None:
    go_on = asyncio.Event()

    async def slow(call: Call) -> None:
        await go_on.wait()
        await call.answer(200, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})

    asked_for = chat("m") | {"max_tokens": 5}
    engine = await start_engine(slow, "m")
    backend = {"name": "b", "adapter": "openai_compatible", "url": engine.url, "max_in_flight": 1}
    async with serving(settings_of(backends=[backend], keys=KEYS)) as served:

        async def state() -> dict:
            return (await served.http.get("/admin/v1/router", headers=ADMIN)).json()

        await eventually(lambda: all(r.healthy for r in served.gateway.router.snapshot().replicas))
        asked = [asyncio.create_task(served.http.post(PATH, json=asked_for, headers=ADMIN)) for _ in range(3)]
        await eventually(lambda: served.gateway.router.snapshot().waiting == 2)
        busy = await state()
        go_on.set()
        assert {(await one).status_code for one in asked} == {200}
        idle = await state()
        assert (await served.http.get("/admin/v1/router")).status_code == 401

    [endpoint] = busy["endpoints"]
    assert (endpoint["id"], endpoint["in_flight"], endpoint["leases"], endpoint["in_flight_limit"]) == (
        "b",
        1,
        1,
        1,
    )
    assert endpoint["new_tokens_queued"] > 0
    assert endpoint["work"] == endpoint["new_tokens_queued"] + 2 * 5
    sums = {"requests": 2, "tokens": 2 * endpoint["new_tokens_queued"], "work": 2 * endpoint["work"]}
    [waiting] = busy["queue"].pop("waiting")
    assert busy["queue"] == sums | {"body_bytes": 2 * len(json.dumps(asked_for, separators=(",", ":")))}
    assert 0.0 <= waiting.pop("oldest_s") <= endpoint["oldest_lease_s"] < 60.0
    assert waiting == sums | {"priority": "default", "tenant": "default"}
    assert (endpoint["kv_used_ratio"], endpoint["prefill_tokens_per_s"]) == (None, None), "nobody said"
    assert idle["queue"] == {"requests": 0, "tokens": 0, "work": 0, "body_bytes": 0, "waiting": []}
    [endpoint] = idle["endpoints"]
    assert (endpoint["leases"], endpoint["work"], endpoint["kv_tokens"]) == (0, 0, 0)
    assert endpoint["oldest_lease_s"] is None
    assert idle["outcomes"]["dispatched"] == 3
    assert set(idle["hedges"].values()) == {0}
    assert idle["retries_left"] > 0.0
    assert idle["returns"] == {"expected": 0, "service_s": 0.0, "last_in_s": None, "kept_share": 1.0}
    assert [one["route"] for one in idle["placed"]] == [
        "model=m; backend=b; endpoint=b; reason=least_loaded"
    ] * 3
    assert [one["output_tokens"] for one in idle["placed"]] == [5] * 3
    assert idle["placed"][0]["age_s"] <= idle["placed"][2]["age_s"]


async def test_it_shows_the_scores_that_decided_and_what_is_known_of_an_engines_speed(
    start_engine: StartEngine,
) -> None:
    async def answer(call: Call) -> None:
        await call.answer(200, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})

    urls = [(await start_engine(answer, "m")).url for _ in range(2)]
    backend = {"name": "b", "adapter": "openai_compatible", "url": urls}
    async with serving(settings_of(backends=[backend], keys=KEYS)) as served:
        await eventually(lambda: all(r.healthy for r in served.gateway.router.snapshot().replicas))
        long = chat("m", text="word " * 200)
        assert (await served.http.post(PATH, json=long, headers=ADMIN)).status_code == 200
        shown = (await served.http.get("/admin/v1/router", headers=ADMIN)).json()

    [placed] = shown["placed"]
    assert {score["endpoint"] for score in placed["scores"]} == {"b-0", "b-1"}
    assert {score["why"] for score in placed["scores"]} == {"first", "second"}
    assert all(score["score"] > 0.0 for score in placed["scores"])
    for endpoint in shown["endpoints"]:
        assert endpoint["probe_in_s"] is None
        assert endpoint["speed"]["ttft_base_s"] is None, "not measured"
        assert endpoint["speed"]["itl_measured"] == 0
