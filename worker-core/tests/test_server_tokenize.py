"""Counting tokens says beforehand what an answer's usage says afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parrot import CONTEXT, NOISE, Worker, parrot_worker, running, token_ids, write_folder
from parrot_requests import CHAT, COMPLETIONS, chat_body

TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
USER = {"role": "user", "content": "What is 2 + 3?"}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with parrot_worker(write_folder(tmp_path_factory.mktemp("models") / "parrot")) as worker:
        yield worker


@pytest.fixture(scope="module")
def bundled() -> Iterator[Worker]:
    command = [sys.executable, "-m", "sluice_worker", "serve", "--port", "0", "--dtype", "float32"]
    with running([*command, "--kv-memory", "64MiB"]) as worker:
        yield worker


def test_a_prompt_becomes_its_tokens(parrot: Worker) -> None:
    answer = parrot.http.post(TOKENIZE, json={"model": "parrot", "prompt": "hé"}).json()

    assert answer == {"count": 3, "max_model_len": CONTEXT, "tokens": token_ids("hé"), "token_strs": None}


def test_tokens_are_shown_as_the_vocabulary_writes_them_when_asked_for(parrot: Worker) -> None:
    body = {"prompt": f"a b{NOISE}", "return_token_strs": True}

    assert parrot.http.post(TOKENIZE, json=body).json()["token_strs"] == ["a", "Ġ", "b", NOISE]


@given(st.text(max_size=40))
@settings(max_examples=50, deadline=None)
def test_every_text_survives_the_way_there_and_back(bundled: Worker, text: str) -> None:
    tokens = bundled.http.post(TOKENIZE, json={"prompt": text}).json()["tokens"]

    assert bundled.http.post(DETOKENIZE, json={"tokens": tokens}).json() == {"prompt": text}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [USER]},
        {"messages": [{"role": "system", "content": "Be brief."}, USER]},
        {"messages": [USER], "tools": TOOLS},
        {"messages": [USER], "tools": TOOLS, "tool_choice": "none"},
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "sunny"},
            ]
        },
        {
            "messages": [USER, {"role": "assistant", "content": "The answer is "}],
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
        {"messages": [USER], "add_generation_prompt": False},
        {"messages": [USER], "chat_template_kwargs": {"tools": TOOLS}},
    ],
)
def test_a_conversations_count_is_its_later_usage(bundled: Worker, fields: dict[str, Any]) -> None:
    body = {"model": "sluice-tiny", **fields}

    count = bundled.http.post(TOKENIZE, json=body).json()["count"]
    answer = bundled.http.post(CHAT, json={**body, "max_tokens": 1}).json()

    assert count == answer["usage"]["prompt_tokens"]


def test_a_prompts_count_is_its_later_usage(bundled: Worker) -> None:
    count = bundled.http.post(TOKENIZE, json={"prompt": "Once upon a time"}).json()["count"]
    body = {"model": "sluice-tiny", "prompt": "Once upon a time", "max_tokens": 1}

    assert count == bundled.http.post(COMPLETIONS, json=body).json()["usage"]["prompt_tokens"]


def test_a_continued_message_is_the_prompts_end(bundled: Worker) -> None:
    messages = [USER, {"role": "assistant", "content": "2 + 3 = "}]

    def prompt(**fields: Any) -> str:
        tokens = bundled.http.post(TOKENIZE, json={"messages": messages, **fields}).json()["tokens"]
        text: str = bundled.http.post(DETOKENIZE, json={"tokens": tokens}).json()["prompt"]
        return text

    assert prompt(continue_final_message=True).endswith("<|im_start|>assistant\n2 + 3 = ")
    assert prompt().endswith("2 + 3 = <|im_end|>\n<|im_start|>assistant\n")
    assert prompt(add_generation_prompt=False).endswith("2 + 3 = <|im_end|>\n")


def test_an_answer_goes_on_where_the_continued_message_ends(parrot: Worker) -> None:
    body = chat_body(
        messages=[{"role": "user", "content": "ab"}, {"role": "assistant", "content": " cd"}],
        continue_final_message=True,
    )

    answer = parrot.http.post(CHAT, json=body).json()

    assert answer["choices"][0]["message"]["content"] == "ab cd"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (TOKENIZE, {}, "prompt"),
        (TOKENIZE, {"prompt": "a", "messages": [USER]}, "prompt"),
        (TOKENIZE, {"prompt": [1]}, "prompt"),
        (TOKENIZE, {"messages": []}, "messages"),
        (TOKENIZE, {"messages": [{"role": "nobody", "content": "a"}]}, "messages[0].role"),
        (TOKENIZE, {"messages": [USER], "continue_final_message": True}, "continue_final_message"),
        (
            TOKENIZE,
            {
                "messages": [{"role": "assistant", "content": "a"}],
                "continue_final_message": True,
                "add_generation_prompt": True,
            },
            "continue_final_message",
        ),
        (
            CHAT,
            {
                "model": "parrot",
                "messages": [{"role": "assistant", "content": "a", "tool_calls": [CALL]}],
                "continue_final_message": True,
            },
            "continue_final_message",
        ),
        (DETOKENIZE, {}, "tokens"),
        (DETOKENIZE, {"tokens": ["a"]}, "tokens[0]"),
        (DETOKENIZE, {"tokens": [-1]}, "tokens"),
        (DETOKENIZE, {"tokens": [10**6]}, "tokens"),
    ],
)
def test_what_cannot_be_done_names_the_parameter(
    parrot: Worker, path: str, fields: dict[str, Any], param: str
) -> None:
    response = parrot.http.post(path, json=fields)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_another_model_is_not_found_and_none_is_the_one_there_is(parrot: Worker) -> None:
    for path, fields in ((TOKENIZE, {"prompt": "a"}), (DETOKENIZE, {"tokens": [100]})):
        assert parrot.http.post(path, json=fields).status_code == 200
        assert parrot.http.post(path, json={**fields, "model": "other"}).status_code == 404


def test_nothing_has_no_tokens(parrot: Worker) -> None:
    assert parrot.http.post(TOKENIZE, json={"prompt": ""}).json()["count"] == 0
    assert parrot.http.post(DETOKENIZE, json={"tokens": []}).json() == {"prompt": ""}
