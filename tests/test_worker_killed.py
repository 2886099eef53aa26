"""`kill -9` of the worker in the middle of a stream: an honest end, an honest `/ready`, and a recovery."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
from running_stack import Stack

BODY = {
    "model": "sluice-tiny",
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "stream": True,
    "ignore_eos": True,
    "max_tokens": 900,
}


def ready(stack: Stack) -> bool:
    return httpx.get(f"{stack.url}/ready", timeout=5).status_code == 200


def wait_for(condition: bool, stack: Stack, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if ready(stack) is condition:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("victim", ["engine", "server", "warden"])
def test_streams_end_with_an_error_and_the_worker_comes_back(stack: Stack, victim: str) -> None:
    events = []
    with httpx.stream("POST", f"{stack.url}/v1/chat/completions", json=BODY, timeout=60) as stream:
        assert stream.status_code == 200
        for line in stream.iter_lines():
            if not line.startswith("data: "):
                continue
            events.append(line.removeprefix("data: "))
            if len(events) == 5:
                stack.worker_process(victim).kill()
    assert "[DONE]" not in events
    assert set(json.loads(events[-1])["error"]) == {"message", "type", "param", "code"}

    assert wait_for(False, stack, within_s=10), "/ready never turned 503"
    assert wait_for(True, stack, within_s=60), f"the worker did not come back:\n{Path(stack.log).read_text()}"
    answer = httpx.post(
        f"{stack.url}/v1/chat/completions", json={**BODY, "stream": False, "max_tokens": 8}, timeout=60
    )
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 8
