"""Limits and idempotency keys, as OpenAI's SDK meets them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from running_stack import Stack

from .conftest import WORKER_MODEL
from .scripted_upstream import ScriptedServer, wait_for

HELLO: Any = [{"role": "user", "content": "Hello"}]


def sdk(sluice: Stack, key: str, **options: Any) -> openai.OpenAI:
    given = {"api_key": key, "max_retries": 0, "timeout": 30, **options}
    return openai.OpenAI(base_url=f"{sluice.url}/v1", **given)


@pytest.mark.parametrize("stream", [False, True])
def test_answers_say_what_is_left(sluice: Stack, stream: bool) -> None:
    with sdk(sluice, "sk-counted") as client:
        raw = client.chat.completions.with_raw_response.create(
            model=WORKER_MODEL, messages=HELLO, max_tokens=100, stream=stream
        )
        raw.parse()

    shown = raw.headers
    assert shown["x-ratelimit-limit-requests"] == "20"
    assert int(shown["x-ratelimit-remaining-requests"]) < 20
    assert shown["x-ratelimit-reset-requests"].endswith("s")
    assert shown["x-ratelimit-limit-tokens"] == "1000"
    assert int(shown["x-ratelimit-remaining-tokens"]) < 1000
    assert shown["x-ratelimit-reset-tokens"].endswith("s")


def test_requests_over_the_limit_are_rate_limit_errors(sluice: Stack) -> None:
    with sdk(sluice, "sk-twice") as client:
        for _ in range(2):
            client.chat.completions.create(model="echo", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="echo", messages=HELLO)

    error = caught.value
    assert (error.type, error.code) == ("requests", "rate_limit_exceeded")
    assert "2 requests per min" in error.message
    assert 1 <= int(error.response.headers["retry-after"]) <= 31
    assert int(error.response.headers["retry-after-ms"]) <= 31_000
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_spent_budget_is_a_quota_error_that_is_not_repeated(sluice: Stack) -> None:
    answers: list[httpx.Response] = []
    hooks = {"response": [answers.append]}
    with (
        httpx.Client(event_hooks=hooks) as http,
        sdk(sluice, "sk-poor", max_retries=2, http_client=http) as client,
    ):
        client.chat.completions.create(model="echo", messages=HELLO, max_tokens=1)
        with pytest.raises(openai.RateLimitError) as caught:
            for _ in range(20):
                client.chat.completions.create(model="echo", messages=HELLO, max_tokens=1)

    assert (caught.value.type, caught.value.code) == ("insufficient_quota", "insufficient_quota")
    assert [answer.status_code for answer in answers].count(429) == 1


def test_the_sdk_waits_as_told_and_is_served(sluice: Stack) -> None:
    """One request at once: the second is refused, then comes again after `retry-after` when there is room."""
    holder = sdk(sluice, "sk-single")
    slow = holder.chat.completions.create(model="pauses", messages=HELLO, stream=True)
    next(slow)
    refusals: list[float] = []

    def make_room(answer: httpx.Response) -> None:
        if answer.status_code == 429:
            refusals.append(int(answer.headers["retry-after-ms"]) / 1000)
            slow.close()

    with (
        httpx.Client(event_hooks={"response": [make_room]}) as http,
        sdk(sluice, "sk-single", max_retries=5, http_client=http) as client,
    ):
        began = time.monotonic()
        answer = client.chat.completions.create(model="echo", messages=HELLO)
        took_s = time.monotonic() - began
    holder.close()

    assert answer.choices[0].message.content == "Hello"
    assert refusals
    assert took_s >= min(refusals)


def test_a_repeated_request_with_an_idempotency_key_is_done_once(
    client: openai.OpenAI, upstream: ScriptedServer
) -> None:
    def ask(text: str = "Hello") -> Any:
        said: Any = [{"role": "user", "content": text}]
        return client.chat.completions.with_raw_response.create(
            model="scripted", messages=said, extra_headers={"Idempotency-Key": "once"}
        )

    before = len(upstream.calls)
    first, second = ask(), ask()

    assert second.parse().id == first.parse().id
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert len(upstream.calls) == before + 1
    with pytest.raises(openai.BadRequestError) as caught:
        ask("Something else")
    assert caught.value.code == "idempotency_key_reused"


def test_a_request_repeated_while_it_is_answered_joins_it(sluice: Stack, upstream: ScriptedServer) -> None:
    def ask() -> httpx.Headers:
        with sdk(sluice, "sk-sdk") as client:
            raw = client.chat.completions.with_raw_response.create(
                model="holds", messages=HELLO, extra_headers={"Idempotency-Key": "joined"}
            )
        assert raw.parse().choices[0].message.content == "Hello there."
        return raw.headers

    def held() -> int:
        return len([call for call in upstream.calls if call.model == "holds"])

    before = held()
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(ask) for _ in range(5)]
        # The last of them is here before the first is answered, unless this machine is very slow.
        wait_for(lambda: sluice.metric("sluice_gateway_requests_in_flight") >= 5, "all have come")
        upstream.go_on()
        shown = [answer.result() for answer in answers]

    assert held() == before + 1
    assert len([headers for headers in shown if "idempotent-replayed" in headers]) == 4


def test_a_repeated_stream_is_given_again_in_the_same_pieces(
    client: openai.OpenAI, upstream: ScriptedServer
) -> None:
    def ask() -> list[str]:
        stream = client.chat.completions.create(
            model="scripted", messages=HELLO, stream=True, extra_headers={"Idempotency-Key": "streamed"}
        )
        return [chunk.to_json() for chunk in stream]

    before = len(upstream.calls)
    assert ask() == ask()
    assert len(upstream.calls) == before + 1
