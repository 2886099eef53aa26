"""The official SDK against gateway, worker and bundled model, as a user would drive them."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from running_stack import Stack, interrupt, start

MODEL = "sluice-tiny"
Message = dict[str, str]


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


def test_the_bundled_model_is_listed_first_and_echo_is_not_listed(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == MODEL
    assert not [name for name in names if "echo" in name]


def test_a_plain_answer_is_right(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ask("What is the capital of France?"), temperature=0
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("max_tokens", [0, 2])
def test_logprobs_of_a_prompt_come_through(client: openai.OpenAI, max_tokens: int) -> None:
    prompt = "Once upon a time"
    answer = client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=max_tokens, echo=True, logprobs=2, temperature=0
    )
    found = answer.choices[0].logprobs
    assert answer.usage is not None and answer.usage.completion_tokens <= max_tokens
    assert found is not None and found.tokens and found.token_logprobs
    assert "".join(found.tokens).startswith(prompt)
    assert len(found.tokens) == answer.usage.total_tokens
    assert [logprob is None for logprob in found.token_logprobs] == [True] + [False] * (len(found.tokens) - 1)


def test_a_streamed_answer_is_the_plain_one_in_pieces(client: openai.OpenAI) -> None:
    question = ask("Hello! What is 2 + 3?")
    plain = client.chat.completions.create(model=MODEL, messages=question, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=question,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    assert "5" in text
    assert len([c for c in chunks if c.choices]) > 2
    assert [c.usage for c in chunks if c.usage is not None] == [plain.usage] or chunks[-1].usage is not None
    assert chunks[-1].choices == []


def test_without_include_usage_no_chunk_carries_usage(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model=MODEL, messages=ask("Hi!"), max_tokens=4, stream=True)
    assert [chunk for chunk in chunks if chunk.usage is not None or not chunk.choices] == []


async def test_the_async_client_gets_many_answers_at_once(stack: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none") as client:

        async def plain(text: str) -> str:
            answer = await client.chat.completions.create(model=MODEL, messages=ask(text), temperature=0)
            return answer.choices[0].message.content or ""

        async def streamed(text: str) -> str:
            stream = await client.chat.completions.create(
                model=MODEL, messages=ask(text), temperature=0, stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream])

        questions = ["What is the capital of France?", "What is 4 + 4?", "Hello!", "Say hi."] * 2
        whole, pieces = await asyncio.gather(
            asyncio.gather(*map(plain, questions)), asyncio.gather(*map(streamed, questions))
        )
    assert whole == pieces
    assert "Paris" in whole[0]


def test_legacy_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=12, temperature=0)
    assert answer.choices[0].text
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 12


def test_logprobs_rank_the_greedy_token_first(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=ask("What is 1 + 1?"), temperature=0, logprobs=True, top_logprobs=3
    )
    assert answer.choices[0].logprobs is not None
    entries = answer.choices[0].logprobs.content or []
    assert "".join(entry.token for entry in entries) == answer.choices[0].message.content
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        assert entry.token == entry.top_logprobs[0].token
        assert entry.logprob <= 0


def test_two_choices_differ_and_the_seed_repeats_them(client: openai.OpenAI) -> None:
    def tell(seed: int) -> list[str]:
        answer = client.chat.completions.create(
            model=MODEL, messages=ask("Tell me a story."), n=2, seed=seed, temperature=1, max_tokens=40
        )
        assert [choice.index for choice in answer.choices] == [0, 1]
        return [choice.message.content or "" for choice in answer.choices]

    first = tell(7)
    assert first == tell(7)
    assert first != tell(8)
    assert first[0] != first[1]


def test_a_stop_string_ends_the_text_and_is_not_in_it(client: openai.OpenAI) -> None:
    question = ask("Tell me a story.")
    whole = client.chat.completions.create(model=MODEL, messages=question, temperature=0, max_tokens=60)
    text = whole.choices[0].message.content or ""
    word = text.split()[3]
    cut = client.chat.completions.create(
        model=MODEL, messages=question, temperature=0, max_tokens=60, stop=[word]
    )
    assert cut.choices[0].message.content == text[: text.index(word)]
    assert cut.choices[0].finish_reason == "stop"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-oh-no", messages=ask("Hi"))
    assert raised.value.code == "model_not_found"


def test_a_prompt_over_the_context_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=MODEL, messages=ask("again and " * 3000))
    assert raised.value.code == "context_length_exceeded"
    assert "maximum context length" in raised.value.message


def test_a_value_out_of_range_names_its_parameter(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=MODEL, messages=ask("Hi"), temperature=9)
    assert raised.value.param == "temperature"


def test_an_unknown_backend_names_the_valid_ones(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="worker"):
        client.chat.completions.create(model=MODEL, messages=ask("Hi"), extra_headers={"X-Backend": "abacus"})


def test_the_response_says_which_backend_served(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ask("Hi"), max_tokens=4)
    assert raw.headers["x-sluice-backend"] == "worker"
    assert raw.headers["x-request-id"]


def test_broken_json_has_openais_error_shape(stack: Stack) -> None:
    answer = httpx.post(f"{stack.url}/v1/chat/completions", content=b'{"model": "sluice-tiny", ')
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == "invalid_json"


def test_with_keys_a_wrong_one_is_refused_and_the_right_one_served(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"sk-right").hexdigest()
    config = tmp_path / "sluice.yaml"
    config.write_text(
        "backends:\n  - name: echo\n    adapter: echo\n    models: [echo]\n"
        f"keys:\n  - id: test\n    sha256: {digest}\n"
    )
    sluice = str(Path(sys.executable).parent / "sluice")
    guarded = start([sluice, "serve", "--config", str(config)], tmp_path)
    try:
        for key in ("sk-wrong", "none"):
            with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0) as client:
                with pytest.raises(openai.AuthenticationError) as raised:
                    client.chat.completions.create(model="echo", messages=ask("Hi"))
                assert raised.value.code == "invalid_api_key"
        with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="sk-right") as client:
            assert client.models.list().data[0].id == "echo"
            answer = client.chat.completions.create(model="echo", messages=ask("Hi"))
            assert "Hi" in (answer.choices[0].message.content or "")
    finally:
        assert interrupt(guarded) == []
    assert "sk-" not in guarded.log.read_text()


def test_the_gateway_is_idle_afterwards(stack: Stack) -> None:
    deadline = time.monotonic() + 10
    while stack.metric("sluice_gateway_requests_in_flight") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert stack.metric("sluice_gateway_requests_in_flight") == 0
