"""Requests to a worker that runs the parrot, and waiting for what follows from them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from parrot import Worker

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def chat_body(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "parrot", "messages": [{"role": "user", "content": text}], "max_tokens": 5, **fields}


def completion_body(prompt: Any = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "parrot", "prompt": prompt, "max_tokens": 5, **fields}


def events(text: str) -> list[Any]:
    """The decoded events of a stream, which must be framed exactly and end with one `[DONE]`."""
    frames = text.split("\n\n")
    assert frames.pop() == ""
    assert frames.pop() == "data: [DONE]"
    assert all(frame.startswith("data: {") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within ten seconds")


def is_idle(worker: Worker) -> bool:
    names = ("requests_running", "requests_waiting", "kv_blocks_used", "http_requests_in_flight")
    return all(worker.metric(name) == 0 for name in names)
