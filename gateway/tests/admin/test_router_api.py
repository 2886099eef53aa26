"""`/admin/v1/router`: what waits, and what the engines hold."""

from __future__ import annotations

import asyncio

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

    engine = await start_engine(slow, "m")
    backend = {"name": "b", "adapter": "openai_compatible", "url": engine.url, "max_in_flight": 1}
    async with serving(settings_of(backends=[backend], keys=KEYS)) as served:

        async def state() -> dict:
            return (await served.http.get("/admin/v1/router", headers=ADMIN)).json()

        await eventually(lambda: all(r.healthy for r in served.gateway.router.snapshot().replicas))
        asked = [
            asyncio.create_task(served.http.post(PATH, json=chat("m") | {"max_tokens": 5}, headers=ADMIN))
            for _ in range(3)
        ]
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
    assert busy["queue"] == {
        "requests": 2,
        "tokens": 2 * endpoint["new_tokens_queued"],
        "work": 2 * endpoint["work"],
    }
    assert (endpoint["kv_used_ratio"], endpoint["prefill_tokens_per_s"]) == (None, None), "nobody said"
    assert idle["queue"] == {"requests": 0, "tokens": 0, "work": 0}
    [endpoint] = idle["endpoints"]
    assert (endpoint["leases"], endpoint["work"], endpoint["kv_tokens"]) == (0, 0, 0)
    assert idle["outcomes"]["dispatched"] == 3
