"""The Messages API, as Anthropic's SDK uses it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import anthropic
import pytest
from anthropic.types import Message
from running_stack import Stack

from .conftest import MAX_BODY_BYTES, WORKER_MODEL
from .scripted_upstream import ScriptedServer, wait_for

GREEDY: dict[str, Any] = {
    "model": WORKER_MODEL,
    "max_tokens": 30,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "extra_body": {"temperature": 0},
}
TEXT_EVENTS = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
]


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_question_is_answered(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(**GREEDY, system="Be brief.")

    assert "Paris" in text_of(answer)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", WORKER_MODEL)
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.id.startswith("msg_")
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) > 0
    assert answer.usage.output_tokens > 0
    assert answer._request_id


def test_a_stream_has_every_event_in_its_order(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(**GREEDY)
    events = list(claude.messages.create(**GREEDY, stream=True))

    assert list(dict.fromkeys(event.type for event in events if event.type != "ping")) == TEXT_EVENTS
    assert [event.type for event in events].count("message_start") == 1
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    assert all(delta.type == "text_delta" for delta in deltas)
    assert "".join(delta.text for delta in deltas if delta.type == "text_delta") == text_of(whole)
    (ending,) = [event for event in events if event.type == "message_delta"]
    assert ending.delta.stop_reason == whole.stop_reason
    assert ending.usage.output_tokens == whole.usage.output_tokens


def test_the_stream_helper_gathers_the_message(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(**GREEDY) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()

    assert "Paris" in text
    assert text == text_of(message)
    assert message.stop_reason == "end_turn"


def test_it_stops_where_it_is_told(claude: anthropic.Anthropic) -> None:
    whole = text_of(claude.messages.create(**GREEDY))
    word = whole.split()[-1]
    cut = claude.messages.create(**GREEDY, stop_sequences=[word])
    short = claude.messages.create(**{**GREEDY, "max_tokens": 2})

    assert text_of(cut) == whole[: whole.index(word)]
    assert short.stop_reason == "max_tokens"
    assert short.usage.output_tokens == 2


def test_tokens_are_counted_beforehand(claude: anthropic.Anthropic) -> None:
    asked = {"model": WORKER_MODEL, "messages": GREEDY["messages"], "system": "Be brief."}
    counted = claude.messages.count_tokens(**asked)
    usage = claude.messages.create(**asked, max_tokens=1).usage

    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_beta_requests_have_a_query_and_are_answered_all_the_same(claude: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": WORKER_MODEL, "messages": GREEDY["messages"]}
    answer = claude.beta.messages.create(**asked, max_tokens=3, betas=["some-beta-2025-01-01"])
    counted = claude.beta.messages.count_tokens(**asked)

    assert answer.stop_reason == "max_tokens"
    assert counted.input_tokens == answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)


def test_models_are_listed(claude: anthropic.Anthropic) -> None:
    page = claude.models.list()

    assert page.data[0].id == page.first_id == WORKER_MODEL
    assert not page.has_more
    found = claude.models.retrieve(WORKER_MODEL)
    assert (found.id, found.type, found.display_name) == (WORKER_MODEL, "model", WORKER_MODEL)
    assert isinstance(found.created_at, datetime)


def test_raw_responses_have_the_headers(claude: anthropic.Anthropic) -> None:
    raw = claude.messages.with_raw_response.create(**GREEDY)

    assert raw.headers["request-id"] == raw.headers["x-request-id"] == raw.parse()._request_id
    assert raw.headers["x-sluice-backend"] == "worker"
    assert f"model={WORKER_MODEL}" in raw.headers["x-sluice-route"]
    assert "server-timing" in raw.headers


@pytest.mark.parametrize("stream", [False, True])
def test_answers_say_what_is_left(sluice: Stack, stream: bool) -> None:
    with anthropic.Anthropic(base_url=sluice.url, api_key="sk-counted", max_retries=0) as client:
        raw = client.messages.with_raw_response.create(**{**GREEDY, "max_tokens": 100}, stream=stream)
        raw.parse()

    for kind, limit in (("requests", 20), ("tokens", 1000)):
        assert int(raw.headers[f"anthropic-ratelimit-{kind}-limit"]) == limit
        assert int(raw.headers[f"anthropic-ratelimit-{kind}-remaining"]) < limit
        assert datetime.fromisoformat(raw.headers[f"anthropic-ratelimit-{kind}-reset"]).tzinfo


def test_requests_over_the_limit_are_rate_limit_errors(sluice: Stack) -> None:
    asked = {**GREEDY, "model": "echo"}
    with anthropic.Anthropic(base_url=sluice.url, api_key="sk-twice-anthropic", max_retries=0) as client:
        for _ in range(2):
            client.messages.create(**asked)
        with pytest.raises(anthropic.RateLimitError, match="2 requests per min") as caught:
            client.messages.create(**asked)

    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 31
    assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("expected", "status", "kind", "asked"),
    [
        (anthropic.BadRequestError, 400, "invalid_request_error", {"max_tokens": 0}),
        (anthropic.BadRequestError, 400, "invalid_request_error", {"messages": []}),
        (anthropic.BadRequestError, 400, "invalid_request_error", {"messages": "long"}),
        (anthropic.AuthenticationError, 401, "authentication_error", {"key": "sk-wrong"}),
        (anthropic.PermissionDeniedError, 403, "permission_error", {"key": "sk-narrow"}),
        (anthropic.NotFoundError, 404, "not_found_error", {"model": "nobody"}),
        (anthropic.ConflictError, 409, "invalid_request_error", {"model": "status-409"}),
        (anthropic.RequestTooLargeError, 413, "request_too_large", {"system": "x" * MAX_BODY_BYTES}),
        (anthropic.RateLimitError, 429, "rate_limit_error", {"model": "status-429"}),
        (anthropic.InternalServerError, 500, "api_error", {"model": "status-500"}),
        (anthropic.InternalServerError, 502, "api_error", {"model": "status-502"}),
        (anthropic.ServiceUnavailableError, 503, "overloaded_error", {"model": "status-503"}),
        (anthropic.GatewayTimeoutError, 504, "timeout_error", {"model": "status-504"}),
    ],
)
def test_each_failure_is_the_right_class(
    sluice: Stack,
    expected: type[anthropic.APIStatusError],
    status: int,
    kind: str,
    asked: dict[str, Any],
    stream: bool,
) -> None:
    fields = {name: value for name, value in asked.items() if name != "key"}
    if fields.get("messages") == "long":
        fields["messages"] = [{"role": "user", "content": "again and " * 3000}]
    key = asked.get("key", "sk-sdk")
    with (
        anthropic.Anthropic(base_url=sluice.url, api_key=key, max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(**{**GREEDY, **fields}, stream=stream)

    error = caught.value
    assert (type(error).__name__, error.status_code) == (expected.__name__, status)
    assert isinstance(error.body, dict)
    assert (error.body["type"], error.body["error"]["type"]) == ("error", kind)
    assert error.request_id == error.body["request_id"]


def test_a_path_that_is_not_there_is_not_found(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.batches.list()

    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(("model", "words"), [("breaks", "lost the plot"), ("cuts", "went away|ended")])
def test_a_stream_that_fails_in_its_middle_raises(
    claude: anthropic.Anthropic, upstream: ScriptedServer, model: str, words: str
) -> None:
    text = ""
    with (
        claude.messages.stream(**{**GREEDY, "model": model}) as stream,
        pytest.raises(anthropic.APIError, match=words),
    ):
        for piece in stream.text_stream:
            text += piece
            upstream.go_on()

    assert text == "half "


def test_a_stream_that_is_closed_early_frees_the_engine(
    claude: anthropic.Anthropic, upstream: ScriptedServer
) -> None:
    with claude.messages.stream(**{**GREEDY, "model": "pauses"}) as stream:
        assert next(iter(stream.text_stream)) == "Wait"
        call = upstream.last("/v1/chat/completions", "pauses")

    wait_for(call.left.is_set, "the engine hears that the client left")


def test_the_sdk_tries_again_after_a_server_error(sluice: Stack, upstream: ScriptedServer) -> None:
    before = len([call for call in upstream.calls if call.model == "recovers"])
    with anthropic.Anthropic(base_url=sluice.url, api_key="sk-sdk", max_retries=2) as client:
        answer = client.messages.create(**{**GREEDY, "model": "recovers"})

    assert text_of(answer) == "Hello there."
    assert len([call for call in upstream.calls if call.model == "recovers"]) == before + 2


def test_a_bearer_token_is_as_good_as_a_key(sluice: Stack) -> None:
    with anthropic.Anthropic(base_url=sluice.url, auth_token="sk-sdk", max_retries=0) as client:
        assert claude_says(client)
    for token, key in (("sk-sdk", "nonsense"), ("nonsense", "sk-sdk")):
        both = {"x-api-key": key}
        with anthropic.Anthropic(base_url=sluice.url, auth_token=token, default_headers=both) as client:
            assert claude_says(client)


def claude_says(client: anthropic.Anthropic) -> str:
    return text_of(client.messages.create(**{**GREEDY, "model": "echo"}))
