"""The official `openai` SDK against `sluice-worker serve` with the model that ships with it."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Iterator

import openai
import pytest
import torch
from openai.types.chat import ChatCompletionMessageParam
from parrot import Worker, running
from training.evaluate import Subject

from sluice_worker.loading.model_folder import resolve_model

MODEL = "sluice-tiny"
STORY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me a story about a fox."}]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    command = [sys.executable, "-m", "sluice_worker", "serve", "--port", "0", "--dtype", "float32"]
    with running([*command, "--kv-memory", "64MiB"]) as worker:
        yield worker


@pytest.fixture
def client(worker: Worker) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{worker.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_the_model_is_listed_and_can_be_retrieved(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"


def test_a_chat_ends_its_turn_by_itself(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello!"}])

    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content
    assert "<|" not in answer.choices[0].message.content
    assert answer.usage is not None and answer.usage.total_tokens > answer.usage.prompt_tokens > 0


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=STORY, max_tokens=60, temperature=0)
    text, reasons, usage = "", [], None
    stream = client.chat.completions.create(
        model=MODEL,
        messages=STORY,
        max_tokens=60,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons.append(choice.finish_reason)

    assert text == whole.choices[0].message.content
    assert [reason for reason in reasons if reason] == [whole.choices[0].finish_reason]
    assert usage is not None and whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens_details is not None  # the second time, the prompt may come from the cache


async def test_many_asynchronous_streams_at_once(worker: Worker) -> None:
    async with openai.AsyncOpenAI(base_url=f"{worker.url}/v1", api_key="none", timeout=120) as client:

        async def answer(number: int) -> str:
            stream = await client.chat.completions.create(
                model=MODEL, messages=STORY, max_tokens=20, seed=number % 2, temperature=1, stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream])

        answers = await asyncio.gather(*(answer(number) for number in range(16)))

    assert len(set(answers[::2])) == 1
    assert len(set(answers[1::2])) == 1


def test_the_same_seed_gives_the_same_text_and_choices_differ(client: openai.OpenAI) -> None:
    def texts(seed: int) -> list[str | None]:
        answer = client.chat.completions.create(
            model=MODEL, messages=STORY, max_tokens=40, seed=seed, n=3, temperature=1.5
        )
        return [choice.message.content for choice in answer.choices]

    first = texts(7)
    assert texts(7) == first
    assert texts(8) != first
    assert len(set(first)) == 3


def test_a_stop_string_never_shows(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=STORY, max_tokens=60, temperature=0)
    text = whole.choices[0].message.content or ""
    stop = text[10:13]

    stopped = client.chat.completions.create(
        model=MODEL, messages=STORY, max_tokens=60, temperature=0, stop=[stop]
    )

    assert stopped.choices[0].message.content == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"


def test_logprobs_of_a_greedy_answer_put_the_chosen_token_first(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=STORY, max_tokens=12, temperature=0, logprobs=True, top_logprobs=5
    )

    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content or []
    assert len(content) == 12
    assert "".join(entry.token for entry in content) == answer.choices[0].message.content
    for entry in content:
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == entry.logprob
        assert len(entry.top_logprobs) == 5
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1 + 1e-5


def test_a_legacy_completion_goes_on_where_the_prompt_ends(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="The capital of", max_tokens=6, temperature=0, echo=True
    )

    assert answer.choices[0].text.startswith("The capital of ")
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_logprobs_of_an_echoed_prompt_are_the_models(client: openai.OpenAI) -> None:
    prompt = "Once upon a time there was a fox. " * 20
    subject = Subject(resolve_model(MODEL).path)
    ids = subject.tokenizer(prompt)["input_ids"]
    expected = subject.model(torch.tensor([ids])).logits[0].log_softmax(-1)

    answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=0, echo=True, logprobs=3)

    found = answer.choices[0].logprobs
    assert answer.choices[0].text == prompt
    assert found is not None and found.tokens and found.token_logprobs and found.text_offset
    assert "".join(found.tokens) == prompt
    for token, offset in zip(found.tokens, found.text_offset, strict=True):
        assert prompt.startswith(token, offset)
    assert found.token_logprobs[0] is None
    right = [expected[row, token].item() for row, token in enumerate(ids[1:])]
    assert found.token_logprobs[1:] == pytest.approx(right, abs=1e-4)


def test_a_repeated_prompt_comes_from_the_cache(client: openai.OpenAI, worker: Worker) -> None:
    prompt = "Once upon a time there was a fox who lived in the wood. " * 12
    before = worker.metric("prefix_cache_hit_tokens_total")

    def cached() -> int:
        answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=2)
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    assert cached() == 0
    found = cached()
    assert found >= 32
    assert worker.metric("prefix_cache_hit_tokens_total") - before == found


def test_mistakes_raise_the_sdks_right_exception(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-9", messages=STORY)
    assert unknown.value.code == "model_not_found"

    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 5000}])
    assert too_long.value.code == "context_length_exceeded"
    assert "maximum context length" in too_long.value.message

    with pytest.raises(openai.BadRequestError) as out_of_range:
        client.chat.completions.create(model=MODEL, messages=STORY, temperature=9)
    assert out_of_range.value.param == "temperature"


def test_a_stream_that_is_closed_early_frees_the_engine(client: openai.OpenAI, worker: Worker) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=STORY, max_tokens=900, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()

    for _ in range(1000):
        if worker.metric("requests_running") == worker.metric("kv_blocks_used") == 0:
            return
    raise AssertionError("the engine still runs the request")
