"""Clients of OpenAI and of Anthropic are each answered in their own headers and errors, on every path."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from sluice_gateway.auth import digest

from .serving import ECHO, Served, chat, serving, settings_of

VERSION = {"anthropic-version": "2023-06-01"}
KEYS = [{"id": "a", "sha256": digest("sk-a"), "limits": {"requests_per_min": 1, "tokens_per_min": 9000}}]
MESSAGE = {**chat("echo"), "max_tokens": 9}


async def test_anthropics_clients_find_the_requests_id_under_their_name() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        for method, path, headers in (
            ("POST", "/v1/messages", {}),
            ("POST", "/v1/messages/batches", {}),
            ("GET", "/v1/messages", {}),
            ("GET", "/v1/models", VERSION),
        ):
            answer = await served.http.request(method, path, headers={**headers, "x-request-id": "mine"})
            assert answer.headers["request-id"] == answer.headers["x-request-id"] == "mine"
        for path in ("/v1/models", "/v1/chat/completions"):
            assert "request-id" not in (await served.http.get(path)).headers


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind"),
    [
        ("GET", "/v1/messages", {}, 405, "invalid_request_error"),
        ("DELETE", "/v1/messages/count_tokens", {}, 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", {}, 404, "not_found_error"),
        ("GET", "/v1/messages/batches/7?limit=3", {}, 404, "not_found_error"),
        ("GET", "/v1/models/nobody", VERSION, 404, "not_found_error"),
        ("POST", "/v1/models", VERSION, 405, "invalid_request_error"),
    ],
)
async def test_errors_outside_the_pipeline_have_the_familys_shape(
    method: str, path: str, headers: dict[str, str], status: int, kind: str
) -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        answer = await served.http.request(method, path, headers=headers)
    body = answer.json()
    assert answer.status_code == status
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"] == answer.headers["request-id"]


async def test_a_wrong_key_is_told_in_the_clients_words_where_a_path_belongs_to_both() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served:
        for path in ("/v1/models", "/v1/models/echo"):
            theirs = await served.http.get(path, headers=VERSION)
            assert theirs.json()["error"]["type"] == "authentication_error"
            ours = await served.http.get(path)
            assert ours.json()["error"]["code"] == "invalid_api_key"


async def test_limits_are_shown_as_the_familys_clients_read_them() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served:
        for status in (200, 429):
            answer = await _ask(served)
            shown = answer.headers
            assert answer.status_code == status
            assert shown["anthropic-ratelimit-requests-limit"] == "1"
            assert shown["anthropic-ratelimit-requests-remaining"] == "0"
            assert shown["anthropic-ratelimit-tokens-limit"] == "9000"
            reset = datetime.fromisoformat(shown["anthropic-ratelimit-requests-reset"])
            assert reset >= datetime.now(UTC)
            assert not [name for name in shown if name.startswith("x-ratelimit-")]
        assert int(shown["retry-after"]) >= 1
        refused = await served.http.post(
            "/v1/chat/completions", json=chat("echo"), headers={"x-api-key": "sk-a"}
        )
        assert refused.headers["x-ratelimit-limit-requests"] == "1"
        assert not [name for name in refused.headers if name.startswith("anthropic-")]


async def _ask(served: Served) -> httpx.Response:
    return await served.http.post("/v1/messages", json=MESSAGE, headers={"x-api-key": "sk-a"})
