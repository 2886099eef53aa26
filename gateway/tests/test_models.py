"""Which models are listed, and which backend a request goes to."""

from __future__ import annotations

from datetime import datetime

from sluice_gateway.auth import digest

from .conftest import StartEngine
from .scripted_engine import Call, plain
from .serving import ECHO, Served, chat, eventually, serving, settings_of

KEYS = [
    {"id": "all", "sha256": digest("sk-all")},
    {"id": "two", "sha256": digest("sk-two"), "backends": ["two"]},
    {"id": "both", "sha256": digest("sk-both"), "backends": ["echo", "two"]},
]


async def listed(served: Served, **headers: str) -> list[str]:
    answer = await served.http.get("/v1/models", headers=headers)
    return [model["id"] for model in answer.json()["data"]]


async def test_our_own_worker_comes_first_and_echo_last(start_engine: StartEngine) -> None:
    worker, other = await start_engine(plain, "sluice-tiny"), await start_engine(plain, "b/c", "d")
    backends = [
        ECHO,
        {"name": "other", "adapter": "openai_compatible", "url": other.url},
        {"name": "worker", "adapter": "worker", "url": worker.url},
    ]
    async with serving(settings_of(backends=backends)) as served:
        await eventually(lambda: len(served.gateway.router.models()) == 4)
        assert await listed(served) == ["sluice-tiny", "b/c", "d", "echo"]
        one = (await served.http.get("/v1/models/b/c")).json()
    assert (one["id"], one["object"], one["owned_by"]) == ("b/c", "model", "sluice")
    # What Anthropic's clients read of the same.
    assert (one["type"], one["display_name"]) == ("model", "b/c")
    assert datetime.fromisoformat(one["created_at"]).timestamp() == one["created"]


async def test_a_model_goes_to_the_backend_that_has_it(start_engine: StartEngine) -> None:
    one, two = await start_engine(plain, "a"), await start_engine(plain, "b")
    backends = [
        {"name": name, "adapter": "openai_compatible", "url": engine.url}
        for name, engine in (("one", one), ("two", two))
    ]
    async with serving(settings_of(backends=backends)) as served:
        await eventually(lambda: len(served.gateway.router.models()) == 2)
        for model, backend in (("a", "one"), ("b", "two")):
            answer = await served.http.post("/v1/chat/completions", json=chat(model))
            assert answer.headers["x-sluice-backend"] == backend
        wrong = await served.http.post("/v1/chat/completions", json=chat("a"), headers={"x-backend": "two"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "model_not_found")
    assert "b" in wrong.json()["error"]["message"]


async def test_a_key_uses_only_its_backends(start_engine: StartEngine) -> None:
    engine = await start_engine(plain, "m")
    backends = [ECHO, {"name": "two", "adapter": "openai_compatible", "url": engine.url, "models": ["m"]}]
    async with serving(settings_of(backends=backends, keys=KEYS)) as served:
        await eventually(lambda: all(r.healthy for r in served.gateway.router.snapshot().replicas))
        assert await listed(served, **{"x-api-key": "sk-two"}) == ["m"]
        assert await listed(served, **{"x-api-key": "sk-all"}) == ["m", "echo"]

        async def status(key: str, model: str, **headers: str) -> int:
            sent = {"x-api-key": key, **headers}
            answer = await served.http.post("/v1/chat/completions", json=chat(model), headers=sent)
            return answer.status_code

        assert await status("sk-two", "m") == 200
        assert await status("sk-two", "echo") == 404
        assert await status("sk-two", "echo", **{"x-backend": "echo"}) == 403
        assert await status("sk-two", "m", **{"x-backend": "abacus"}) == 400
        assert await status("sk-both", "echo") == 200
        assert await status("sk-both", "m") == 200


async def test_a_key_with_several_backends_is_served_by_any_of_them(start_engine: StartEngine) -> None:
    async def broken(call: Call) -> None:
        call.reset()

    engines = {"one": await start_engine(broken), "two": await start_engine(plain)}
    engines["three"] = await start_engine(plain)
    backends = [
        {"name": name, "adapter": "openai_compatible", "url": engine.url, "models": ["m"]}
        for name, engine in engines.items()
    ]
    keys = [{"id": "k", "sha256": digest("sk-k"), "backends": ["one", "two"]}]
    async with serving(settings_of(backends=backends, keys=keys)) as served:
        await eventually(lambda: all(r.healthy for r in served.gateway.router.snapshot().replicas))
        for _ in range(4):
            answer = await served.http.post(
                "/v1/chat/completions", json=chat("m"), headers={"x-api-key": "sk-k"}
            )
            assert answer.headers["x-sluice-backend"] == "two"
    assert engines["one"].calls
    assert not engines["three"].calls


async def test_a_quant_selects_its_backend(start_engine: StartEngine) -> None:
    engine = await start_engine(plain, "m")
    backends = [
        {"name": name, "adapter": "openai_compatible", "url": engine.url, "models": ["m"], "quant": quant}
        for name, quant in (("full", "none"), ("small", "int8"))
    ]
    async with serving(settings_of(backends=backends)) as served:
        await eventually(lambda: all(r.healthy for r in served.gateway.router.snapshot().replicas))
        for quant, name in (("none", "full"), ("INT8", "small")):
            answer = await served.http.post(
                "/v1/chat/completions", json=chat("m"), headers={"x-quant": quant}
            )
            assert answer.headers["x-sluice-backend"] == name
