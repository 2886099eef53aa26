"""`/ready` tells the truth, soon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from .conftest import StartEngine
from .scripted_engine import ScriptedEngine, plain
from .serving import ECHO, Served, chat, eventually, serving, settings_of


def backend(url: str) -> dict[str, object]:
    return {"name": "main", "adapter": "openai_compatible", "url": url}


async def ready(served: Served) -> int:
    return (await served.http.get("/ready")).status_code


async def until_ready_is(served: Served, status: int) -> None:
    for _ in range(1000):
        if await ready(served) == status:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"/ready never became {status}")


async def test_ready_follows_the_engine_down_and_up(start_engine: StartEngine) -> None:
    engine = await start_engine(plain)
    port = engine.port
    async with serving(settings_of(backends=[backend(engine.url)])) as served:
        assert await ready(served) == 200
        await engine.stop()
        await until_ready_is(served, 503)
        answer = await served.http.get("/ready")
        assert "main" in answer.json()["error"]["message"]
        refused = await served.http.post("/v1/chat/completions", json=chat())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await served.http.get("/health")).status_code == 200
        await engine.start(port)
        await until_ready_is(served, 200)
        assert (await served.http.post("/v1/chat/completions", json=chat())).status_code == 200
        assert served.metric("endpoint_healthy", backend="main", endpoint="main") == 1


async def test_a_request_that_cannot_connect_turns_ready_at_once(start_engine: StartEngine) -> None:
    engine = await start_engine(plain)
    settings = settings_of(backends=[backend(engine.url)], health={"interval_s": 60})
    async with serving(settings) as served:
        await engine.stop()
        assert await ready(served) == 200
        answer = await served.http.post("/v1/chat/completions", json=chat())
        assert answer.status_code == 502
        assert await ready(served) == 503


async def test_one_engine_is_enough(start_engine: StartEngine) -> None:
    async with serving(settings_of(backends=[ECHO, backend("http://127.0.0.1:9")])) as served:
        answer = await served.http.get("/ready")
        assert answer.status_code == 200
        assert "main" in answer.json()["message"]


async def test_models_are_discovered_and_follow_the_engine(start_engine: StartEngine) -> None:
    engine = await start_engine(plain, "old")
    async with serving(settings_of(backends=[backend(engine.url)])) as served:
        await eventually(lambda: served.gateway.router.models() == ("old",))
        engine.models = ("new",)
        await eventually(lambda: served.gateway.router.models() == ("new",))
        answer = await served.http.post("/v1/chat/completions", json=chat("old"))
    assert answer.status_code == 404


@pytest.mark.parametrize("upstream", ["native", "httpx"])
async def test_an_engine_on_a_unix_socket_is_probed_and_served(tmp_path: Path, upstream: str) -> None:
    engine = ScriptedEngine(plain, ("m",))
    await engine.start_unix(str(tmp_path / "engine.sock"))
    async with serving(settings_of(backends=[{**backend(engine.url), "upstream": upstream}])) as served:
        assert served.gateway.router.models() == ("m",)
        assert (await served.http.post("/v1/chat/completions", json=chat())).status_code == 200
    await engine.stop()


async def test_draining_refuses_new_requests_and_ends_old_ones_honestly(start_engine: StartEngine) -> None:
    body = chat("echo", text="one two three four", stream=True)
    pace = {"x-echo-tokens-per-s": "2"}
    async with serving(settings_of(backends=[ECHO])) as served:
        request = served.http.stream("POST", "/v1/chat/completions", json=body, headers=pace)
        async with request as answer:
            pieces = answer.aiter_raw()
            seen = await anext(pieces)
            await served.gateway.drain(0.05)
            assert await ready(served) == 503
            refused = await served.http.post("/v1/chat/completions", json=chat("echo"))
            assert refused.status_code == 503
            seen += b"".join([piece async for piece in pieces])
    assert b"[DONE]" not in seen
    assert seen.count(b'data: {"error"') == 1
    assert b"shutting down" in seen
