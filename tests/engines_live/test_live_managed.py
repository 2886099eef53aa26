"""vLLM managed by its adapter's own command, `vllm serve`: the configuration says only the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from running_stack import SLUICE, Stack, interrupt, start

from . import installed
from .fleet import READY_WITHIN_S, eventually
from .streams import HEADERS

pytestmark = pytest.mark.starts_engines("vllm")
CONFIG: dict[str, Any] = {
    "backends": [
        {"name": "echo", "adapter": "echo", "models": ["echo"]},
        {
            "name": "vllm",
            "adapter": "vllm",
            "options": {"load_report": True},
            "managed": {"args": [str(installed.MODEL_FOLDER), "--max-model-len", "512", "--enforce-eager"]},
        },
    ],
    "health": {"load_interval_s": 3600},
}
"""After the first look no page is read again: what is known later, answers have told."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """The gateway, ready with its echo engine long before vLLM is."""
    config = CONFIG | {
        "store": {"url": f"sqlite:///{tmp_path}/sluice.db"},
        "ledger": {"journal_folder": str(tmp_path / "ledger")},
    }
    (tmp_path / "sluice.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [SLUICE, "serve", "--config", str(tmp_path / "sluice.yaml")]
    running = start(command, tmp_path, **installed.vllm_environment(tmp_path))
    try:
        yield running
    finally:
        left = interrupt(running)
    eventually(lambda: not any(process.is_running() for process in left))


def replica(stack: Stack) -> dict[str, Any]:
    listed = httpx.get(f"{stack.url}/admin/v1/engines", timeout=10).json()["data"]
    found: dict[str, Any] = next(b for b in listed if b["backend"] == "vllm")["replicas"][0]
    return found


def ask(stack: Stack, **more: Any) -> httpx.Response:
    model = str(installed.MODEL_FOLDER)
    sent = {"model": model, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8, **more}
    url, headers = f"{stack.url}/v1/chat/completions", HEADERS | {"x-backend": "vllm"}
    return httpx.post(url, json=sent, headers=headers, timeout=120)


def test_vllm_serve_is_started_asked_and_ended(stack: Stack) -> None:
    eventually(
        lambda: replica(stack)["state"] == "ready",
        READY_WITHIN_S,
        lambda: stack.log.read_text(errors="replace")[-4000:],
    )
    port = replica(stack)["url"].rsplit(":", 1)[1]
    family = psutil.Process(stack.process.pid).children(recursive=True)
    commands = [words for child in family if "serve" in (words := child.cmdline())]
    assert any(["serve", "--host", "127.0.0.1", "--port", port] == words[2:7] for words in commands), commands

    eventually(lambda: (replica(stack)["load_age_s"] or 0) > 2)
    answer = ask(stack)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 0
    eventually(lambda: replica(stack)["load_age_s"] < 2)
    told = replica(stack)["load"]

    assert told["kv_used_ratio"] is not None
    assert told["kv_capacity_tokens"], "what the page said first is still known"
    assert ask(stack, stream=True).status_code == 200
    assert os.fspath(installed.MODEL_FOLDER) in replica(stack)["models"]
