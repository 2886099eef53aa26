"""The routing facts of a Messages request, and the errors of its family."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluice_gateway.dialects import anthropic_errors
from sluice_gateway.dialects.messages import facts
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.facts import BodyFacts

from .messages_chat import request

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}


def facts_of(**fields: Any) -> BodyFacts:
    found = facts.decode(request(**fields))
    assert isinstance(found, BodyFacts)
    return found


def test_model_bound_and_streaming_are_read() -> None:
    found = facts_of(stream=True)

    assert (found.model, found.max_tokens, found.stream, found.needs) == ("m", 100, True, frozenset())


def test_a_count_generates_nothing() -> None:
    body = json.dumps({"model": "m", "messages": [], "stream": True, "max_tokens": 5}).encode()

    found = facts.decode_count(body)

    assert isinstance(found, BodyFacts)
    assert (found.stream, found.max_tokens) == (False, None)


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [{"name": "f", "input_schema": {}}]}, {"tools"}),
        ({"tools": []}, set()),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, {"images"}),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [IMAGE]}]}]},
            {"images"},
        ),
        ({"messages": [{"role": "user", "content": 'an "image", as {"type": "image"}'}]}, set()),
        ({"messages": [{"role": "user", "content": "image"}]}, set()),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, {"json_schema"}),
        ({"output_format": {"type": "json_schema", "schema": {}}}, {"json_schema"}),
        ({"output_config": {"effort": "low"}}, set()),
    ],
)
def test_needs_are_found(fields: dict[str, Any], needs: set[str]) -> None:
    assert facts_of(**fields).needs == needs


def test_the_whole_prompt_is_weighed() -> None:
    bare = facts_of().prompt_tokens_estimate
    long = "word " * 400

    for fields in (
        {"system": long},
        {"messages": [{"role": "user", "content": long}]},
        {"tools": [{"name": "f", "description": long, "input_schema": {}}]},
    ):
        assert 400 <= facts_of(**fields).prompt_tokens_estimate - bare <= 600


def test_an_image_weighs_what_it_costs_a_model() -> None:
    inside = {"type": "document", "source": {"type": "content", "content": [IMAGE]}}
    content = [IMAGE, {"type": "tool_result", "content": [IMAGE]}, inside]

    found = facts_of(messages=[{"role": "user", "content": content}])

    assert 3 * 1_600 <= found.prompt_tokens_estimate <= 3 * 1_600 + 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_what_is_missing_or_of_the_wrong_type_is_named(fields: dict[str, Any], param: str) -> None:
    found = facts.decode(request(**fields))

    assert isinstance(found, Problem)
    assert (found.status, found.param) == (400, param)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff{}", b'{"messages":' + b"[" * 50_000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    found = facts.decode(body)

    assert isinstance(found, Problem)
    assert found.failure is Failure.INVALID_JSON


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (Failure.INVALID_REQUEST, 400, "invalid_request_error"),
        (Failure.INVALID_API_KEY, 401, "authentication_error"),
        (Failure.BACKEND_NOT_ALLOWED, 403, "permission_error"),
        (Failure.MODEL_NOT_FOUND, 404, "not_found_error"),
        (Failure.METHOD_NOT_ALLOWED, 405, "invalid_request_error"),
        (Failure.BODY_TOO_LARGE, 413, "request_too_large"),
        (Failure.QUEUE_FULL, 429, "rate_limit_error"),
        (Failure.INTERNAL, 500, "api_error"),
        (Failure.UPSTREAM_LOST, 502, "api_error"),
        (Failure.UPSTREAM_UNAVAILABLE, 503, "overloaded_error"),
        (Failure.UPSTREAM_TIMEOUT, 504, "timeout_error"),
    ],
)
def test_each_status_has_its_type(failure: Failure, status: int, kind: str) -> None:
    found = problem(failure, "Sorry.")

    assert found.status == status
    assert json.loads(anthropic_errors.body(found, "req_1")) == {
        "type": "error",
        "error": {"type": kind, "message": "Sorry."},
        "request_id": "req_1",
    }


def test_every_failure_has_a_type_that_the_sdk_knows() -> None:
    known = {"request_too_large"} | {
        *("invalid_request_error", "authentication_error", "permission_error", "not_found_error"),
        *("rate_limit_error", "timeout_error", "api_error", "overloaded_error"),
    }

    assert {anthropic_errors.error_type(problem(failure, "").status) for failure in Failure} == known


def test_the_field_is_named_in_the_message_once() -> None:
    def message(text: str) -> str:
        found = problem(Failure.INVALID_REQUEST, text, param="top_p")
        told: str = json.loads(anthropic_errors.body(found))["error"]["message"]
        return told

    assert message("must be positive.") == "top_p: must be positive."
    assert message("Wrong 'top_p'.") == "Wrong 'top_p'."


def test_the_event_names_itself() -> None:
    found = problem(Failure.UPSTREAM_LOST, "Gone.")

    event = anthropic_errors.event(found, "req_1")

    assert event == b"event: error\ndata: " + anthropic_errors.body(found, "req_1") + b"\n\n"
