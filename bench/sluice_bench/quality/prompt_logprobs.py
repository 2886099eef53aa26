"""What a server thinks of each token of a prompt: the log-probabilities of `/v1/completions` with `echo`.

With `max_tokens` 0 nothing is generated. The answer has parallel lists over the prompt's tokens; the first
has no prediction. The alternatives of a token are named by their text, and two tokens of one text are then
one entry, which only happens to parts of characters and loses a little of what could be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from sluice_bench.api_calls import Answer, ApiFailed, Server, answers
from sluice_bench.quality.passages import Window

MOST_ALTERNATIVES = 20
"""Of a token: vLLM's default bound, and the worker's."""

WHO_CAN = (
    "It takes /v1/completions with echo, logprobs and max_tokens 0, as vLLM and Sluice's worker have them; "
    "OpenAI's own API and llama.cpp's server do not."
)


class Prediction(msgspec.Struct, frozen=True):
    """One token of a window, and what was thought likely in its place."""

    token: str
    logprob: float
    alternatives: Mapping[str, float]
    """Log-probabilities of the most likely tokens, the one that stands there among them."""


class _Logprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct):
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def predictions(
    server: Server,
    windows: Sequence[Window],
    alternatives: int,
    on_progress: Callable[[int], None] | None = None,
) -> list[list[Prediction]]:
    """For each window, all its tokens but the first. Raises `ApiFailed` when the server cannot do that."""
    bodies = [
        {"prompt": window, "echo": True, "logprobs": alternatives, "max_tokens": 0} for window in windows
    ]
    return [_read(server, answer) for answer in answers(server, "/v1/completions", bodies, on_progress)]


def _read(server: Server, answer: Answer) -> list[Prediction]:
    where = server.target.authority
    if not answer.good:
        raise ApiFailed(
            f"{where} refuses log-probabilities of a prompt ({answer.status}: {answer.message}). {WHO_CAN}"
        )
    choices = answer.decoded(_Completion).choices
    logprobs = choices[0].logprobs if choices else None
    if logprobs is None:
        raise ApiFailed(f"{where} sends no log-probabilities of a prompt. {WHO_CAN}")
    tops = logprobs.top_logprobs or [None] * len(logprobs.tokens)
    found = [
        Prediction(token, logprob, top or {token: logprob})
        for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, tops, strict=False)
        if logprob is not None
    ]
    if not found or len(found) < len(logprobs.tokens) - 1:
        raise ApiFailed(f"{where} sends log-probabilities of a part of the prompt only. {WHO_CAN}")
    return found
