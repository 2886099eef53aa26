"""The server over real sockets, in front of an engine that repeats its prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parrot import CONTEXT, TEMPLATE, Worker, parrot_worker, token_ids, write_folder
from parrot_requests import CHAT, COMPLETIONS, chat_body, completion_body, events, eventually, is_idle


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with parrot_worker(write_folder(tmp_path_factory.mktemp("models") / "parrot")) as worker:
        yield worker


# Answers.


def test_a_chat_answer_has_openais_shape(worker: Worker) -> None:
    answer = worker.http.post(CHAT, json=chat_body("hello")).json()

    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "parrot"
    assert abs(answer["created"] - time.time()) < 60
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 5,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_a_chat_stream_is_framed_as_openai_frames_it(worker: Worker) -> None:
    response = worker.http.post(CHAT, json=chat_body("hé", stream=True, max_tokens=3))

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    chunks = events(response.text)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "h"},
        {"content": "é"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]
    assert all("usage" not in chunk for chunk in chunks)
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1


def test_usage_comes_in_a_last_chunk_without_choices_when_asked_for(worker: Worker) -> None:
    body = chat_body(stream=True, stream_options={"include_usage": True}, n=2)

    *chunks, last = events(worker.http.post(CHAT, json=body).text)

    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 5
    assert last["usage"]["completion_tokens"] == 10


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_says_which_stop_string_ended_it(worker: Worker, stream: bool) -> None:
    response = worker.http.post(CHAT, json=chat_body("hello", stop=["x", "ll"], stream=stream))

    last = events(response.text)[-1] if stream else response.json()
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["choices"][0]["stop_reason"] == "ll"


def test_an_answer_that_ended_by_itself_has_no_stop_string(worker: Worker) -> None:
    for path, body in ((CHAT, chat_body(stop=["x"])), (COMPLETIONS, completion_body(stop=["x"]))):
        assert "stop_reason" not in worker.http.post(path, json=body).json()["choices"][0]


def test_each_choice_has_its_own_role_text_and_end(worker: Worker) -> None:
    chunks = events(worker.http.post(CHAT, json=chat_body("abc", stream=True, n=3, max_tokens=3)).text)

    for index in range(3):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"].get("content", "") for choice in mine) == "abc"
        assert [choice["finish_reason"] for choice in mine if choice["finish_reason"]] == ["length"]


def test_stop_strings_end_the_answer_and_free_the_engine(worker: Worker) -> None:
    body = chat_body("one. two. three.", stop=[". t", "zzz"], max_tokens=200)

    plain = worker.http.post(CHAT, json=body).json()
    streamed = events(worker.http.post(CHAT, json={**body, "stream": True}).text)

    assert plain["choices"][0]["message"]["content"] == "one"
    assert plain["choices"][0]["finish_reason"] == "stop"
    assert plain["usage"]["completion_tokens"] == len("one. t")
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed) == "one"
    eventually(lambda: is_idle(worker))


def test_the_end_token_stops_unless_it_is_ignored(worker: Worker) -> None:
    text = "hi<|end|>ho"

    stopped = worker.http.post(CHAT, json=chat_body(text, max_tokens=5)).json()
    ignored = worker.http.post(CHAT, json=chat_body(text, max_tokens=5, ignore_eos=True)).json()
    shown = worker.http.post(
        CHAT, json=chat_body(text, max_tokens=5, ignore_eos=True, skip_special_tokens=False)
    ).json()

    assert stopped["choices"][0]["message"]["content"] == "hi"
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert ignored["choices"][0]["message"]["content"] == "hiho"
    assert shown["choices"][0]["message"]["content"] == text


def test_logprobs_have_one_entry_a_token_streamed_or_not(worker: Worker) -> None:
    body = chat_body("é!", logprobs=True, top_logprobs=2, max_tokens=3)

    plain = worker.http.post(CHAT, json=body).json()["choices"][0]["logprobs"]["content"]
    streamed = events(worker.http.post(CHAT, json={**body, "stream": True}).text)

    assert [entry["bytes"] for entry in plain] == [[0xC3], [0xA9], [0x21]]
    assert plain[2]["token"] == "!"
    assert plain[2]["logprob"] == -0.5
    assert [top["token"] for top in plain[2]["top_logprobs"]] == ["!", '"']
    logprobs = [chunk["choices"][0]["logprobs"] for chunk in streamed]
    assert [entry for part in logprobs if part for entry in part["content"]] == plain


def test_tools_reach_the_template_unless_they_are_switched_off(worker: Worker) -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]

    given = worker.http.post(CHAT, json=chat_body("x", tools=tools, tool_choice="auto", max_tokens=9)).json()
    older = worker.http.post(CHAT, json=chat_body("x", functions=[{"name": "add"}], max_tokens=9)).json()
    none = worker.http.post(CHAT, json=chat_body("x", tools=tools, tool_choice="none", max_tokens=3)).json()

    assert given["choices"][0]["message"]["content"] == '[{"type":'[:9]
    assert older["usage"]["prompt_tokens"] == given["usage"]["prompt_tokens"]
    assert none["choices"][0]["message"]["content"] == "xxx"


def test_without_a_limit_the_answer_may_fill_the_context(worker: Worker) -> None:
    answer = worker.http.post(CHAT, json=chat_body("hello", max_tokens=None)).json()

    assert answer["usage"]["total_tokens"] == CONTEXT


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["aba"]),
        (["ab", "c"], ["aba", "ccc"]),
        (token_ids("xy"), ["xyx"]),
        ([token_ids("xy"), token_ids("z")], ["xyx", "zzz"]),
        (["ab", token_ids("z")], ["aba", "zzz"]),
    ],
)
def test_legacy_prompts_may_be_texts_or_token_ids(worker: Worker, prompt: Any, texts: list[str]) -> None:
    answer = worker.http.post(COMPLETIONS, json=completion_body(prompt, max_tokens=3)).json()

    assert answer["object"] == "text_completion"
    assert [choice["text"] for choice in answer["choices"]] == texts
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(texts)))


def test_legacy_answers_echo_and_number_their_choices_by_prompt(worker: Worker) -> None:
    body = completion_body(["ab", "c"], n=2, echo=True, max_tokens=2)

    answer = worker.http.post(COMPLETIONS, json=body).json()
    chunks = events(worker.http.post(COMPLETIONS, json={**body, "stream": True}).text)

    assert [choice["text"] for choice in answer["choices"]] == ["abab", "abab", "ccc", "ccc"]
    assert answer["usage"]["prompt_tokens"] == 3
    for index, text in enumerate(["abab", "abab", "ccc", "ccc"]):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in mine) == text
        assert mine[-1]["finish_reason"] == "length"


def test_echo_with_no_tokens_to_generate_gives_the_prompt_back(worker: Worker) -> None:
    body = completion_body(token_ids("hello"), echo=True, max_tokens=0)

    answer = worker.http.post(COMPLETIONS, json=body).json()
    chunks = events(worker.http.post(COMPLETIONS, json={**body, "stream": True}).text)

    assert answer["choices"][0]["text"] == chunks[0]["choices"][0]["text"] == "hello"
    assert answer["usage"]["completion_tokens"] == 0


def test_legacy_logprobs_are_parallel_lists(worker: Worker) -> None:
    answer = worker.http.post(COMPLETIONS, json=completion_body("é!", logprobs=2, max_tokens=3)).json()

    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["bytes:\\xc3", "bytes:\\xa9", "!"],
        "token_logprobs": [-0.5, -0.5, -0.5],
        "top_logprobs": [
            {"bytes:\\xc3": -0.5, "bytes:\\xc4": -1.5},
            {"bytes:\\xa9": -0.5, "bytes:\\xaa": -1.5},
            {"!": -0.5, '"': -1.5},
        ],
        "text_offset": [0, 0, 1],
    }


PROMPT_LOGPROBS = {
    "tokens": ["a", "bytes:\\xc3", "bytes:\\xa9", "b"],
    "token_logprobs": [None, -0.25, -0.25, -0.25],
    "top_logprobs": [None, {"bytes:\\xc3": -0.25}, {"bytes:\\xa9": -0.25}, {"b": -0.25}],
    "text_offset": [0, 1, 1, 2],
}


def joined(parts: list[dict[str, list[Any]] | None]) -> dict[str, list[Any]]:
    """The lists of a stream's events, end to end."""
    return {name: [item for part in parts if part for item in part[name]] for name in PROMPT_LOGPROBS}


@pytest.mark.parametrize("prompt", ["aéb", token_ids("aéb")], ids=["text", "ids"])
def test_echo_with_logprobs_and_no_tokens_gives_the_prompts_own(worker: Worker, prompt: Any) -> None:
    body = completion_body([prompt, "ab"], echo=True, logprobs=1, max_tokens=0)

    answer = worker.http.post(COMPLETIONS, json=body).json()
    chunks = events(worker.http.post(COMPLETIONS, json={**body, "stream": True}).text)

    first, second = answer["choices"]
    assert (first["text"], first["finish_reason"], first["logprobs"]) == ("aéb", "length", PROMPT_LOGPROBS)
    assert second["logprobs"]["text_offset"] == [0, 1]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (6, 0)
    for choice in answer["choices"]:
        mine = [part["choices"][0] for part in chunks if part["choices"][0]["index"] == choice["index"]]
        assert joined([part["logprobs"] for part in mine]) == choice["logprobs"]
        assert "".join(part["text"] for part in mine) == choice["text"]
        assert mine[-1]["finish_reason"] == "length"


def test_echo_with_logprobs_puts_the_prompts_before_the_answers(worker: Worker) -> None:
    body = completion_body("aéb", echo=True, logprobs=1, max_tokens=2, n=2, best_of=2)

    answer = worker.http.post(COMPLETIONS, json=body).json()
    chunks = events(worker.http.post(COMPLETIONS, json={**body, "stream": True}).text)

    for index in range(2):
        whole = answer["choices"][index]
        assert whole["text"].startswith("aéba")
        assert {name: found[:4] for name, found in whole["logprobs"].items()} == PROMPT_LOGPROBS
        assert whole["logprobs"]["tokens"][4:] == ["a", "bytes:\\xc3"]
        assert whole["logprobs"]["token_logprobs"][4:] == [-0.5, -0.5]
        assert whole["logprobs"]["text_offset"][4:] == [3, 4]
        mine = [part["choices"][0] for part in chunks if part["choices"][0]["index"] == index]
        assert joined([part["logprobs"] for part in mine]) == whole["logprobs"]


def test_a_prompt_may_fill_the_context_if_nothing_is_to_be_generated(worker: Worker) -> None:
    body = completion_body("x" * (CONTEXT - 1), echo=True, logprobs=0, max_tokens=0)

    answer = worker.http.post(COMPLETIONS, json=body).json()

    assert len(answer["choices"][0]["logprobs"]["tokens"]) == CONTEXT - 1
    body["prompt"] = "x" * (CONTEXT + 1)
    assert_openai_error(worker.http.post(COMPLETIONS, json=body), 400, code="context_length_exceeded")


def test_models_health_readiness_and_model_facts(worker: Worker) -> None:
    models = worker.http.get("/v1/models").json()

    assert [model["id"] for model in models["data"]] == ["parrot"]
    assert worker.http.get("/v1/models/parrot").json() == models["data"][0]
    assert worker.http.get("/health").json() == {"status": "ok"}
    assert worker.http.get("/ready").json() == {"status": "ready"}
    assert worker.http.get("/model").json()["vocab_size"] == 512
    assert worker.http.head("/health").status_code == 200


def test_metrics_count_tokens_and_outcomes(worker: Worker) -> None:
    names = ["prompt_tokens_total", "generation_tokens_total", "requests_total", "steps_total"]
    names += ["time_to_first_token_seconds_count", "inter_token_latency_seconds_count"]
    before = {name: worker.metric(name) for name in names}

    worker.http.post(CHAT, json=chat_body("hello", max_tokens=4))

    grown = {name: worker.metric(name) - before[name] for name in names}
    assert grown == dict(zip(names, (5, 4, 1, 4, 1, 3), strict=True))
    assert worker.metric("kv_blocks_total") == 64


# Refusals.


def assert_openai_error(response: Any, status: int, **expected: Any) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and "Traceback" not in error["message"]
    for key, value in expected.items():
        assert error[key] == value


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_are_real_statuses_with_openais_body(worker: Worker, stream: bool) -> None:
    def post(path: str = CHAT, **fields: Any) -> Any:
        return worker.http.post(path, json={**chat_body(), "prompt": "x", **fields, "stream": stream})

    assert_openai_error(post(model="gpt-9"), 404, code="model_not_found", param="model")
    assert_openai_error(post(temperature=3), 400, param="temperature")
    assert_openai_error(post(logit_bias={"99999": 1}), 400, param="logit_bias")
    assert_openai_error(post(logit_bias={"5": 101}), 400, param="logit_bias")
    assert_openai_error(post(stop_token_ids=[-1]), 400, param="stop_token_ids")
    assert_openai_error(post(COMPLETIONS, prompt=[]), 400, param="prompt")
    assert_openai_error(post(COMPLETIONS, prompt={"a": 1}), 400, param="prompt", code="invalid_type")
    assert_openai_error(post(COMPLETIONS, prompt=[5, 99999]), 400, param="prompt")
    assert_openai_error(post(COMPLETIONS, prompt=["x"] * 100, n=100), 400, param="prompt")
    assert_openai_error(post(COMPLETIONS, prompt=[[5], [-1]]), 400, param="prompt")
    assert_openai_error(
        post(response_format={"type": "json_object"}),
        400,
        code="unsupported_parameter",
        param="response_format",
    )


def test_a_prompt_longer_than_the_context_is_refused_before_any_work(worker: Worker) -> None:
    before = worker.metric("prompt_tokens_total")

    chat = worker.http.post(CHAT, json=chat_body("x" * CONTEXT))
    completion = worker.http.post(COMPLETIONS, json=completion_body(["ok", "x" * 20_000]))

    assert_openai_error(chat, 400, code="context_length_exceeded", param="messages")
    assert_openai_error(completion, 400, code="context_length_exceeded", param="prompt")
    assert "maximum context length is 256 tokens" in chat.json()["error"]["message"]
    assert worker.metric("prompt_tokens_total") == before


def test_an_empty_prompt_is_the_beginning_of_text(worker: Worker) -> None:
    answer = worker.http.post(COMPLETIONS, json=completion_body("", max_tokens=1)).json()

    assert answer["usage"]["prompt_tokens"] == 1


def test_broken_json_unknown_paths_and_wrong_methods(worker: Worker) -> None:
    assert_openai_error(worker.http.post(CHAT, content=b"{not json"), 400, code="invalid_json")
    assert_openai_error(worker.http.get("/v1/nothing"), 404)
    assert_openai_error(worker.http.get("/v1/models/gpt-9"), 404, code="model_not_found")
    assert_openai_error(worker.http.get(CHAT), 405, code="method_not_allowed")
    assert worker.http.get(CHAT).headers["allow"] == "POST"


def test_a_body_over_the_limit_is_refused_announced_or_not(worker: Worker) -> None:
    too_much = b" " * 100_001

    assert_openai_error(worker.http.post(CHAT, content=too_much), 413)
    assert_openai_error(worker.http.post(CHAT, content=iter([too_much[:50_000], too_much[50_000:]])), 413)


def test_request_ids_are_echoed_when_they_are_plain(worker: Worker) -> None:
    given = worker.http.get("/health", headers={"x-request-id": "abc-1"})
    odd = worker.http.get("/health", headers={"x-request-id": "two words"})

    assert given.headers["x-request-id"] == "abc-1"
    assert odd.headers["x-request-id"].startswith("req-")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats(-3, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
FIELDS = (
    "messages",
    "prompt",
    "model",
    "temperature",
    "top_p",
    "n",
    "stop",
    "seed",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "stream",
    "echo",
    "stream_options",
    "max_tokens",
    "top_k",
    "min_p",
    "min_tokens",
    "stop_token_ids",
    "tools",
    "tool_choice",
    "functions",
    "best_of",
    "chat_template_kwargs",
    "repetition_penalty",
    "cache_salt",
    "response_format",
    "ignore_eos",
    "skip_special_tokens",
)


@given(
    changes=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
    path=st.sampled_from([CHAT, COMPLETIONS]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_is_answered_with_a_5xx(worker: Worker, changes: dict[str, Any], path: str) -> None:
    response = worker.http.post(path, json={**chat_body("ab"), "prompt": "ab", **changes})

    assert response.status_code in (200, 400, 404)
    if response.status_code != 200:
        assert_openai_error(response, response.status_code)


def test_settings_of_the_model_apply_where_the_request_has_none(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "parrot", TEMPLATE, do_sample=False, top_k=5)

    with parrot_worker(folder) as worker:
        assert worker.http.post(CHAT, json=chat_body()).status_code == 200
