"""The Responses API, as OpenAI's SDK uses it."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest
from running_stack import Stack

from .conftest import WORKER_MODEL
from .scripted_upstream import PATIENCE_S, ScriptedServer, wait_for

GREEDY: dict[str, Any] = {
    "model": WORKER_MODEL,
    "input": "What is the capital of France?",
    "temperature": 0,
    "max_output_tokens": 30,
}
TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def test_a_question_is_answered_and_kept(client: openai.OpenAI) -> None:
    made = client.responses.create(**GREEDY, metadata={"for": "geography"})

    assert "Paris" in made.output_text
    assert (made.object, made.status, made.model, made.error) == ("response", "completed", WORKER_MODEL, None)
    assert made.id.startswith("resp_")
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    kept = client.responses.retrieve(made.id)
    assert kept == made
    assert kept.metadata == {"for": "geography"}


def test_a_stream_has_every_event_in_its_order(client: openai.OpenAI) -> None:
    whole = client.responses.create(**GREEDY, store=False)
    events = list(client.responses.create(**GREEDY, stream=True))

    kinds = [event.type for event in events]
    assert list(dict.fromkeys(kinds)) == TEXT_EVENTS
    assert [event.sequence_number for event in events] == [*range(len(events))]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in deltas) == whole.output_text
    assert all(event.logprobs == [] for event in deltas)
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == whole.output_text
    assert {event.item_id for event in deltas} == {last.response.output[0].id}
    assert client.responses.retrieve(last.response.id).output_text == whole.output_text


def test_the_stream_helper_gathers_the_response(client: openai.OpenAI) -> None:
    with client.responses.stream(**GREEDY) as stream:
        assert len([event for event in stream if event.type == "response.output_text.delta"]) > 1
        assert "Paris" in stream.get_final_response().output_text


def test_what_is_too_long_is_incomplete(client: openai.OpenAI) -> None:
    story: dict[str, Any] = {"model": WORKER_MODEL, "input": "Tell me a story.", "max_output_tokens": 4}
    whole = client.responses.create(**story)
    *_, last = client.responses.create(**story, stream=True)

    for response in (whole, getattr(last, "response", None)):
        assert response is not None
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"


def test_a_conversation_goes_on_where_it_was(client: openai.OpenAI) -> None:
    first = client.responses.create(**GREEDY, instructions="Be brief.")
    said: dict[str, Any] = {"model": WORKER_MODEL, "input": "And of Spain?", "max_output_tokens": 8}
    second = client.responses.create(**said, previous_response_id=first.id)
    apart = client.responses.create(**said)

    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert apart.usage is not None
    assert second.usage.input_tokens > apart.usage.input_tokens


def test_input_items_come_in_pages(client: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": f"Number {number}"} for number in range(3)]
    made = client.responses.create(**{**GREEDY, "input": said})
    items = list(client.responses.input_items.list(made.id, order="asc"))
    page = client.responses.input_items.list(made.id, order="desc", limit=2)

    assert [item.to_dict()["content"][0]["text"] for item in items] == ["Number 0", "Number 1", "Number 2"]
    assert len(page.data) == 2
    assert page.has_more
    assert [item.id for item in page] == [item.id for item in reversed(items)]


def test_history_may_be_sent_along_instead(client: openai.OpenAI) -> None:
    first = client.responses.create(**GREEDY)
    history: Any = [
        {"role": "user", "content": GREEDY["input"]},
        *first.output,
        {"role": "assistant", "content": [{"type": "output_text", "text": "Anything else?"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "What is 2 + 3?"}]},
    ]
    second = client.responses.create(model=WORKER_MODEL, input=history, max_output_tokens=20)

    assert second.output_text


def test_a_deleted_response_is_gone(client: openai.OpenAI) -> None:
    made = client.responses.create(**GREEDY)
    client.responses.delete(made.id)

    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**GREEDY, previous_response_id=made.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_what_was_not_to_be_stored_is_not(client: openai.OpenAI) -> None:
    made = client.responses.create(**GREEDY, store=False)

    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_other_tenants_see_nothing_of_it(client: openai.OpenAI, sluice: Stack) -> None:
    made = client.responses.create(**GREEDY)
    with openai.OpenAI(base_url=f"{sluice.url}/v1", api_key="sk-other", max_retries=0) as stranger:
        with pytest.raises(openai.NotFoundError):
            stranger.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            stranger.responses.delete(made.id)
        with pytest.raises(openai.BadRequestError):
            stranger.responses.create(**GREEDY, previous_response_id=made.id)


def test_in_the_background(client: openai.OpenAI) -> None:
    made = client.responses.create(**GREEDY, background=True)
    assert (made.status, made.background) == ("queued", True)

    deadline = time.monotonic() + PATIENCE_S
    while (found := client.responses.retrieve(made.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found.status == "completed"
    assert "Paris" in found.output_text


def test_a_background_stream_is_taken_up_again(client: openai.OpenAI) -> None:
    stream = client.responses.create(**GREEDY, background=True, stream=True)
    first = next(stream)
    assert first.type == "response.created"
    stream.close()

    rest = list(client.responses.retrieve(first.response.id, stream=True, starting_after=0))
    assert [event.sequence_number for event in rest] == [*range(1, len(rest) + 1)]
    assert rest[-1].type == "response.completed"


def test_a_background_response_is_cancelled_down_to_the_engine(
    client: openai.OpenAI, upstream: ScriptedServer
) -> None:
    stream = client.responses.create(model="pauses", input="Hello", background=True, stream=True)
    first = next(stream)
    assert first.type == "response.created"
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    cancelled = client.responses.cancel(first.response.id)
    stream.close()

    assert cancelled.status == "cancelled"
    wait_for(upstream.last("/v1/chat/completions", "pauses").left.is_set, "the engine is told")
    assert client.responses.retrieve(first.response.id).status == "cancelled"


def test_only_background_responses_are_cancelled(client: openai.OpenAI) -> None:
    made = client.responses.create(**GREEDY)

    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(made.id)


def test_a_stream_that_is_closed_early_frees_the_engine(
    client: openai.OpenAI, upstream: ScriptedServer
) -> None:
    with client.responses.create(model="pauses", input="Hello", stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
        call = upstream.last("/v1/chat/completions", "pauses")

    wait_for(call.left.is_set, "the engine hears that the client left")


def test_a_stream_that_fails_in_its_middle_says_so(client: openai.OpenAI, upstream: ScriptedServer) -> None:
    events = []
    for event in client.responses.create(model="breaks", input="Hello", stream=True):
        events.append(event)
        if event.type == "response.output_text.delta":
            upstream.go_on()

    assert events[-1].type == "response.failed"
    assert [event.sequence_number for event in events] == [*range(len(events))]
    response = events[-1].response
    assert response.error is not None
    assert "lost the plot" in response.error.message
    assert client.responses.retrieve(response.id).status == "failed"


def test_input_tokens_are_those_that_are_used(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": WORKER_MODEL, "input": "Hello there", "instructions": "Be kind."}
    counted = client.responses.input_tokens.count(**asked)
    made = client.responses.create(**asked, max_output_tokens=1)

    assert made.usage is not None
    assert counted.input_tokens == made.usage.input_tokens


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("expected", "code", "fields"),
    [
        (openai.NotFoundError, "model_not_found", {"model": "nobody"}),
        (openai.BadRequestError, "previous_response_not_found", {"previous_response_id": "resp_0"}),
        (openai.BadRequestError, "unsupported_parameter", {"tools": [{"type": "web_search"}]}),
        (openai.BadRequestError, "context_length_exceeded", {"input": "again and " * 3000}),
        (openai.BadRequestError, None, {"temperature": 9}),
        (openai.RateLimitError, "overloaded", {"model": "status-429"}),
        (openai.InternalServerError, None, {"model": "status-500"}),
    ],
)
def test_each_failure_is_the_right_class(
    client: openai.OpenAI,
    expected: type[openai.APIStatusError],
    code: str | None,
    fields: dict[str, Any],
    stream: bool,
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(**{**GREEDY, **fields}, stream=stream)

    assert type(caught.value) is expected
    assert caught.value.code == code
    assert caught.value.request_id


def test_a_response_has_the_headers(client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(**GREEDY)

    assert raw.headers["x-request-id"]
    assert raw.headers["x-sluice-backend"] == "worker"
    assert raw.headers["openai-version"]
    kept = client.responses.with_raw_response.retrieve(raw.parse().id)
    assert kept.headers["x-request-id"]
    assert kept.headers["openai-processing-ms"]
