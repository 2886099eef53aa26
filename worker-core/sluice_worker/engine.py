"""The loop: schedule, run, update, report. One call of `step` is one pass of the model over a flat batch.

Single-threaded and blocking: whoever drives it (a process of its own, a test, `generate`) calls `step` while
there is unfinished work. It speaks token ids only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
from torch import Tensor

from sluice_worker.batching import make_batching
from sluice_worker.block_pool import BlockPool
from sluice_worker.config import EngineConfig
from sluice_worker.device import set_threads
from sluice_worker.errors import RequestError, RequestTooLongError
from sluice_worker.kv_allocation import make_allocation
from sluice_worker.kv_cache import KVCache, bytes_per_token
from sluice_worker.loading.loader import LoadedModel, load_model
from sluice_worker.outputs import (
    EngineRequest,
    EngineStats,
    FinishReason,
    ModelInfo,
    SequenceDelta,
    StepOutputs,
    TokenLogprobs,
)
from sluice_worker.pacing import Pacer
from sluice_worker.request import Request
from sluice_worker.runner import Runner
from sluice_worker.sampling.row import SampledToken
from sluice_worker.sampling.sampler import Sampler
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.scheduler import ScheduledTokens, Scheduler


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A finished sequence, as `Engine.generate` returns it."""

    token_ids: list[int]
    """Output only, the stop token included."""
    logprobs: list[TokenLogprobs]
    finish_reason: FinishReason
    num_cached_tokens: int
    prompt_logprobs: list[TokenLogprobs]
    """Of the prompt's tokens from the second on, when asked for."""


class Engine:
    """One model, its KV cache, and the requests in flight."""

    def __init__(self, config: EngineConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """Load the model and allocate the cache. `clock` gives monotonic seconds.

        Raises `ModelLoadError` or `ConfigError`.
        """
        self._clock = clock
        set_threads(config.threads)
        loaded = load_model(config)
        self._loaded = loaded
        self._info = _model_info(config, loaded)
        self._pool = BlockPool(loaded.num_blocks, loaded.block_size)
        largest = config.max_num_batched_tokens
        self._pacer = Pacer(config.decode_stretch, largest=largest) if config.decode_stretch else None
        self._scheduler = _scheduler(config, self._pool, self._pacer, loaded.max_model_len)
        cache = KVCache(
            loaded.config,
            loaded.kernels,
            num_blocks=loaded.num_blocks,
            block_size=loaded.block_size,
            dtype=loaded.cache_dtype,
            device=loaded.device,
        )
        self._runner = Runner(
            loaded.model, cache, Sampler(loaded.config.vocab_size, loaded.kernels), loaded.device
        )
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._generation_tokens = 0
        self._steps = self._sequence_steps = self._reserved_steps = self._held_steps = 0

    def add_request(self, request: EngineRequest) -> None:
        """Queue a request.

        Raises `RequestTooLongError` when the prompt leaves no room for an output token, `RequestError` for an
        empty prompt, unknown token ids, nothing to compute, or an id that is in use.
        """
        self._validate(request)
        self._scheduler.add(Request(request, self._clock()))

    def abort(self, request_id: str) -> bool:
        """Forget a request and free its blocks at once; no delta follows. `False` when it is not known."""
        return self._scheduler.abort(request_id)

    def has_unfinished(self) -> bool:
        """Whether there are requests."""
        return bool(self._scheduler.num_running or self._scheduler.num_waiting)

    def wait_s(self) -> float | None:
        """Seconds until `step` computes something: 0 is now; `None` is not before another request."""
        return self._scheduler.wait_s(self._clock())

    def step(self) -> StepOutputs:
        """Compute one step and report what it added. Without work that is due, an empty report."""
        step = self._scheduler.schedule(self._clock())
        if not step:
            return StepOutputs(deltas=[], stats=self.stats())
        began_s = self._clock()
        result = self._runner.run(step)
        self._pace(step, self._clock() - began_s)
        self._scheduler.advance(step)
        self._count_step(len(step))
        for request, entries in result.scored:
            request.score(entries)
        deltas = [self._update(request, token) for request, token in result.sampled]
        deltas += [
            self._end_with_prompt(request)
            for request, _ in step
            if not request.params.max_tokens and not request.num_uncomputed
        ]
        return StepOutputs(deltas=deltas, stats=self.stats())

    def generate(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Generation]:
        """Generate for all prompts and return when all are done. For offline use, with no other requests."""
        collected: dict[str, list[SequenceDelta]] = {}
        for index, prompt in enumerate(prompts):
            request_id = f"generate-{index}"
            collected[request_id] = []
            self.add_request(
                EngineRequest(request_id=request_id, prompt_token_ids=list(prompt), params=params)
            )
        while (wait_s := self.wait_s()) is not None:
            time.sleep(wait_s)
            for delta in self.step().deltas:
                collected[delta.request_id].append(delta)
        return [_generation(deltas) for deltas in collected.values()]

    def prompt_logits(self, prompt: Sequence[int], first: int = 0) -> Iterator[Tensor]:
        """The model's logits after the tokens of `prompt` from `first` on, but not after the last one.

        Some rows at a time, [rows, vocab]; the prompt is computed as the caller takes them. For offline use,
        with no other requests. Raises what `add_request` raises.
        """
        params = SamplingParams(max_tokens=0, prompt_logprobs=0)
        asked = EngineRequest(request_id="prompt-logits", prompt_token_ids=list(prompt), params=params)
        self._validate(asked)
        request = Request(asked)
        request.num_scored = first
        self._scheduler.add(request)
        try:
            while request.num_uncomputed:
                step = self._scheduler.schedule(self._clock())
                for logits in self._runner.prompt_logits(step):
                    yield logits
                    request.num_scored += len(logits)
                self._scheduler.advance(step)
        finally:
            self._scheduler.abort(request.request_id)

    def stats(self) -> EngineStats:
        """Gauges and counters as of now."""
        return EngineStats(
            num_running=self._scheduler.num_running,
            num_waiting=self._scheduler.num_waiting,
            waiting_uncached_tokens=self._scheduler.waiting_uncached_tokens,
            kv_blocks_total=self._pool.num_blocks,
            kv_blocks_used=self._pool.num_used,
            kv_blocks_cached=self._pool.num_cached,
            kv_tokens_reserved=self._scheduler.tokens_reserved(),
            kv_tokens_held=self._scheduler.tokens_held(),
            prompt_tokens_total=self._prompt_tokens,
            cached_tokens_total=self._cached_tokens,
            generation_tokens_total=self._generation_tokens,
            preemptions_total=self._scheduler.num_preemptions,
            steps_total=self._steps,
            sequence_steps_total=self._sequence_steps,
            kv_reserved_steps_total=self._reserved_steps,
            kv_held_steps_total=self._held_steps,
        )

    def model_info(self) -> ModelInfo:
        """What is loaded, and its limits."""
        return self._info

    def check_integrity(self) -> None:
        """Raise `IntegrityError` when blocks and requests contradict each other. For tests and debugging."""
        self._scheduler.check_integrity()

    def _pace(self, step: list[ScheduledTokens], duration_s: float) -> None:
        if self._pacer is None:
            return
        decodes = sum(entry.num_tokens == 1 for entry in step)
        self._pacer.observe(decodes, sum(entry.num_tokens for entry in step) - decodes, duration_s)

    def _count_step(self, num_sequences: int) -> None:
        self._steps += 1
        self._sequence_steps += num_sequences
        self._reserved_steps += self._scheduler.tokens_reserved()
        self._held_steps += self._scheduler.tokens_held()

    def _validate(self, request: EngineRequest) -> None:
        prompt = request.prompt_token_ids
        vocab_size, limit = self._info.vocab_size, self._info.max_model_len
        if not prompt:
            raise RequestError("The prompt is empty; it needs at least one token.")
        fewest = 1 if request.params.prompt_logprobs is None else 0
        if len(prompt) + min(request.params.max_tokens, 1) > limit:
            raise RequestTooLongError(
                f"The prompt has {len(prompt)} tokens; this model takes {limit} tokens of prompt and output "
                "together. Shorten the prompt."
            )
        if min(prompt) < 0 or max(prompt) >= vocab_size:
            raise RequestError(f"The prompt has token ids outside the vocabulary [0, {vocab_size}).")
        if request.params.max_tokens < fewest:
            raise RequestError(f"max_tokens is {request.params.max_tokens}; it must be {fewest} or more.")
        if request.request_id in self._scheduler:
            raise RequestError(f"A request with the id {request.request_id} is already in flight.")

    def _update(self, request: Request, sampled: SampledToken) -> SequenceDelta:
        """Append a sampled token, and take the request out when that ends it."""
        prompt_logprobs = None if request.output_token_ids else self._end_prompt(request)
        request.append(sampled.token_id)
        self._generation_tokens += 1
        reason = self._finish_reason(request)
        if reason is not None:
            self._scheduler.finish(request)
        return SequenceDelta(
            request_id=request.request_id,
            new_token_ids=[sampled.token_id],
            logprobs=None if sampled.logprobs is None else [sampled.logprobs],
            finish_reason=reason,
            stop_token_id=sampled.token_id if reason == "stop" else None,
            num_cached_tokens=request.num_cached_tokens or 0,
            prompt_logprobs=prompt_logprobs,
        )

    def _end_with_prompt(self, request: Request) -> SequenceDelta:
        """Take out a request that asked for nothing beyond its prompt."""
        self._scheduler.finish(request)
        return SequenceDelta(
            request_id=request.request_id,
            new_token_ids=[],
            finish_reason="length",
            num_cached_tokens=request.num_cached_tokens or 0,
            prompt_logprobs=self._end_prompt(request),
        )

    def _end_prompt(self, request: Request) -> list[TokenLogprobs] | None:
        """Count a prompt that has been computed; its log-probabilities, if they were asked for."""
        self._prompt_tokens += len(request.prompt_token_ids)
        self._cached_tokens += request.num_cached_tokens or 0
        return None if request.params.prompt_logprobs is None else request.prompt_logprobs

    def _finish_reason(self, request: Request) -> FinishReason | None:
        params, output = request.params, request.output_token_ids
        if output[-1] in params.stop_token_ids and len(output) > params.min_tokens:
            return "stop"
        if len(output) >= params.max_tokens or len(request.tokens) >= self._info.max_model_len:
            return "length"
        return None


def _scheduler(config: EngineConfig, pool: BlockPool, pacer: Pacer | None, max_model_len: int) -> Scheduler:
    return Scheduler(
        make_allocation(
            config.kv,
            pool,
            max_model_len=max_model_len,
            enable_prefix_caching=config.enable_prefix_caching,
        ),
        make_batching(
            config.batching,
            max_batch=min(config.max_batch, config.max_num_seqs),
            wait_s=config.batch_wait_ms / 1000,
        ),
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_chunk=config.max_chunk,
        tick_s=config.schedule_tick_ms / 1000,
        pacer=pacer,
    )


def _generation(deltas: list[SequenceDelta]) -> Generation:
    last = deltas[-1]
    return Generation(
        token_ids=[token for delta in deltas for token in delta.new_token_ids],
        logprobs=[entry for delta in deltas for entry in delta.logprobs or ()],
        finish_reason=last.finish_reason or "abort",
        num_cached_tokens=last.num_cached_tokens,
        prompt_logprobs=deltas[0].prompt_logprobs or [],
    )


def _model_info(config: EngineConfig, loaded: LoadedModel) -> ModelInfo:
    return ModelInfo(
        model=loaded.folder.name,
        architecture=loaded.config.architecture,
        vocab_size=loaded.config.vocab_size,
        eos_token_ids=list(loaded.config.eos_token_ids),
        max_model_len=loaded.max_model_len,
        device=loaded.device.type,
        dtype=str(loaded.dtype).removeprefix("torch."),
        quantization=loaded.quantization,
        weight_bytes=loaded.weight_bytes,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        block_size=loaded.block_size,
        num_kv_blocks=loaded.num_blocks,
        kv_bytes_per_token=bytes_per_token(loaded.config, loaded.cache_dtype),
        num_parameters=loaded.num_parameters,
        kernels=loaded.kernels.name,
        batching=config.batching,
        kv=config.kv,
    )
