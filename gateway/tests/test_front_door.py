"""Every path and status answers in OpenAI's shape, with the headers that every answer has."""

from __future__ import annotations

import asyncio

import pytest

from sluice_gateway.auth import digest

from .serving import ECHO, Served, chat, serving, settings_of

CHAT = "/v1/chat/completions"


def settings(**more: object):
    return settings_of(backends=[ECHO], **more)


def check(answer, status: int, code: str | None) -> None:
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.headers["openai-version"] == "2020-10-01"
    assert "openai-processing-ms" in answer.headers


async def test_paths_and_methods_that_are_not_there() -> None:
    async with serving(settings()) as served:
        check(await served.http.get("/nothing"), 404, None)
        check(await served.http.post("/v1/moderations"), 404, None)
        check(await served.http.get(CHAT), 405, "method_not_allowed")
        answer = await served.http.post("/health")
        check(answer, 405, "method_not_allowed")
        assert "GET" in answer.headers["allow"]
        check(await served.http.get("/v1/models/none"), 404, "model_not_found")


async def test_requests_that_cannot_be_served() -> None:
    async with serving(settings()) as served:
        post = served.http.post
        check(await post(CHAT, content=b'{"model": '), 400, "invalid_json")
        check(await post(CHAT, json=chat(None)), 400, None)
        check(await post(CHAT, json=chat("gpt-oh-no")), 404, "model_not_found")
        check(await post(CHAT, json=chat("echo", logprobs=True)), 400, "unsupported_parameter")
        unknown = await post(CHAT, json=chat("echo"), headers={"x-backend": "abacus"})
        check(unknown, 400, "unknown_backend")
        assert "echo" in unknown.json()["error"]["message"]
        unknown = await post(CHAT, json=chat("echo"), headers={"x-quant": "int3"})
        check(unknown, 400, "unknown_quant")
        assert "none, awq, int8, int4, fp8" in unknown.json()["error"]["message"]
        check(await post(CHAT, json=chat("echo"), headers={"x-quant": "awq"}), 400, "unknown_quant")


async def test_embeddings_take_the_same_way() -> None:
    async with serving(settings()) as served:
        answer = await served.http.post("/v1/embeddings", json={"model": "echo", "input": "Hi"})
        assert answer.status_code == 200
        assert answer.headers["x-sluice-backend"] == "echo"


async def test_a_backend_without_embeddings_says_so() -> None:
    worker = {"name": "w", "adapter": "worker", "url": "http://127.0.0.1:9"}
    async with serving(settings_of(backends=[worker]), until_ready=False) as served:
        answer = await served.http.post("/v1/embeddings", json={"model": "x", "input": "Hi"})
    check(answer, 400, None)
    assert "chat" in answer.json()["error"]["message"]


async def test_a_body_that_is_too_large_or_too_slow() -> None:
    limits = {"max_body_bytes": 2048, "body_timeout_s": 0.1}
    async with serving(settings(server=limits)) as served:
        check(await served.http.post(CHAT, content=b"x" * 4000), 413, "request_too_large")

        async def chunks():
            for _ in range(4):
                yield b"x" * 1000

        check(await served.http.post(CHAT, content=chunks()), 413, "request_too_large")

        async def slow():
            yield b"{"
            await asyncio.sleep(0.3)
            yield b"}"

        check(await served.http.post(CHAT, content=slow()), 408, "timeout")


async def test_a_compressed_body_is_not_mistaken_for_broken_json() -> None:
    async with serving(settings()) as served:
        answer = await served.http.post(CHAT, content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    check(answer, 415, "unsupported_media_type")


async def test_a_bug_is_a_500_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(settings()) as served:

        def broken(*args: object) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(served.gateway.catalog, "facts", broken)
        answer = await served.http.post(CHAT, json=chat("echo"))
        check(answer, 500, None)
        assert "secret detail" not in answer.text
        assert "secret detail" in served.log.getvalue()
        monkeypatch.setattr(served.gateway, "readiness", broken)
        check(await served.http.get("/ready"), 500, None)
        assert served.occupied == 0


async def test_a_request_id_is_kept_if_it_is_plain() -> None:
    async with serving(settings()) as served:
        for given, kept in (("abc-1", True), ("a b", False), ("x" * 200, False)):
            answer = await served.http.get("/health", headers={"x-request-id": given})
            assert (answer.headers["x-request-id"] == given) is kept


async def test_load_balancers_may_probe_with_head() -> None:
    async with serving(settings()) as served:
        for path in ("/health", "/ready"):
            answer = await served.http.head(path)
            assert (answer.status_code, answer.content) == (200, b"")


async def test_docs_and_schema_are_there() -> None:
    async with serving(settings()) as served:
        assert (await served.http.get("/docs")).status_code == 200
        assert "/v1/models" in (await served.http.get("/openapi.json")).json()["paths"]


async def preflight(served: Served, origin: str):
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-lang",
    }
    return await served.http.options(CHAT, headers=headers)


async def test_a_page_of_a_configured_origin_may_call() -> None:
    cors = {"allow_origins": ["https://app.example.com"]}
    async with serving(settings(cors=cors)) as served:
        allowed = await preflight(served, "https://app.example.com")
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
        answer = await served.http.post(
            CHAT, json=chat("echo"), headers={"origin": "https://app.example.com"}
        )
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "x-sluice-backend" in answer.headers["access-control-expose-headers"]
        listed = await served.http.get("/v1/models", headers={"origin": "https://app.example.com"})
        assert listed.headers["access-control-allow-origin"] == "https://app.example.com"


async def test_a_page_of_another_origin_may_not() -> None:
    async with serving(settings(cors={"allow_origins": []})) as served:
        refused = await preflight(served, "https://evil.example.com")
        assert "access-control-allow-origin" not in refused.headers


async def test_a_star_allows_all_origins() -> None:
    async with serving(settings(cors={"allow_origins": ["*"]})) as served:
        assert (await preflight(served, "https://a.example")).headers["access-control-allow-origin"] == "*"


async def test_everything_but_life_needs_a_key() -> None:
    async with serving(settings(keys=[{"id": "a", "sha256": digest("sk-a")}])) as served:
        for path in ("/v1/models", "/v1/models/echo"):
            check(await served.http.get(path), 401, "invalid_api_key")
            assert (await served.http.get(path, headers={"x-api-key": "sk-a"})).status_code == 200
        answer = await served.http.post(CHAT, json=chat("echo"))
        check(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/health", "/ready", "/metrics"):
            assert (await served.http.get(path)).status_code == 200
