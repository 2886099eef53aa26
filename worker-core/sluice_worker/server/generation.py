"""Runs the choices of one request in the engine and releases their text as it becomes certain.

A `Plan` is what an endpoint makes of a valid request: prompts, settings, and how many answers each prompt
gets. `Generation` runs it: choice `i` of prompt `p` has the index `p * n + i`, and its own seed.
"""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from sluice_worker.outputs import EngineRequest, SequenceDelta, TokenLogprobs
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.server.choice import Choice, OutputToken, Piece
from sluice_worker.server.detokenizer import Detokenizer
from sluice_worker.server.metrics import TokenMeter
from sluice_worker.server.prompts import Prompt
from sluice_worker.server.requests import GenerationRequest
from sluice_worker.server.responses import PromptTokensDetails, Usage
from sluice_worker.server.sampling_options import choice_seed, output_budget, sampling_params
from sluice_worker.server.service import Service
from sluice_worker.server.validation import stop_strings


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to generate."""

    prompts: list[Prompt]
    params: list[SamplingParams]
    """Of each prompt's first choice; the others differ in their seed."""
    n: int
    stops: tuple[str, ...]
    skip_special_tokens: bool
    strip_first_space: bool
    """Whether the answer stands by itself (chat) or goes on where the prompt ends (completions)."""
    cache_salt: str
    alone: bool = False
    """Whether the engine is to run each choice without companions."""


class Finished(NamedTuple):
    """A choice that has ended, whole."""

    text: str
    tokens: list[OutputToken]
    finish_reason: str
    stop_string: str | None = None
    """The one that ended it, if one did."""
    prompt_logprobs: list[TokenLogprobs] | None = None
    """Of the prompt's tokens from the second on, when asked for."""


def make_plan(
    service: Service,
    request: GenerationRequest,
    prompts: list[Prompt],
    *,
    max_tokens: int | None,
    logprobs: int | None,
    param: str,
    strip_first_space: bool,
    prompt_logprobs: int | None = None,
) -> Plan:
    """Apply the model's limits to every prompt. Raises `ApiError` 400; `param` is what holds the prompt."""
    model = service.loaded_model()
    seed = service.random_bits(63) if request.seed is None else request.seed
    params = []
    for index, prompt in enumerate(prompts):
        budget = output_budget(max_tokens, len(prompt.token_ids), model, param)
        settings = sampling_params(
            request,
            service.model.defaults,
            model,
            max_tokens=budget,
            seed=choice_seed(seed, index * (request.n or 1)),
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
        )
        params.append(settings)
    return Plan(
        prompts=prompts,
        params=params,
        n=request.n or 1,
        stops=stop_strings(request),
        skip_special_tokens=request.skip_special_tokens is not False,
        strip_first_space=strip_first_space,
        cache_salt=request.cache_salt or "",
    )


class Generation:
    """A plan being carried out: an asynchronous iterator of choices and their new pieces.

    Use inside `async with`; leaving it aborts what has not finished. Waiting for the next piece may be
    cancelled and taken up again. Raises what `GenerationStream` raises.
    """

    def __init__(self, service: Service, plan: Plan, meter: TokenMeter) -> None:
        self._plan = plan
        self._meter = meter
        requests, self._choices = _sequences(service, plan)
        self._stream = service.engine.generate(*requests)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Choice, Piece]:
        delta = await anext(self._stream)
        return self._accept(delta)

    async def collect(self) -> list[Finished]:
        """All choices, whole, in order."""
        texts: list[list[str]] = [[] for _ in self._choices]
        tokens: list[list[OutputToken]] = [[] for _ in self._choices]
        async for choice, piece in self:
            texts[choice.index].append(piece.text)
            tokens[choice.index] += piece.tokens
        return [
            Finished(
                "".join(texts[choice.index]),
                tokens[choice.index],
                choice.finish_reason or "length",
                choice.stop_string,
                choice.prompt_logprobs,
            )
            for choice in self._choices.values()
        ]

    def usage(self) -> Usage:
        """Tokens so far: every prompt once, the tokens of all choices."""
        choices = list(self._choices.values())
        prompt_tokens = sum(len(prompt.token_ids) for prompt in self._plan.prompts)
        completion_tokens = sum(choice.completion_tokens for choice in choices)
        # The choices of one prompt share its blocks; what the first found in the cache was there before.
        cached_tokens = sum(choice.cached_tokens for choice in choices[:: self._plan.n])
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens),
        )

    def _accept(self, delta: SequenceDelta) -> tuple[Choice, Piece]:
        self._meter.observe(delta)
        choice = self._choices[delta.request_id]
        piece = choice.accept(delta)
        if piece.finish_reason and not delta.finish_reason:
            self._stream.drop(delta.request_id)  # a stop string, of which the engine knows nothing
        return choice, piece


def _sequences(service: Service, plan: Plan) -> tuple[list[EngineRequest], dict[str, Choice]]:
    requests, choices = [], {}
    base_id = service.new_id("seq")
    for number, prompt in enumerate(plan.prompts):
        for i in range(plan.n):
            index = number * plan.n + i
            params = plan.params[number]
            request = EngineRequest(
                request_id=f"{base_id}-{index}",
                prompt_token_ids=prompt.token_ids,
                params=msgspec.structs.replace(params, seed=choice_seed(params.seed, i)),
                cache_salt=plan.cache_salt,
                alone=plan.alone,
            )
            detokenizer = Detokenizer(
                service.model.tokenizer,
                skip_special_tokens=plan.skip_special_tokens,
                strip_first_space=plan.strip_first_space,
            )
            requests.append(request)
            choices[request.request_id] = Choice(index, detokenizer, plan.stops, params.min_tokens)
    return requests, choices
