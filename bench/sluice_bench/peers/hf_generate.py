"""The common baseline engine: transformers on the same checkpoint, one static batch at a time or its own
continuous batching.

Reads one JSON line per task from standard input and answers each with one line, so that its measurements
alternate with another engine's while both stay loaded.

    python -m sluice_bench.peers.hf_generate MODEL_FOLDER
    {"prompts": [[301, 302, 303]], "output_tokens": 64, "batching": "static", "time_first": true}
    {"first_token_s": 0.9, "seconds": 12.3, "output_tokens": 64}
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Any, Literal

import msgspec

Batching = Literal["static", "continuous"]

_PAGE_TOKENS = 256
"""Of the KV cache of continuous batching."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of prompts of equal length."""

    prompts: list[list[int]]
    output_tokens: int
    batching: Batching = "static"
    time_first: bool = False
    """Also run the batch for one token: its prefill. Static batches only."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What it took."""

    first_token_s: float | None
    """Of the same batch with one output token."""
    seconds: float
    output_tokens: int
    """Over all streams."""


def generate(model: Any, task: Task) -> Result:
    """Run a task greedily, first for one token when asked, then whole; end tokens do not end it."""
    if task.batching == "continuous":
        seconds, tokens = _timed_continuous(model, task)
        return Result(first_token_s=None, seconds=seconds, output_tokens=tokens)
    first_token_s = _timed(model, task.prompts, 1)[0] if task.time_first else None
    seconds, tokens = _timed(model, task.prompts, task.output_tokens)
    return Result(first_token_s=first_token_s, seconds=seconds, output_tokens=tokens)


def _timed(model: Any, prompts: list[list[int]], new_tokens: int) -> tuple[float, int]:
    """Seconds, and tokens over the whole batch."""
    import torch

    ids = torch.tensor(prompts)
    start = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
    return time.perf_counter() - start, output.numel() - ids.numel()


def _timed_continuous(model: Any, task: Task) -> tuple[float, int]:
    """Seconds, and tokens over all requests. Room for the KV cache is no more than the task needs, because
    it would otherwise be most of the machine's memory."""
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    length = max(len(prompt) for prompt in task.prompts) + task.output_tokens
    pages = len(task.prompts) * -(-length // _PAGE_TOKENS) + 1
    start = time.perf_counter()
    settings: Any = GenerationConfig  # its constructor is untyped
    outputs = model.generate_batch(
        task.prompts,
        generation_config=settings(
            do_sample=False, max_new_tokens=task.output_tokens, eos_token_id=-1, pad_token_id=0
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            num_blocks=pages, max_batch_tokens=1024, allow_block_sharing=False
        ),
    )
    return time.perf_counter() - start, sum(len(output.generated_tokens) for output in outputs.values())


def main(folder: str) -> None:
    """Load the model, say so with an empty line, then serve tasks until the input ends."""
    gc.disable()  # modules are full of objects that stay: looking for cycles among them takes long
    from transformers import AutoModelForCausalLM

    gc.enable()
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
