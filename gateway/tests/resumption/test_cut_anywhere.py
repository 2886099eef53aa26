"""A stream that is cut at any byte is the stream that was not cut."""

from __future__ import annotations

from typing import Any

import pytest

from ..conftest import StartEngine
from ..serving import Served, chat, serving, settings_of
from .continuing_engine import PROMPT, TEXT, Heart, Told

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 50}
BODIES: dict[str, dict[str, Any]] = {
    "chat": chat(text=PROMPT, **WITH_USAGE),
    "completions": {"model": "m", "prompt": PROMPT, **WITH_USAGE},
}
UNLIMITED = {"retry_budget": 1.0, "breaker_failures": 100_000}


def replicas(*urls: str, adapter: str = "sglang", **more: Any) -> list[dict[str, Any]]:
    return [{"name": "main", "adapter": adapter, "url": urls, "models": ["m"], **more}]


async def answer(served: Served, kind: str) -> Told:
    response = await served.http.post(PATHS[kind], json=BODIES[kind])
    assert response.status_code == 200
    return Told(response.content)


@pytest.mark.parametrize("kind", PATHS)
async def test_every_cut_gives_the_uncut_stream(start_engine: StartEngine, kind: str) -> None:
    heart = Heart()
    engines = [await start_engine(heart) for _ in range(2)]
    events = list(heart.events(BODIES[kind]))
    finished = sum(map(len, events[:-2]))  # a finish reason is there; usage and `[DONE]` are not
    async with serving(
        settings_of(backends=replicas(*(e.url for e in engines)), failover=UNLIMITED)
    ) as served:
        uncut = await answer(served, kind)
        resumed = 0
        for cut in range(0, finished, 1 if kind == "chat" else 5):
            heart.cuts = [cut]
            heart.asked.clear()
            told = await answer(served, kind)
            assert vars(told) == vars(uncut), cut
            assert len(heart.asked) == 2
            resumed += heart.asked[1] != heart.asked[0]
        await served.until_idle()
        completed = served.metric("resumptions_total", result="completed")
    assert (uncut.text, uncut.reasons, uncut.done, uncut.errors) == (TEXT, ["stop"], 1, [])
    assert uncut.roles == (["assistant"] if kind == "chat" else [])
    assert len(uncut.usages) == 1
    assert finished > completed >= resumed > finished // 8


async def test_streams_are_cut_again_and_again(start_engine: StartEngine) -> None:
    heart = Heart()
    engines = [await start_engine(heart) for _ in range(4)]
    events = list(heart.events(BODIES["chat"]))
    two_words = sum(map(len, events[:3])) + 1
    settings = settings_of(
        backends=replicas(*(e.url for e in engines)), failover={**UNLIMITED, "max_attempts": 4}
    )
    async with serving(settings) as served:
        uncut = await answer(served, "chat")
        heart.cuts = [two_words, 0, two_words]
        told = await answer(served, "chat")
    assert vars(told) == vars(uncut)
    assert [len(asked["messages"]) for asked in heart.asked[1:]] == [1, 2, 2, 2]
    assert [asked["max_tokens"] for asked in heart.asked[1:]] == [50, 48, 48, 46]
