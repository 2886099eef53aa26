"""The same weights give the same tokens: vLLM and our worker, both in fp32."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from . import installed
from .fleet import ALIAS, Fleet
from .streams import on

PROMPTS = (
    "Once upon a time",
    "The capital of France is",
    "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
    "Rain fell on the old harbour, and",
    "A list of colours: red, green,",
)
TOKENS = 96


def greedy(fleet: Fleet, engine: str, prompt: str) -> list[str]:
    sent: dict[str, Any] = {"model": ALIAS, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    sent |= {"logprobs": 1, "ignore_eos": True}
    answer = httpx.post(f"{fleet.url}/v1/completions", json=sent, headers=on(engine), timeout=300)
    assert answer.status_code == 200, answer.text
    tokens: list[str] = answer.json()["choices"][0]["logprobs"]["tokens"]
    return tokens


@pytest.mark.real_engines("vllm")
@pytest.mark.parametrize("prompt", PROMPTS)
def test_vllm_and_the_worker_choose_the_same_tokens(fleet: Fleet, prompt: str) -> None:
    if {fleet.engines[name].model for name in ("vllm", "worker")} != {installed.MODEL}:
        pytest.skip("they serve different models")
    ours = greedy(fleet, "worker", prompt)

    assert len(ours) == TOKENS
    assert greedy(fleet, "vllm", prompt) == ours
