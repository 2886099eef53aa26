"""From a request's settings to the engine's: defaults filled in, limits of this model applied.

Each choice samples with a seed of its own, derived from the request's, so that the same request with the same
seed repeats all its choices and no two of them are alike.
"""

from __future__ import annotations

from typing import TypeVar

from sluice_worker.outputs import ModelInfo
from sluice_worker.sampling_params import SamplingParams
from sluice_worker.server.errors import context_too_long, invalid
from sluice_worker.server.generation_defaults import GenerationDefaults
from sluice_worker.server.requests import GenerationRequest

NumberT = TypeVar("NumberT", int, float)

_SEED_BITS = 64
_SEED_STRIDE = 0x9E3779B97F4A7C15


def output_budget(asked: int | None, prompt_tokens: int, model: ModelInfo, param: str) -> int:
    """Tokens that may be generated: what was asked, and no more than the context holds.

    `None` asks for the rest of the context. Raises `ApiError` 400 when the prompt leaves no room for a token,
    or is itself too long where none is asked for.
    """
    room = model.max_model_len - prompt_tokens
    if room < (0 if asked == 0 else 1):
        raise context_too_long(model.max_model_len, prompt_tokens, param)
    return room if asked is None else min(asked, room)


def sampling_params(
    request: GenerationRequest,
    defaults: GenerationDefaults,
    model: ModelInfo,
    *,
    max_tokens: int,
    seed: int,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    """The engine's settings for one choice. Raises `ApiError` 400 for token ids outside the vocabulary."""
    return SamplingParams(
        temperature=_or_default(request.temperature, defaults.temperature),
        top_k=max(0, _or_default(request.top_k, defaults.top_k)),
        top_p=_or_default(request.top_p, defaults.top_p),
        min_p=_or_default(request.min_p, defaults.min_p),
        seed=seed,
        repetition_penalty=_or_default(request.repetition_penalty, defaults.repetition_penalty),
        presence_penalty=_or_default(request.presence_penalty, 0.0),
        frequency_penalty=_or_default(request.frequency_penalty, 0.0),
        logit_bias=_logit_bias(request.logit_bias or {}, model.vocab_size),
        max_tokens=max_tokens,
        min_tokens=min(request.min_tokens or 0, max_tokens),
        stop_token_ids=_stop_token_ids(request, model),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def choice_seed(seed: int, choice: int) -> int:
    """The seed of one choice; the first choice's is the request's own."""
    return (seed + choice * _SEED_STRIDE) % (1 << _SEED_BITS)


def _or_default(value: NumberT | None, default: NumberT) -> NumberT:
    return default if value is None else value


def _stop_token_ids(request: GenerationRequest, model: ModelInfo) -> tuple[int, ...]:
    asked = request.stop_token_ids or []
    for token_id in asked:
        if not 0 <= token_id < model.vocab_size:
            raise invalid(
                f"'stop_token_ids' has a token that is not in the vocabulary of {model.vocab_size}.",
                "stop_token_ids",
            )
    end = [] if request.ignore_eos else model.eos_token_ids
    return tuple(dict.fromkeys([*end, *asked]))


def _logit_bias(bias: dict[str, float], vocab_size: int) -> dict[int, float]:
    checked: dict[int, float] = {}
    for token, value in bias.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) < vocab_size):
            raise invalid(
                f"'logit_bias' has the key {token[:40]!r}, which is not a token id below {vocab_size}.",
                "logit_bias",
            )
        if not -100 <= value <= 100:
            raise invalid(
                f"Invalid value for 'logit_bias': expected numbers from -100 to 100, got {value:g}.",
                "logit_bias",
            )
        checked[int(token)] = value
    return checked
