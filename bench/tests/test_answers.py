"""The traps of measuring a token stream, each with exact time stamps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.answers import count_tokens, read_answer, spread
from sluice_bench.connection import Exchange
from sluice_bench.records import Failure, TokenSource
from sluice_bench.target import WireRequest

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)
DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"

Build = Callable[..., Exchange]


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    choices = more.pop("choices", choices)
    return chunk(b"data: " + json.dumps({"choices": choices, **more}).encode() + b"\n\n")


def text(content: str) -> bytes:
    return event({"content": content})


def usage(completion: int, prompt: int = 5) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def test_role_comment_finish_and_usage_events_are_no_tokens(exchange_of: Build) -> None:
    record = read_answer(
        exchange_of(
            [
                (100, HEAD),
                (200, chunk(b": keep-alive\n\n")),
                (300, event({"role": "assistant", "content": ""})),
                (400, text("Hel")),
                (500, text("lo")),
                (600, event({}, finish="stop")),
                (700, event(usage=usage(3))),
                (800, chunk(DONE) + END),
            ]
        )
    )
    assert record.failure is None
    assert (record.first_byte_ns, record.headers_ns) == (100, 100)
    assert record.text_sha256 == hashlib.sha256(b"Hello").hexdigest()
    assert (record.first_token_ns, record.last_token_ns, record.end_ns) == (400, 500, 800)
    assert (record.prompt_tokens, record.output_tokens, record.finish_reason) == (5, 3, "stop")
    assert record.n_events == 6


def test_an_event_arrives_with_its_last_byte(exchange_of: Build) -> None:
    whole = text("Hello")
    record = read_answer(
        exchange_of(
            [(100, HEAD + whole[:20]), (200, whole[20:-3]), (300, whole[-3:]), (400, chunk(DONE) + END)]
        )
    )
    assert record.first_token_ns == 300


def test_many_tokens_in_one_chunk_are_shared_out_from_the_usage_total(exchange_of: Build) -> None:
    record = read_answer(
        exchange_of(
            [
                (100, HEAD + text("one")),
                (200, text(" two three four five six")),
                (300, event(usage=usage(6)) + chunk(DONE) + END),
            ]
        )
    )
    assert record.token_source is TokenSource.USAGE_SPREAD
    assert [c.n_tokens for c in record.chunks] == [1, 5]


def test_log_probabilities_count_a_chunks_tokens_exactly(exchange_of: Build) -> None:
    def with_logprobs(content: str, tokens: int) -> bytes:
        logprobs = {"content": [{"token": "x", "logprob": 0.0}] * tokens}
        return event(choices=[{"index": 0, "delta": {"content": content}, "logprobs": logprobs}])

    reads = [(1, HEAD), (2, with_logprobs("a", 1)), (3, with_logprobs("bcd", 4)), (4, chunk(DONE) + END)]
    record = read_answer(exchange_of(reads))
    assert record.token_source is TokenSource.LOGPROBS
    assert [c.n_tokens for c in record.chunks] == [1, 4]
    assert record.output_tokens == 5


def test_a_running_usage_total_counts_each_chunk(exchange_of: Build) -> None:
    def running(content: str, total: int) -> bytes:
        return event({"content": content}, usage=usage(total))

    reads = [(1, HEAD), (2, running("a", 2)), (3, running("b", 3)), (4, chunk(DONE) + END)]
    record = read_answer(exchange_of(reads))
    assert record.token_source is TokenSource.RUNNING_USAGE
    assert [c.n_tokens for c in record.chunks] == [2, 1]


def test_without_usage_chunks_are_counted_and_the_record_says_so(exchange_of: Build) -> None:
    record = read_answer(exchange_of([(1, HEAD + text("a b c")), (2, text("d")), (3, chunk(DONE) + END)]))
    assert (record.token_source, record.output_tokens) == (TokenSource.CHUNKS, 2)
    assert record.prompt_tokens is None


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "x"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
    ],
)
def test_all_generated_text_counts_as_tokens(exchange_of: Build, delta: dict[str, Any]) -> None:
    record = read_answer(exchange_of([(7, HEAD), (8, event(delta)), (9, chunk(DONE) + END)]))
    assert record.first_token_ns == 8


def test_first_choice_first_token_and_first_answer_are_told_apart(exchange_of: Build) -> None:
    reads = [
        (1, HEAD + event({"role": "assistant", "content": ""})),
        (2, event({"reasoning_content": "hm"})),
        (3, event({"content": "yes"})),
        (4, chunk(DONE) + END),
    ]
    record = read_answer(exchange_of(reads))
    assert (record.first_choice_ns, record.first_token_ns, record.first_answer_ns) == (1, 2, 3)


def test_a_comment_or_a_usage_event_is_no_choice(exchange_of: Build) -> None:
    reads = [(1, HEAD + chunk(b": hold on\n\n")), (2, event(usage=usage(0))), (3, chunk(DONE) + END)]
    record = read_answer(exchange_of(reads))
    assert (record.first_choice_ns, record.first_answer_ns) == (None, None)


def test_the_request_says_what_was_asked_and_the_answer_who_served_it(exchange_of: Build) -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nX-Sluice-Backend: gpu-1\r\n\r\n")
    exchange = exchange_of([(1, head + text("a")), (2, chunk(DONE) + END)])
    exchange.request = WireRequest(b"", True, asked_tokens=64, item="short-0001", phase="warm_up")
    record = read_answer(exchange)
    assert (record.backend, record.asked_tokens) == ("gpu-1", 64)
    assert (record.item, record.phase) == ("short-0001", "warm_up")


def test_legacy_completions_carry_text_in_the_choice(exchange_of: Build) -> None:
    reads = [(1, HEAD), (2, event(choices=[{"index": 0, "text": "hi"}])), (3, chunk(DONE) + END)]
    assert read_answer(exchange_of(reads)).first_token_ns == 2


def test_an_error_event_fails_the_request_but_keeps_its_tokens(exchange_of: Build) -> None:
    broken = chunk(b'data: {"error": {"message": "engine died", "type": "server_error"}}\n\n')
    record = read_answer(exchange_of([(1, HEAD + text("a")), (2, broken + END)]))
    assert (record.failure, record.message) == (Failure.STREAM_ERROR, "engine died")
    assert len(record.chunks) == 1


def test_a_stream_without_done_is_truncated(exchange_of: Build) -> None:
    record = read_answer(exchange_of([(1, HEAD + text("a")), (2, event({}, finish="stop") + END)]))
    assert record.failure is Failure.TRUNCATED


def test_what_is_not_json_is_a_protocol_failure(exchange_of: Build) -> None:
    record = read_answer(exchange_of([(1, HEAD + chunk(b"data: {oops\n\n") + END)]))
    assert record.failure is Failure.PROTOCOL
    assert "not JSON" in record.message


def test_a_plain_answer_to_a_stream_request_is_a_protocol_failure(exchange_of: Build) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    record = read_answer(exchange_of([(1, wire)]))
    assert record.failure is Failure.PROTOCOL
    assert "asked for a stream" in record.message


def test_an_error_status_carries_the_servers_sentence(exchange_of: Build) -> None:
    body = b'{"error": {"message": "slow down", "type": "rate_limit_error", "param": null, "code": null}}'
    wire = b"HTTP/1.1 429 Too Many\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    record = read_answer(exchange_of([(1, wire)]))
    assert (record.failure, record.status, record.message) == (Failure.HTTP_STATUS, 429, "slow down")


def test_a_plain_answer_has_all_its_tokens_at_its_end(exchange_of: Build) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    details = {"prompt_tokens_details": {"cached_tokens": 4}}
    body = json.dumps({"choices": [choice], "usage": {**usage(7), **details}}).encode()
    wire = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    record = read_answer(exchange_of([(100, wire), (300, body)], stream=False))
    assert (record.first_token_ns, record.last_token_ns) == (None, 300)
    assert (record.output_tokens, record.cached_tokens, record.text_bytes) == (7, 4, 5)
    assert record.text_sha256 == hashlib.sha256(b"hello").hexdigest()


def test_a_cut_connection_stays_the_cause_of_a_broken_answer(exchange_of: Build) -> None:
    exchange = exchange_of([(1, HEAD + text("a"))])
    exchange.failure, exchange.detail = Failure.CONNECTION_LOST, "reset"
    record = read_answer(exchange)
    assert (record.failure, record.message) == (Failure.CONNECTION_LOST, "reset")
    assert record.first_token_ns == 1


def test_several_choices_are_seen(exchange_of: Build) -> None:
    both = event(choices=[{"index": index, "delta": {"content": "x"}} for index in (0, 1)])
    assert read_answer(exchange_of([(1, HEAD + both), (2, chunk(DONE) + END)])).n_choices == 2


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(0, 200))
def test_spreading_keeps_the_sum_and_gives_more_to_longer_texts(weights: list[int], total: int) -> None:
    shares = spread(total, weights)
    assert sum(shares) == total
    assert min(shares) >= (1 if total >= len(weights) else 0)
    for heavy, heavy_share in zip(weights, shares, strict=True):
        for light, light_share in zip(weights, shares, strict=True):
            assert heavy <= light or heavy_share >= light_share


def test_no_chunks_have_no_tokens() -> None:
    assert count_tokens([], [], [], 3) == (TokenSource.NONE, [])
