"""Every failure raises the exception of OpenAI's SDK that it would there."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from running_stack import Stack

from .conftest import MAX_BODY_BYTES, WORKER_MODEL
from .scripted_upstream import ScriptedServer

HELLO: Any = [{"role": "user", "content": "Hello"}]


def sdk(sluice: Stack, key: str = "sk-sdk", **options: Any) -> openai.OpenAI:
    given = {"api_key": key, "max_retries": 0, "timeout": 30, **options}
    return openai.OpenAI(base_url=f"{sluice.url}/v1", **given)


def raised(sluice: Stack, key: str = "sk-sdk", **fields: Any) -> openai.APIStatusError:
    with sdk(sluice, key) as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**{"model": WORKER_MODEL, "messages": HELLO, **fields})
    error = caught.value
    assert error.request_id == error.response.headers["x-request-id"]
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("expected", "status", "code", "param", "asked"),
    [
        (openai.BadRequestError, 400, None, "temperature", {"temperature": 9}),
        (openai.BadRequestError, 400, None, "messages", {"messages": []}),
        (openai.BadRequestError, 400, "invalid_type", "max_tokens", {"max_tokens": "many"}),
        (openai.BadRequestError, 400, "unknown_backend", None, {"extra_headers": {"X-Backend": "abacus"}}),
        (openai.BadRequestError, 400, "context_length_exceeded", "messages", {"messages": "long"}),
        (openai.AuthenticationError, 401, "invalid_api_key", None, {"key": "sk-wrong"}),
        (openai.AuthenticationError, 401, "invalid_api_key", None, {"key": "sk-expired"}),
        (openai.PermissionDeniedError, 403, "model_not_allowed", "model", {"key": "sk-narrow"}),
        (openai.NotFoundError, 404, "model_not_found", "model", {"model": "nobody"}),
        (openai.APIStatusError, 413, "request_too_large", None, {"user": "x" * MAX_BODY_BYTES}),
        (openai.BadRequestError, 400, None, None, {"model": "status-400"}),
        (openai.InternalServerError, 502, "engine_unavailable", None, {"model": "status-401"}),
        (openai.NotFoundError, 404, None, None, {"model": "status-404"}),
        (openai.ConflictError, 409, None, None, {"model": "status-409"}),
        (openai.APIStatusError, 413, None, None, {"model": "status-413"}),
        (openai.BadRequestError, 400, None, None, {"model": "status-422"}),
        (openai.RateLimitError, 429, "overloaded", None, {"model": "status-429"}),
        (openai.InternalServerError, 500, None, None, {"model": "status-500"}),
        (openai.InternalServerError, 502, "overloaded", None, {"model": "status-502"}),
        (openai.InternalServerError, 503, "overloaded", None, {"model": "status-503"}),
        (openai.InternalServerError, 504, "overloaded", None, {"model": "status-504"}),
    ],
)
def test_each_failure_is_the_right_class(
    sluice: Stack,
    expected: type[openai.APIStatusError],
    status: int,
    code: str | None,
    param: str | None,
    asked: dict[str, Any],
    stream: bool,
) -> None:
    if asked.get("messages") == "long":
        asked = {"messages": [{"role": "user", "content": "again and " * 3000}]}
    error = raised(sluice, **asked, stream=stream)

    assert type(error) is expected
    assert (error.status_code, error.code, error.param) == (status, code, param)
    if status in (429, 503):
        assert error.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("path", ["/v1/engines", "/v1/fine_tuning/jobs", "/"])
def test_a_path_that_is_not_there_is_not_found(sluice: Stack, path: str) -> None:
    with sdk(sluice) as client, pytest.raises(openai.NotFoundError) as caught:
        client.get(f"{sluice.url}{path}", cast_to=object)

    assert set(caught.value.body) == {"message", "type", "param", "code"}  # type: ignore[arg-type]


def test_a_method_that_is_not_there_is_a_status_error(sluice: Stack) -> None:
    with sdk(sluice) as client, pytest.raises(openai.APIStatusError) as caught:
        client.get("/chat/completions", cast_to=object)

    assert (caught.value.status_code, caught.value.code) == (405, "method_not_allowed")


def test_an_unknown_model_is_not_retrieved(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody/nothing")

    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(("model", "words"), [("breaks", "lost the plot"), ("cuts", "went away|ended")])
def test_a_stream_that_fails_in_its_middle_raises(
    client: openai.OpenAI, upstream: ScriptedServer, model: str, words: str
) -> None:
    text = ""
    with pytest.raises(openai.APIError, match=words) as caught:
        for chunk in client.chat.completions.create(model=model, messages=HELLO, stream=True):
            text += chunk.choices[0].delta.content or ""
            if text:
                upstream.go_on()
            assert chunk.choices[0].finish_reason is None

    assert text == "half "
    assert not isinstance(caught.value, openai.APIStatusError)


def test_a_gateway_that_is_not_there_is_a_connection_error() -> None:
    with (
        openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="x", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.models.list()


def test_headers_that_only_openai_has_a_use_for_do_no_harm(sluice: Stack) -> None:
    with sdk(sluice, organization="org-1", project="proj-1") as client:
        assert client.chat.completions.create(model="echo", messages=HELLO).choices


def test_the_sdk_tries_again_after_a_server_error(sluice: Stack, upstream: ScriptedServer) -> None:
    before = len([call for call in upstream.calls if call.model == "recovers"])
    with sdk(sluice, max_retries=2) as client:
        answer = client.chat.completions.create(model="recovers", messages=HELLO)

    assert answer.choices[0].message.content == "Hello there."
    assert len([call for call in upstream.calls if call.model == "recovers"]) == before + 2


def test_a_mistake_of_the_callers_is_not_repeated(sluice: Stack, upstream: ScriptedServer) -> None:
    before = len([call for call in upstream.calls if call.model == "status-400"])
    with sdk(sluice, max_retries=2) as client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="status-400", messages=HELLO)

    assert len([call for call in upstream.calls if call.model == "status-400"]) == before + 1
