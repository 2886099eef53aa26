"""The common baseline engine: transformers' `generate` on the same checkpoint, one static batch at a time.

Reads one JSON line per task from standard input and answers each with one line, so that its measurements
alternate with another engine's while both stay loaded.

    python -m sluice_bench.peers.hf_generate MODEL_FOLDER
    {"streams": 1, "prompt_tokens": 128, "output_tokens": 64, "low": 300, "high": 3000, "seed": 1}
    {"first_token_s": 0.9, "seconds": 12.3, "output_tokens": 64}
"""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One static batch."""

    streams: int
    prompt_tokens: int
    output_tokens: int
    low: int
    """Prompt ids are drawn from `[low, high)`."""
    high: int
    seed: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What it took."""

    first_token_s: float
    """Of the same batch with one output token: prefill."""
    seconds: float
    output_tokens: int
    """Over all streams."""


def generate(model: Any, task: Task) -> Result:
    """Run a task greedily, first for one token, then whole; end tokens do not end it."""
    import torch

    source = torch.Generator().manual_seed(task.seed)
    size = (task.streams, task.prompt_tokens)
    prompts = torch.randint(task.low, task.high, size, generator=source)
    first_token_s, _ = _timed(model, prompts, 1)
    seconds, tokens = _timed(model, prompts, task.output_tokens)
    return Result(first_token_s=first_token_s, seconds=seconds, output_tokens=tokens)


def _timed(model: Any, prompts: Any, new_tokens: int) -> tuple[float, int]:
    """Seconds, and tokens over the whole batch."""
    import torch

    start = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
    return time.perf_counter() - start, output.numel() - prompts.numel()


def main(folder: str) -> None:
    """Load the model, say so with an empty line, then serve tasks until the input ends."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model.eval()
    _say(b"")
    for line in sys.stdin.buffer:
        _say(msgspec.json.encode(generate(model, msgspec.json.decode(line, type=Task))))


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
