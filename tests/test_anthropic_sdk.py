"""Anthropic's official SDK against gateway, worker and bundled model, as a user would drive them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, MessageParam
from running_stack import Stack

MODEL = "sluice-tiny"
GREEDY = {"temperature": 0}
QUESTION: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
STORY: list[MessageParam] = [{"role": "user", "content": "Tell me a story about a fox."}]


@pytest.fixture
def client(stack: Stack) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=stack.url, api_key="none", max_retries=0) as sdk:
        yield sdk


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_question_is_answered(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model=MODEL, max_tokens=50, messages=QUESTION, extra_body=GREEDY)

    assert "Paris" in text_of(answer)
    assert (answer.role, answer.model, answer.stop_reason) == ("assistant", MODEL, "end_turn")
    assert answer.id.startswith("msg_")


def test_a_streamed_answer_is_the_plain_one_in_pieces(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 40, "messages": STORY, "extra_body": GREEDY}
    plain = client.messages.create(**asked)

    with client.messages.stream(**asked) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()

    assert len(pieces) > 1
    assert "".join(pieces) == text_of(streamed) == text_of(plain)
    assert streamed.stop_reason == plain.stop_reason == "max_tokens"
    assert streamed.usage.output_tokens == plain.usage.output_tokens == 40


@pytest.mark.parametrize(
    "conversation",
    [
        {"messages": QUESTION},
        {"messages": QUESTION, "system": [{"type": "text", "text": "Be brief."}]},
        {"messages": QUESTION, "tools": [{"name": "get_weather", "input_schema": {"type": "object"}}]},
        {"messages": [*QUESTION, {"role": "assistant", "content": "The capital is "}]},
        {"messages": [*QUESTION, {"role": "assistant", "content": "Paris."}, *STORY]},
    ],
)
def test_tokens_counted_beforehand_are_those_used(
    client: anthropic.Anthropic, conversation: dict[str, Any]
) -> None:
    counted = client.messages.count_tokens(model=MODEL, **conversation)

    usage = client.messages.create(model=MODEL, max_tokens=1, **conversation).usage

    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_is_named_and_not_shown(client: anthropic.Anthropic, stream: bool) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 50,
        "messages": QUESTION,
        "extra_body": GREEDY,
        "stop_sequences": ["Nowhere", "aris"],
    }
    if stream:
        with client.messages.stream(**asked) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**asked)

    assert text_of(answer).endswith("P")
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "aris")


def test_an_answer_goes_on_where_the_last_message_ends(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "extra_body": GREEDY}
    whole = text_of(client.messages.create(messages=QUESTION, **asked))
    begun, _, last_word = whole.rpartition(" ")

    rest = client.messages.create(messages=[*QUESTION, {"role": "assistant", "content": begun}], **asked)

    assert begun
    assert text_of(rest) == f" {last_word}"


def test_a_prompt_seen_before_is_read_from_the_cache(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 1, "messages": STORY, "system": "Be kind. " * 30}
    first, second = (client.messages.create(**asked).usage for _ in range(2))

    assert second.cache_read_input_tokens
    assert second.cache_creation_input_tokens == 0
    total = second.input_tokens + second.cache_read_input_tokens
    assert total == first.input_tokens + (first.cache_read_input_tokens or 0)


def test_what_does_not_fit_is_a_bad_request(client: anthropic.Anthropic) -> None:
    too_long: list[MessageParam] = [{"role": "user", "content": "word " * 5_000}]

    with pytest.raises(anthropic.BadRequestError, match="maximum context length"):
        client.messages.create(model=MODEL, max_tokens=5, messages=too_long)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nobody", max_tokens=5, messages=QUESTION)
