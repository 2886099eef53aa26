"""Two workers with the bundled model, one of them quantized: `X-Quant` chooses between them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from running_stack import Stack, interrupt, serve

CONFIG = """\
backends:
  - {name: plain, adapter: worker, managed: {args: [--kv-memory, 8MiB]}}
  - {name: small, adapter: worker, managed: {args: [--quantization, int8, --kv-memory, 8MiB]}}
"""


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Nothing in the configuration says which worker is quantized: they say it themselves."""
    running = serve(CONFIG, tmp_path_factory.mktemp("variants"), engines=2)
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
