"""What backends answer when they always take the most likely token, and how far two agree.

Asked as a chat, at temperature 0, with log-probabilities, because these tell the tokens of an answer. Of two
backends the same tokens must follow from the same prompt until one decides differently; what comes after the
first difference says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from random import Random

import msgspec

from sluice_bench.api_calls import Answer, ApiFailed, Server, answers
from sluice_bench.quality.bleu import bleu_interval
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.intervals import mean_interval, share_interval


class GreedyAnswer(msgspec.Struct, frozen=True):
    """One answer."""

    text: str
    tokens: tuple[str, ...] | None
    """`None` when the server did not list them."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Of two backends' greedy answers to the same prompts."""

    prompts: int
    max_tokens: int
    same_answers: Estimate
    """Share of prompts with the same text."""
    common_share: Estimate | None
    """Mean share of the longer answer's tokens that are equal before the first difference; `None` when the
    tokens are unknown."""
    bleu: Estimate
    """Of the backend's answers with the reference's as their references."""


class _Token(msgspec.Struct):
    token: str


class _Listed(msgspec.Struct):
    content: list[_Token] | None = None


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    logprobs: _Listed | None = None


class _Chat(msgspec.Struct):
    choices: list[_Choice]


def greedy_answers(
    server: Server,
    prompts: Sequence[str],
    max_tokens: int,
    on_progress: Callable[[int], None] | None = None,
) -> list[GreedyAnswer]:
    """One for each prompt. Raises `ApiFailed`."""
    bodies = [
        {
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "logprobs": True,
        }
        for prompt in prompts
    ]
    found = answers(server, "/v1/chat/completions", bodies, on_progress)
    return [_read(server, answer) for answer in found]


def _read(server: Server, answer: Answer) -> GreedyAnswer:
    if not answer.good:
        raise ApiFailed(
            f"{server.target.authority} refuses a greedy answer with log-probabilities "
            f"({answer.status}: {answer.message})."
        )
    choices = answer.decoded(_Chat).choices
    if not choices:
        raise ApiFailed(f"An answer of {server.target.authority} has no choices.")
    listed = choices[0].logprobs.content if choices[0].logprobs else None
    tokens = None if listed is None else tuple(entry.token for entry in listed)
    return GreedyAnswer(choices[0].message.content or "", tokens)


def agree(
    reference: Sequence[GreedyAnswer], other: Sequence[GreedyAnswer], max_tokens: int, source: Random
) -> Agreement:
    """Compare answers to the same prompts. Raises `ValueError` without any."""
    pairs = list(zip(reference, other, strict=True))
    same = sum(ours.text == theirs.text for ours, theirs in pairs)
    shares = [share for ours, theirs in pairs if (share := common_share(ours, theirs)) is not None]
    return Agreement(
        prompts=len(pairs),
        max_tokens=max_tokens,
        same_answers=share_interval(same, len(pairs)),
        common_share=mean_interval(shares, source) if len(shares) == len(pairs) else None,
        bleu=bleu_interval([(theirs.text, ours.text) for ours, theirs in pairs], source),
    )


def common_share(ours: GreedyAnswer, theirs: GreedyAnswer) -> float | None:
    """Equal tokens before the first difference, over those of the longer answer; `None` when unknown."""
    if ours.tokens is None or theirs.tokens is None:
        return None
    longer = max(len(ours.tokens), len(theirs.tokens))
    both = zip(ours.tokens, theirs.tokens, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
    return common / longer if longer else 1.0
