"""The echo engine as a client of OpenAI's API meets it."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct

import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from sluice_engines.adapter import ClientRequest
from sluice_engines.echo import EchoAdapter
from sluice_engines.transport import (
    ConnectionLost,
    DeadlineExceeded,
    Deadlines,
    UpstreamRequest,
    UpstreamResponse,
)

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "one two  three\nfour"}]}


class Sleeps:
    """A clockless sleep that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)


def echo(**options: object) -> EchoAdapter:
    return EchoAdapter(options, sleep=Sleeps(), clock=lambda: 1_700_000_000.5, new_id=lambda: "abc")


async def send(
    adapter: EchoAdapter,
    body: object,
    path: str = "/v1/chat/completions",
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - a frozen value
    **headers: str,
) -> UpstreamResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    client = ClientRequest(
        kind="chat",
        path=path,
        body=raw,
        headers=tuple((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()),
    )
    transport = adapter.transport()
    assert transport is not None
    return await transport.send(adapter.prepare(client, "http://echo", None), deadlines)


async def read(response: UpstreamResponse) -> bytes:
    return b"".join([chunk async for chunk in response])


async def answer(adapter: EchoAdapter, body: object, **kwargs: object) -> tuple[int, dict]:
    response = await send(adapter, body, **kwargs)
    return response.status, json.loads(await read(response))


async def events(adapter: EchoAdapter, body: dict, **kwargs: object) -> list[dict]:
    """Parsed events of a stream, after checking its framing."""
    response = await send(adapter, body | {"stream": True}, **kwargs)
    assert response.status == 200
    assert dict(response.headers)[b"content-type"] == b"text/event-stream; charset=utf-8"
    frames = (await read(response)).decode().split("\n\n")
    assert frames.pop() == "", "the last event is complete"
    assert frames.pop() == "data: [DONE]"
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


# Whole answers


async def test_chat_says_the_last_user_message_again():
    body = CHAT | {
        "messages": [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "answer"},
            {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "last"}]},
        ]
    }

    status, said = await answer(echo(), body)

    completion = ChatCompletion.model_validate(said, strict=True)
    assert status == 200
    assert completion.choices[0].message.content == "the last"
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.id, completion.created) == ("chatcmpl-abc", 1_700_000_000)
    assert completion.usage.prompt_tokens == 4
    assert completion.usage.completion_tokens == 2
    assert completion.usage.total_tokens == 6


async def test_max_tokens_cuts_and_says_so():
    _, said = await answer(echo(), CHAT | {"max_tokens": 3, "max_completion_tokens": 2})

    assert said["choices"][0]["message"]["content"] == "one two"
    assert said["choices"][0]["finish_reason"] == "length"
    assert said["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("stop", ["thr", ["four", "thr"]])
async def test_the_earliest_stop_string_ends_the_answer_and_is_left_out(stop):
    _, said = await answer(echo(), CHAT | {"stop": stop})

    assert said["choices"][0]["message"]["content"] == "one two  "
    assert said["choices"][0]["finish_reason"] == "stop"


async def test_n_gives_alternatives_and_counts_the_prompt_once():
    _, said = await answer(echo(), CHAT | {"n": 3})

    assert [c["index"] for c in said["choices"]] == [0, 1, 2]
    assert said["usage"]["prompt_tokens"] == 4
    assert said["usage"]["completion_tokens"] == 12


async def test_completions_say_each_prompt_again():
    body = {"model": "echo", "prompt": ["a b", "c"], "n": 2, "echo": True}

    _, said = await answer(echo(), body, path="/v1/completions")

    completion = Completion.model_validate(said, strict=True)
    assert completion.object == "text_completion"
    assert [c.text for c in completion.choices] == ["a ba b", "a ba b", "cc", "cc"]
    assert [c.index for c in completion.choices] == [0, 1, 2, 3]


async def test_completions_stop_after_sixteen_tokens_unless_told_otherwise():
    body = {"model": "echo", "prompt": "x " * 40}

    _, said = await answer(echo(), body, path="/v1/completions")

    assert said["usage"]["completion_tokens"] == 16
    assert said["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(("prompt", "said"), [([5, 6], ["5 6"]), ([[5, 6], [7]], ["5 6", "7"])])
async def test_token_ids_are_spelled_out(prompt, said):
    _, body = await answer(echo(), {"model": "echo", "prompt": prompt}, path="/v1/completions")

    assert [c["text"] for c in body["choices"]] == said


# Streams


async def test_a_chat_stream_has_openais_shape():
    chunks = await events(echo(), CHAT)

    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        assert "usage" not in chunk
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert all(set(d) == {"content"} for d in deltas[1:-1])
    assert "".join(d["content"] for d in deltas[1:-1]) == "one two  three\nfour"
    assert deltas[-1] == {}
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * 5 + ["stop"]
    assert {(c["id"], c["created"], c["model"]) for c in chunks} == {("chatcmpl-abc", 1_700_000_000, "echo")}


async def test_usage_comes_last_when_asked_for_and_is_null_before():
    chunks = await events(echo(), CHAT | {"stream_options": {"include_usage": True}})

    assert [c["usage"] for c in chunks[:-1]] == [None] * 6
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 8


async def test_alternatives_are_interleaved_and_each_has_its_role_and_its_end():
    chunks = await events(echo(), CHAT | {"n": 2, "max_tokens": 1})

    seen = [(c["choices"][0]["index"], c["choices"][0]["finish_reason"]) for c in chunks]
    assert seen == [(0, None), (1, None), (0, None), (1, None), (0, "length"), (1, "length")]


async def test_a_completion_stream_has_openais_shape():
    chunks = await events(echo(), {"model": "echo", "prompt": "a b"}, path="/v1/completions")

    assert {c["object"] for c in chunks} == {"text_completion"}
    assert [c["choices"][0]["text"] for c in chunks] == ["a", " b", ""]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, "stop"]


# Pace and faults


async def test_the_first_token_is_delayed_and_the_others_follow_at_their_rate():
    adapter = echo(delay_s=2.0, tokens_per_s=4.0)

    await events(adapter, CHAT)

    assert adapter.transport()._sleep.asked == [2.0, 0.25, 0.25, 0.25]


async def test_an_answer_that_is_not_streamed_takes_as_long():
    adapter = echo(delay_s=2.0, tokens_per_s=4.0)

    await answer(adapter, CHAT)

    assert adapter.transport()._sleep.asked == [2.75]


async def test_a_request_may_set_its_own_pace_by_header_or_body_and_the_body_wins():
    adapter = echo(delay_s=2.0)

    await answer(adapter, CHAT, X_Echo_Delay_S="7")
    await answer(adapter, CHAT | {"x_echo": {"delay_s": 9.0}}, X_Echo_Delay_S="7")

    assert adapter.transport()._sleep.asked == [7.0, 9.0]


async def test_an_error_can_be_ordered():
    status, said = await answer(echo(), CHAT | {"stream": True}, X_Echo_Status="503")

    assert status == 503
    assert said["error"]["type"] == "server_error"
    assert set(said["error"]) == {"message", "type", "param", "code"}


async def test_a_lost_connection_can_be_ordered():
    adapter = echo()
    response = await send(adapter, CHAT | {"stream": True, "x_echo": {"lose_after": 2}})

    received = b""
    with pytest.raises(ConnectionLost):
        async for chunk in response:
            received += chunk

    assert b"two" in received
    assert b"three" not in received
    assert adapter.transport().in_flight == 0
    with pytest.raises(ConnectionLost):
        await send(adapter, CHAT | {"x_echo": {"lose_after": 2}})


async def test_a_stream_can_be_ordered_to_end_with_an_error():
    adapter = echo(tokens_per_s=4)
    response = await send(adapter, CHAT | {"stream": True}, **{"x-echo-fail-after": "2"})
    received = (await read(response)).decode()

    last = json.loads(received.strip().split("\n\n")[-1].removeprefix("data: "))
    assert "two" in received and "three" not in received
    assert (last["error"]["message"], last["error"]["type"]) == (
        "The echo engine was told to fail.",
        "server_error",
    )
    assert "[DONE]" not in received
    assert adapter.transport().in_flight == 0


async def test_the_same_order_is_a_500_where_nothing_is_streamed():
    adapter = echo(tokens_per_s=4, fail_after=2)

    status, body = await answer(adapter, CHAT)
    assert (status, body["error"]["type"]) == (500, "server_error")
    assert adapter.transport()._sleep.asked == [0.25]  # the second token came, and then it failed
    assert (await answer(adapter, CHAT | {"x_echo": {"fail_after": 99}}))[0] == 200


async def test_faults_can_meet_some_requests_only():
    dice = iter([0.1, 0.3, 0.25, 0.24])
    adapter = EchoAdapter({"status": 503, "fault_rate": 0.25}, sleep=Sleeps(), random=lambda: next(dice))

    assert [(await answer(adapter, CHAT))[0] for _ in range(4)] == [503, 200, 200, 503]
    assert (await answer(adapter, CHAT | {"x_echo": {"fault_rate": 1}}))[0] == 503  # no dice are cast


@pytest.mark.parametrize(
    ("deadlines", "phase", "slept"),
    [
        (Deadlines(idle_s=1.0), "idle", [1.0]),
        (Deadlines(idle_s=None, total_s=3.0), "total", [3.0]),
        (Deadlines(idle_s=4.0, total_s=3.0), "total", [3.0]),
    ],
)
async def test_a_stream_that_is_too_slow_runs_into_its_deadline(deadlines, phase, slept):
    adapter = echo(delay_s=10.0)
    response = await send(adapter, CHAT | {"stream": True}, deadlines=deadlines)

    with pytest.raises(DeadlineExceeded) as error:
        await read(response)

    assert error.value.phase == phase
    assert adapter.transport()._sleep.asked == slept
    assert adapter.transport().in_flight == 0


async def test_an_answer_that_is_too_slow_runs_into_the_first_byte_deadline():
    with pytest.raises(DeadlineExceeded, match="first_byte"):
        await send(echo(delay_s=10.0), CHAT, deadlines=Deadlines(first_byte_s=1.0))


# What is wrong with a request


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        (b"{", 400, None, "invalid_json"),
        ({"model": "echo"}, 400, "messages", "invalid_type"),
        (CHAT | {"messages": []}, 400, "messages", "invalid_type"),
        (CHAT | {"n": 0}, 400, "n", "invalid_type"),
        (CHAT | {"stop": ["a"] * 5}, 400, "stop", "invalid_type"),
        (CHAT | {"logprobs": True}, 400, "logprobs", "unsupported_parameter"),
        (CHAT | {"stream_options": {}}, 400, "stream_options", None),
        (CHAT | {"x_echo": {"speed": 1}}, 400, "x_echo", None),
        (CHAT | {"x_echo": {"delay_s": -1}}, 400, "x_echo", None),
        (CHAT | {"model": "gpt"}, 404, "model", "model_not_found"),
    ],
)
async def test_a_wrong_request_gets_openais_error(body, status, param, code):
    got, said = await answer(echo(), body)

    assert got == status
    assert said["error"]["type"] == "invalid_request_error"
    assert (said["error"]["param"], said["error"]["code"]) == (param, code)


def test_a_wrong_option_is_named():
    with pytest.raises(ValueError, match="no option 'speed'; it has: delay_s"):
        echo(speed=1)
    with pytest.raises(ValueError, match=r"\$\.delay_s"):
        echo(delay_s=-1)


# Embeddings and models


async def test_embeddings_are_deterministic_unit_vectors_in_both_encodings():
    body = {"model": "echo", "input": ["a", "b", "a"], "dimensions": 8}

    _, plain = await answer(echo(), body, path="/v1/embeddings")
    _, packed = await answer(echo(), body | {"encoding_format": "base64"}, path="/v1/embeddings")

    CreateEmbeddingResponse.model_validate(plain, strict=True)
    a, b, again = (item["embedding"] for item in plain["data"])
    assert a == again != b
    assert math.isclose(sum(x * x for x in a), 1.0)
    unpacked = struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"]))
    assert unpacked == pytest.approx(a, abs=1e-6)


async def test_models_and_health_are_answered_like_an_engines():
    transport = echo(models=["echo", "parrot"]).transport()

    async def get(path: str) -> tuple[int, dict]:
        request = UpstreamRequest(base_url="http://echo", path=path, method="GET")
        response = await transport.send(request, Deadlines())
        return response.status, json.loads(await read(response))

    status, models = await get("/v1/models")
    assert (status, [m["id"] for m in models["data"]]) == (200, ["echo", "parrot"])
    assert (await get("/ready"))[0] == 200
    assert (await get("/nothing"))[0] == 404


# Leaving


async def test_a_reader_that_closes_early_frees_the_engine():
    adapter = echo()
    response = await send(adapter, CHAT | {"stream": True})
    await anext(aiter(response))
    assert adapter.transport().in_flight == 1

    await response.aclose()
    await response.aclose()

    assert adapter.transport().in_flight == 0
    assert await read(response) == b"", "nothing comes after closing"


async def test_nothing_comes_from_a_response_that_was_closed_while_it_was_read():
    adapter = echo()
    gate = asyncio.Event()
    adapter.transport()._sleep = lambda _seconds: gate.wait()
    response = await send(adapter, CHAT | {"stream": True, "x_echo": {"delay_s": 1.0}})
    reading = asyncio.create_task(read(response))
    await asyncio.sleep(0)

    await response.aclose()
    gate.set()

    assert await reading == b""


async def test_a_cancelled_reader_frees_the_engine():
    adapter = EchoAdapter({"delay_s": 60.0})
    response = await send(adapter, CHAT | {"stream": True})
    reading = asyncio.create_task(read(response))
    await asyncio.sleep(0.01)

    reading.cancel()
    await asyncio.wait([reading])

    assert adapter.transport().in_flight == 0


async def test_a_cancelled_request_frees_the_engine():
    adapter = EchoAdapter({"delay_s": 60.0})
    sending = asyncio.create_task(send(adapter, CHAT))
    await asyncio.sleep(0.01)
    assert adapter.transport().in_flight == 1

    sending.cancel()
    await asyncio.wait([sending])

    assert adapter.transport().in_flight == 0
