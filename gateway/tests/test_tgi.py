"""Text Generation Inference behind the gateway: OpenAI's API outside, its own inside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from sluice_engines.adapter import ClientRequest
from sluice_engines.probe import probe
from sluice_engines.tgi import TgiAdapter
from sluice_engines.transport import Deadlines
from sluice_gateway.upstream import HttpTransport

from .conftest import StartEngine
from .native_tgi import INFO, MODEL, NativeTgi, with_pages
from .scripted_engine import Call, ScriptedEngine
from .serving import PATIENCE_S, Served, serving, settings_of

TOKEN_OF_THE_MACHINE = "hf_this_is_nobodys_business"


@pytest.fixture(autouse=True)
def token_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN_OF_THE_MACHINE)


@asynccontextmanager
async def behind_the_gateway(*engines: ScriptedEngine, **settings: Any) -> AsyncIterator[Served]:
    for engine in engines:
        with_pages(engine)
    backend = {"name": "tgi", "adapter": "tgi", "url": [engine.url for engine in engines]}
    async with serving(settings_of(backends=[backend], **settings)) as served:
        await served.gateway.health.wait_until_looked()
        yield served


def completion(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "Say it", "temperature": 0, **fields}


async def complete(served: Served, **fields: Any) -> httpx.Response:
    return await served.http.post("/v1/completions", json=completion(**fields))


def events(answer: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def streamed_text(answer: httpx.Response) -> str:
    return "".join(c["text"] for e in events(answer) for c in e["choices"])


async def test_a_completion_is_generated_natively(start_engine: StartEngine) -> None:
    engine = await start_engine(NativeTgi())
    async with behind_the_gateway(engine) as served:
        answer = await complete(served, seed=7, top_p=1, stop="zebra")

    told = answer.json()
    assert answer.status_code == 200
    assert (told["object"], told["model"], told["id"][:5]) == ("text_completion", MODEL, "cmpl-")
    assert told["choices"] == [
        {"index": 0, "text": "The quick brown fox", "logprobs": None, "finish_reason": "stop"}
    ]
    assert told["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}
    (call,) = engine.calls
    assert call.path == "/generate"
    assert call.fields["inputs"] == "Say it"
    assert call.fields["parameters"] == {
        "details": True,
        "do_sample": False,
        "max_new_tokens": 16,
        "seed": 7,
        "stop": ["zebra"],
    }


async def test_a_stream_is_the_same_completion_in_pieces(start_engine: StartEngine) -> None:
    engine = await start_engine(NativeTgi())
    async with behind_the_gateway(engine) as served:
        answer = await complete(served, stream=True, stream_options={"include_usage": True})

    chunks = events(answer)
    assert [c["choices"][0]["text"] for c in chunks[:-1]] == ["The", " quick", " brown", " fox", ""]
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None, None, None, None, "stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}
    assert {c["usage"] for c in chunks[:-1]} == {None}
    assert len({c["id"] for c in chunks}) == 1
    assert engine.calls[0].path == "/generate_stream"


async def test_openais_own_client_reads_both(start_engine: StartEngine) -> None:
    engine = await start_engine(NativeTgi())
    async with behind_the_gateway(engine) as served:
        client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
        async with client:
            whole = await client.completions.create(model=MODEL, prompt="Say it", logprobs=2)
            stream = await client.completions.create(model=MODEL, prompt="Say it", stream=True)
            pieces = [chunk.choices[0].text async for chunk in stream]

    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["The", " quick", " brown", " fox"]
    assert logprobs.token_logprobs == [-0.5] * 4
    assert logprobs.text_offset == [0, 3, 9, 15]
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"The": -0.5, "~1": -3.0}
    assert "".join(pieces) == "The quick brown fox"


async def test_streamed_log_probabilities_are_those_of_the_whole(start_engine: StartEngine) -> None:
    engine = await start_engine(NativeTgi())
    async with behind_the_gateway(engine) as served:
        whole = (await complete(served, logprobs=1)).json()["choices"][0]["logprobs"]
        told = [c["choices"][0]["logprobs"] for c in events(await complete(served, logprobs=1, stream=True))]

    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [value for one in told if one for value in one[field]] == whole[field]


async def test_a_stop_string_is_never_told_wherever_it_is(start_engine: StartEngine) -> None:
    """The engine stops only where one ends a token's text, and leaves it in."""
    engine = await start_engine(NativeTgi())
    async with behind_the_gateway(engine) as served:
        for stop in (" brown", "ck br", "uic", "x"):
            whole = (await complete(served, stop=[stop, "zebra"])).json()["choices"][0]
            stream = await complete(served, stop=[stop, "zebra"], stream=True)

            expected = "The quick brown fox".partition(stop)[0]
            assert (whole["text"], whole["finish_reason"]) == (expected, "stop"), stop
            assert streamed_text(stream) == expected
            assert events(stream)[-1]["choices"][0]["finish_reason"] == "stop"


async def test_an_echo_tells_the_prompts_own_log_probabilities(start_engine: StartEngine) -> None:
    """What lm-eval asks: score a text, generate nothing."""
    engine = await start_engine(NativeTgi())
    async with behind_the_gateway(engine) as served:
        choice = (await complete(served, echo=True, logprobs=1, max_tokens=0)).json()["choices"][0]

    assert choice["text"] == "Say it"
    assert choice["logprobs"]["tokens"] == ["<s>", "Say", "it"]
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5]
    assert engine.calls[0].fields["parameters"]["decoder_input_details"] is True


async def test_several_prompts_are_several_calls_in_their_order(start_engine: StartEngine) -> None:
    engine = await start_engine(NativeTgi())
    prompts = [f"number {i}" for i in range(20)]
    async with behind_the_gateway(engine) as served:
        whole = (await complete(served, prompt=prompts, echo=True)).json()
        stream = await complete(served, prompt=prompts[:2], stream=True)

    assert [c["index"] for c in whole["choices"]] == list(range(20))
    assert [c["text"] for c in whole["choices"]] == [f"{p}The quick brown fox" for p in prompts]
    assert whole["usage"]["prompt_tokens"] == 40
    by_index: dict[int, str] = {}
    for told in events(stream):
        choice = told["choices"][0]
        by_index[choice["index"]] = by_index.get(choice["index"], "") + choice["text"]
    assert by_index == {0: "The quick brown fox", 1: "The quick brown fox"}


async def test_characters_that_python_takes_for_line_ends_pass_through_a_stream(
    start_engine: StartEngine,
) -> None:
    tokens = ("a\u2028b", "\u0085", "\u2029\u00e2\u20ac", "\x0b\x1c", "\n")
    engine = await start_engine(NativeTgi(*tokens))
    async with behind_the_gateway(engine) as served:
        answer = await complete(served, stream=True)

    assert streamed_text(answer) == "".join(tokens)


PROBLEMS = [
    (("too long", "validation", 422), 400, "invalid_request_error"),
    (("Request failed during generation", "generation", 424), 500, "server_error"),
    (("Model is overloaded", "overloaded", 429), 429, None),
    (("Incomplete generation", "incomplete_generation", 500), 500, "server_error"),
    (("Template error", "template_error", 422), 400, "invalid_request_error"),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_its_errors_are_openais(start_engine: StartEngine, stream: bool) -> None:
    native = NativeTgi()
    async with behind_the_gateway(await start_engine(native)) as served:
        for problem, status, kind in PROBLEMS:
            native.fails_with = problem
            answer = await complete(served, stream=stream)

            error = answer.json()["error"]
            assert (answer.status_code, error["message"]) == (status, problem[0])
            assert kind is None or error["type"] == kind
            assert set(error) == {"message", "type", "param", "code"}


async def test_what_it_lacks_is_refused_and_named(start_engine: StartEngine) -> None:
    engine = await start_engine(NativeTgi())
    asked: tuple[tuple[dict[str, Any], str], ...] = (
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"echo": True, "logprobs": 1, "stream": True}, "logprobs"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    )
    async with behind_the_gateway(engine) as served:
        for fields, param in asked:
            answer = await complete(served, **fields)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    assert engine.calls == []


async def test_a_client_that_leaves_ends_the_generation(start_engine: StartEngine) -> None:
    native = NativeTgi()
    native.pause.clear()
    engine = await start_engine(native)
    async with behind_the_gateway(engine) as served:
        async with served.http.stream("POST", "/v1/completions", json=completion(stream=True)) as answer:
            first = await anext(answer.aiter_text())
            assert "The" in first
        await asyncio.wait_for(engine.calls[0].left.wait(), PATIENCE_S)
        await served.until_idle()


async def test_a_stop_string_inside_a_token_ends_the_generation_too(start_engine: StartEngine) -> None:
    native = NativeTgi("The quick brown", " fox")
    native.pause.clear()
    engine = await start_engine(native)
    async with behind_the_gateway(engine) as served:
        answer = await complete(served, stream=True, stop="uic")
        await asyncio.wait_for(engine.calls[0].left.wait(), PATIENCE_S)

    assert streamed_text(answer) == "The q"


@pytest.mark.parametrize(
    ("more", "prompt_tokens"), [({}, 2 + 3), ({"truncate_prompt_tokens": 2}, 2 + 2), ({"stop": "wn"}, 2 + 3)]
)
async def test_a_stream_that_is_cut_inside_a_token_has_its_usage(
    start_engine: StartEngine, more: dict[str, Any], prompt_tokens: int
) -> None:
    """The engine tells a prompt's tokens with a stream's last message, which no stream is read to here; with
    `stop: wn` each ends with it."""
    engine = await start_engine(NativeTgi("The", " quick brown", " fox"))
    usage = {"prompt": ["Say it", "Say it again"], "stream": True, "stream_options": {"include_usage": True}}
    async with behind_the_gateway(engine) as served:
        answer = await complete(served, **usage | {"stop": "uic"} | more)

    told = events(answer)[-1]["usage"]
    assert told["prompt_tokens"] == prompt_tokens
    assert told["completion_tokens"] == 4, "two of each answer were read"
    asked = [call.fields["inputs"] for call in engine.calls if call.path == "/tokenize"]
    assert asked == ([] if more.get("stop") else usage["prompt"])


async def test_an_engine_that_counts_no_prompts_leaves_a_cut_stream_without_usage(
    start_engine: StartEngine,
) -> None:
    native = NativeTgi("The quick brown", " fox")
    native.tokenizes = False
    engine = await start_engine(native)
    async with behind_the_gateway(engine) as served:
        answer = await complete(served, stream=True, stop="uic", stream_options={"include_usage": True})

    assert answer.status_code == 200
    assert streamed_text(answer) == "The q"
    assert [chunk["usage"] for chunk in events(answer)] == [None, None]


async def test_an_answer_that_is_closed_unread_closes_its_call(start_engine: StartEngine) -> None:
    native = NativeTgi()
    native.pause.clear()
    engine = await start_engine(native)
    http, adapter = HttpTransport(), TgiAdapter()
    try:
        body = json.dumps(completion(stream=True)).encode()
        asked = ClientRequest(kind="completions", path="/v1/completions", body=body)
        response = await adapter.over(http).send(adapter.prepare(asked, engine.url, None), Deadlines())
        assert b"The" in await anext(aiter(response))
        await response.aclose()
        await response.aclose()
        await asyncio.wait_for(engine.calls[0].left.wait(), PATIENCE_S)
        assert [chunk async for chunk in response] == []
    finally:
        await http.aclose()


async def test_a_silent_engine_meets_the_deadline_of_the_first_token(start_engine: StartEngine) -> None:
    async def silent(call: Call) -> None:
        await call.left.wait()

    engine = await start_engine(silent)
    timeouts = {"first_token_s": 0.2, "total_s": 0.4}
    async with behind_the_gateway(engine, timeouts=timeouts) as served:
        stream = await complete(served, stream=True)
        whole = await complete(served)

    assert (stream.status_code, whole.status_code) == (504, 504)
    assert [call.left.is_set() for call in engine.calls] == [True, True]


async def test_a_stream_that_fails_midway_ends_with_the_error(start_engine: StartEngine) -> None:
    native = NativeTgi()
    native.fails_after, native.fails_with = 2, ("CUDA out of memory", "generation", 424)
    async with behind_the_gateway(await start_engine(native)) as served:
        answer = await complete(served, stream=True)

    last = answer.text.rstrip().rpartition("data: ")[2]
    assert answer.status_code == 200
    assert "CUDA out of memory" in json.loads(last)["error"]["message"]
    assert "[DONE]" not in answer.text


async def test_a_stream_without_its_last_message_is_a_lost_one(start_engine: StartEngine) -> None:
    native = NativeTgi()
    native.fails_after = 2
    async with behind_the_gateway(await start_engine(native)) as served:
        answer = await complete(served, stream=True)

    assert '"error"' in answer.text
    assert "[DONE]" not in answer.text


async def test_before_the_first_byte_another_replica_takes_over(start_engine: StartEngine) -> None:
    async def lost(call: Call) -> None:
        call.reset()

    full = NativeTgi()
    full.fails_with = ("Model is overloaded", "overloaded", 429)
    engines = [await start_engine(script) for script in (lost, full, NativeTgi())]
    async with behind_the_gateway(*engines) as served:
        answers = [await complete(served, stream=i % 2 == 0) for i in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 6


async def test_the_engine_gets_its_own_key_and_nothing_of_the_machine(start_engine: StartEngine) -> None:
    engine = with_pages(await start_engine(NativeTgi()))
    backend = {"name": "tgi", "adapter": "tgi", "url": engine.url, "api_key_env": "TGI_KEY"}
    settings = settings_of(backends=[backend])
    async with serving(settings, {"TGI_KEY": "for-the-engine"}) as served:
        await complete(served)
        await complete(served, stream=True)

    assert [call.headers["authorization"] for call in engine.calls] == ["Bearer for-the-engine"] * 2
    assert not any(TOKEN_OF_THE_MACHINE in str(call.headers) for call in engine.calls)


CHUNK = {"id": "", "object": "chat.completion.chunk", "created": 1, "model": MODEL}


async def test_chat_goes_to_the_messages_api(start_engine: StartEngine) -> None:
    async def chat(call: Call) -> None:
        choice = {"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}
        last = {"index": 0, "delta": {"content": ""}, "finish_reason": "eos_token"}
        assert call.path == "/v1/chat/completions"
        pieces = (b"data: " + json.dumps({**CHUNK, "choices": [c]}).encode() for c in (choice, last))
        await call.stream(*(p + b"\n\n" for p in pieces), b"data: [DONE]\n\n")

    engine = await start_engine(chat)
    async with behind_the_gateway(engine) as served:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True, "stop": "x"}
        answer = await served.http.post("/v1/chat/completions", json=body | {"presence_penalty": 0})

    assert [e["choices"][0]["finish_reason"] for e in events(answer)] == [None, "stop"]
    sent = engine.calls[0].fields
    assert (sent["model"], sent["stop"]) == ("tgi", ["x"])
    assert "presence_penalty" not in sent


async def test_chats_errors_have_real_statuses(start_engine: StartEngine) -> None:
    asked = (
        (422, "validation", 400),
        (200, "validation", 400),
        (424, "generation", 500),
        (429, "overloaded", 429),
    )
    answers = iter(asked)

    async def refuse(call: Call) -> None:
        status, kind, _ = next(answers)
        await call.answer(status, {"error": "No.", "error_type": kind})

    async with behind_the_gateway(await start_engine(refuse)) as served:
        for _, _, expected in asked:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
            answer = await served.http.post("/v1/chat/completions", json=body)
            assert (answer.status_code, answer.json()["error"]["message"]) == (expected, "No.")


async def test_a_version_that_lists_no_models_has_the_one_of_its_info(start_engine: StartEngine) -> None:
    engine = with_pages(await start_engine(NativeTgi()))
    engine.pages["/v1/models"] = (404, b"")
    engine.pages["/info"] = (200, json.dumps(INFO | {"version": "1.4.5"}).encode())
    http = HttpTransport()
    try:
        adapter = TgiAdapter()
        reading = await probe(adapter.over(http), adapter, engine.url, ask_version=True)
    finally:
        await http.aclose()

    assert (reading.ready, reading.models, reading.version) == (True, (MODEL,), "1.4.5")
