"""How a server is asked, and seeded requests of any length, as bytes, all built before a run.

These requests are for measuring machinery (gateways, workers at exact lengths): words without meaning, or
token ids. What `sluice-bench run` asks comes from the corpus (`workloads/`). No two prompts share a
beginning, so a prefix cache helps nobody by accident; the same seed gives the same bytes on any machine.
Output length is fixed with `ignore_eos` where the server knows it, so that two servers do the same work; what
the server really produced is in its usage and in the record.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

from sluice_bench.target import Target, WireRequest, http_request

_VOCABULARY = """
river stone maple lantern harbour window silver orchard meadow copper thunder garden paper winter
candle forest bridge velvet morning anchor pebble mirror feather market button island ladder saddle
barrel engine cotton pocket ribbon tunnel valley walnut basket cradle dragon ember falcon goblet
hammer ivory jacket kettle
"""
_WORDS = tuple(_VOCABULARY.split())


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How long prompts and answers are."""

    prompt_words: int
    """About 1.3 tokens each with a common tokenizer; the exact number is in the server's usage."""
    output_tokens: int


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are put to a server."""

    model: str
    stream: bool = True
    api_key: str | None = None
    ignore_eos: bool = False
    """An extension of vLLM's and Sluice's worker; servers of OpenAI's own API refuse it."""
    include_usage: bool = True
    """Ask for the usage event of a stream."""
    headers: tuple[tuple[str, str], ...] = ()
    """More headers, e.g. `X-Backend`."""


def chat_requests(target: Target, shape: Shape, asking: Asking, count: int, seed: int) -> list[WireRequest]:
    """`count` chat requests with distinct prompts."""
    source = random.Random(seed)
    bodies = [
        {"messages": [{"role": "user", "content": _prompt(source, index, shape.prompt_words)}]}
        for index in range(count)
    ]
    return [_wire(target, "/v1/chat/completions", body, shape.output_tokens, asking) for body in bodies]


def token_requests(
    target: Target, prompts: Sequence[Sequence[int]], output_tokens: int, asking: Asking
) -> list[WireRequest]:
    """Completion requests whose prompts are token ids: lengths are exact, whatever the tokenizer."""
    bodies = [{"prompt": list(prompt)} for prompt in prompts]
    return [_wire(target, "/v1/completions", body, output_tokens, asking) for body in bodies]


def geometric_lengths(count: int, mean: int, low: int, high: int, seed: int) -> list[int]:
    """`count` lengths whose excess over `low` is geometric with the mean `mean - low`, none above `high`."""
    source = random.Random(seed)
    rate = 1 / max(1, mean - low)
    return [min(high, low + int(source.expovariate(rate))) for _ in range(count)]


def random_token_prompts(count: int, length: int, low: int, high: int, seed: int) -> list[tuple[int, ...]]:
    """`count` prompts of `length` ids in `[low, high)`, drawn independently."""
    source = random.Random(seed)
    return [tuple(source.randrange(low, high) for _ in range(length)) for _ in range(count)]


def chosen_token_prompts(count: int, length: int, ids: Sequence[int], seed: int) -> list[tuple[int, ...]]:
    """`count` prompts of `length` tokens, each drawn independently from `ids`."""
    source = random.Random(seed)
    return [tuple(source.choices(ids, k=length)) for _ in range(count)]


def _prompt(source: random.Random, index: int, words: int) -> str:
    """Starts with its own number, so that it shares no prefix with another."""
    drawn = random_words(source, max(0, words - 12))
    return f"Note {source.randrange(10**6)}-{index}. Write a short story with these words: {drawn}"


def random_words(source: random.Random, count: int) -> str:
    """`count` words without meaning."""
    return " ".join(source.choice(_WORDS) for _ in range(count))


def request_body(body: Mapping[str, object], max_tokens: int, asking: Asking) -> bytes:
    """The JSON of a generating request: `body` and what says how the server is asked."""
    fields: dict[str, object] = {"model": asking.model, **body}
    fields |= {"max_tokens": max_tokens, "temperature": 0}
    if asking.stream:
        fields["stream"] = True
        if asking.include_usage:
            fields["stream_options"] = {"include_usage": True}
    if asking.ignore_eos:
        fields["ignore_eos"] = True
    return msgspec.json.encode(fields)


def post(target: Target, path: str, body: bytes, asking: Asking) -> bytes:
    """The bytes of a request with the headers asked for."""
    headers = list(asking.headers)
    if asking.api_key is not None:
        headers.append(("Authorization", f"Bearer {asking.api_key}"))
    return http_request(target, "POST", path, body, headers)


def _wire(
    target: Target, path: str, body: Mapping[str, object], output_tokens: int, asking: Asking
) -> WireRequest:
    wire = post(target, path, request_body(body, output_tokens, asking), asking)
    return WireRequest(wire, asking.stream, asked_tokens=output_tokens)
