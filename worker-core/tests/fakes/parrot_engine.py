"""An engine without a model: it repeats its prompt, one token a step."""

from __future__ import annotations

import os
import signal
import time

from sluice_worker.config import EngineConfig
from sluice_worker.errors import ModelNotFoundError, RequestTooLongError
from sluice_worker.outputs import (
    EngineRequest,
    EngineStats,
    ModelInfo,
    SequenceDelta,
    StepOutputs,
    TokenLogprobs,
)

MAX_MODEL_LEN = 256
EOS = 0


class ParrotEngine:
    """Repeats the prompt until `max_tokens`, a stop token, or the context ends.

    The name of the model chooses a fate: `missing` and `broken` do not load, `slow` takes 20 ms a step,
    `fragile` dies at the second step, `killed` is killed at the second step, `loading` never ends to load.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._fate = config.model.rsplit("/", 1)[-1]
        if self._fate == "missing":
            raise ModelNotFoundError("There is no model called missing.")
        if self._fate == "loading":
            time.sleep(600)
        if self._fate == "broken":
            raise ZeroDivisionError("a bug")
        self._running: dict[str, tuple[EngineRequest, int]] = {}
        self._steps = self._prompt_tokens = self._generated = 0

    def add_request(self, request: EngineRequest) -> None:
        if len(request.prompt_token_ids) >= MAX_MODEL_LEN:
            raise RequestTooLongError(f"This model's maximum context length is {MAX_MODEL_LEN} tokens.")
        self._prompt_tokens += len(request.prompt_token_ids)
        self._running[request.request_id] = (request, 0)

    def abort(self, request_id: str) -> None:
        self._running.pop(request_id, None)

    def wait_s(self) -> float | None:
        return 0.0 if self._running else None

    def step(self) -> StepOutputs:
        self._steps += 1
        if self._fate == "slow":
            time.sleep(0.02)
        if self._fate == "fragile" and self._steps == 2:
            raise RuntimeError("the kernel melted")
        if self._fate == "killed" and self._steps == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        deltas = [self._advance(request, count) for request, count in list(self._running.values())]
        return StepOutputs(deltas=deltas, stats=self.stats())

    def _advance(self, request: EngineRequest, count: int) -> SequenceDelta:
        prompt, params = request.prompt_token_ids, request.params
        prompt_logprobs = None
        if params.prompt_logprobs is not None and count == 0:
            prompt_logprobs = [_logprobs(-0.25, token, params.prompt_logprobs) for token in prompt[1:]]
        if params.max_tokens == 0:
            del self._running[request.request_id]
            return SequenceDelta(
                request_id=request.request_id,
                new_token_ids=[],
                finish_reason="length",
                prompt_logprobs=prompt_logprobs,
            )
        token = prompt[count % len(prompt)]
        count += 1
        self._generated += 1
        self._running[request.request_id] = (request, count)
        stopped = token in params.stop_token_ids and count > params.min_tokens
        full = count >= params.max_tokens or len(prompt) + count >= MAX_MODEL_LEN
        if stopped or full:
            del self._running[request.request_id]
        logprobs = None
        if params.logprobs is not None:
            logprobs = [_logprobs(-0.5, token, params.logprobs)]
        return SequenceDelta(
            request_id=request.request_id,
            new_token_ids=[token],
            logprobs=logprobs,
            finish_reason="stop" if stopped else "length" if full else None,
            stop_token_id=token if stopped else None,
            num_cached_tokens=1,
            prompt_logprobs=prompt_logprobs,
        )

    def stats(self) -> EngineStats:
        lengths = [len(request.prompt_token_ids) + count for request, count in self._running.values()]
        return EngineStats(
            num_running=len(lengths),
            kv_blocks_total=64,
            kv_blocks_used=sum(-(-length // 16) for length in lengths),
            prompt_tokens_total=self._prompt_tokens,
            generation_tokens_total=self._generated,
            steps_total=self._steps,
        )

    def model_info(self) -> ModelInfo:
        return ModelInfo(
            model="parrot",
            architecture="Parrot",
            vocab_size=512,
            eos_token_ids=[EOS],
            max_model_len=MAX_MODEL_LEN,
            device="cpu",
            dtype="float32",
            quantization="none",
            weight_bytes=0,
            max_num_seqs=64,
            max_num_batched_tokens=1024,
            block_size=16,
            num_kv_blocks=64,
            kv_bytes_per_token=1,
            num_parameters=0,
            kernels="reference",
        )


def _logprobs(logprob: float, token: int, alternatives: int) -> TokenLogprobs:
    top = [token, token + 1][:alternatives]
    return TokenLogprobs(logprob, top, [logprob, logprob - 1][: len(top)])
