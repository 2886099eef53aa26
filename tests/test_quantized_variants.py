"""Two workers with the bundled model, one of them quantized: `X-Quant` chooses between them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running_stack import Stack, interrupt, start

CONFIG = """\
backends:
  - {name: plain, adapter: worker, managed: {args: [--kv-memory, 8MiB]}}
  - {name: small, adapter: worker, managed: {args: [--quantization, int8, --kv-memory, 8MiB]}}
"""
ALL_READY_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Nothing in the configuration says which worker is quantized: they say it themselves."""
    folder = tmp_path_factory.mktemp("variants")
    (folder / "sluice.yaml").write_text(CONFIG)
    sluice = str(Path(sys.executable).parent / "sluice")
    running = start([sluice, "serve", "--config", str(folder / "sluice.yaml")], folder)
    deadline = time.monotonic() + ALL_READY_WITHIN_S
    while running.metric("sluice_gateway_endpoint_healthy") < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    yield running
    assert interrupt(running) == []


def ask(stack: Stack, quant: str) -> httpx.Response:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"model": "sluice-tiny", "messages": messages, "temperature": 0}
    return httpx.post(f"{stack.url}/v1/chat/completions", json=body, headers={"X-Quant": quant}, timeout=60)


@pytest.mark.parametrize(("quant", "backend"), [("none", "plain"), ("int8", "small")])
def test_the_header_chooses_the_variant(variants: Stack, quant: str, backend: str) -> None:
    for _ in range(3):
        answer = ask(variants, quant)
        assert answer.status_code == 200, variants.log.read_text()
        assert answer.headers["x-sluice-backend"] == backend
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]


def test_a_variant_that_is_not_up_is_refused_with_those_that_are(variants: Stack) -> None:
    error = ask(variants, "int4").json()["error"]
    assert error["code"] == "unknown_quant"
    assert "none, int8" in error["message"]
