"""One conversation of the OpenAI SDK that goes from engine to engine by a header."""

from __future__ import annotations

from typing import Any

import openai

from .fleet import ALIAS, Fleet

TURNS = (
    "Hello!",
    "What is the capital of France?",
    "What is 2 + 3?",
    "Tell me a story.",
    "Thank you! What is the capital of Italy?",
)


def streamed(client: openai.OpenAI, engine: str, messages: list[Any], **more: Any) -> tuple[str, Any]:
    """Who served, and the stream of chunks."""
    raw = client.chat.completions.with_raw_response.create(
        model=ALIAS,
        messages=messages,
        stream=True,
        temperature=0,
        max_tokens=60,
        stream_options={"include_usage": True},
        extra_headers={"X-Backend": engine},
        **more,
    )
    return raw.headers["x-sluice-backend"], raw.parse()


def test_each_turn_is_served_by_the_engine_that_the_header_names(fleet: Fleet, client: openai.OpenAI) -> None:
    names = list(fleet.engines)
    messages: list[Any] = []
    told, prompts = [], []
    for number, text in enumerate(TURNS):
        engine = names[number % len(names)]
        messages.append({"role": "user", "content": text})
        served_by, stream = streamed(client, engine, messages)
        chunks = list(stream)
        answer = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        messages.append({"role": "assistant", "content": answer})
        told.append(answer)
        prompts.append(chunks[-1].usage.prompt_tokens)

        assert served_by == engine
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("stop", "length")
        assert chunks[-1].choices == []

    assert all(told)
    assert "Paris" in told[1]
    assert prompts == sorted(prompts), "each engine got the whole conversation so far"


def test_streams_of_all_engines_are_read_by_turns(fleet: Fleet, client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Tell me a story."}]
    streams = {name: iter(streamed(client, name, messages)[1]) for name in fleet.engines}
    texts = dict.fromkeys(streams, "")
    while streams:
        for name, stream in list(streams.items()):
            chunk = next(stream, None)
            if chunk is None:
                del streams[name]
            elif chunk.choices:
                texts[name] += chunk.choices[0].delta.content or ""

    assert all(len(text.split()) > 5 for text in texts.values())
