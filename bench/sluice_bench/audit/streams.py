"""Streamed answers as an audit looks at them: what was asked, what came, and four ways to count it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice_bench import sse
from sluice_bench.answers import read_answer
from sluice_bench.api_calls import ApiFailed, Server, exchanges
from sluice_bench.connection import Exchange
from sluice_bench.generated_text import Kind, pieces
from sluice_bench.http_wire import parse_response
from sluice_bench.metrics import NS
from sluice_bench.records import Failure, RequestRecord

_CHAT = "/v1/chat/completions"

Json = dict[str, Any]


class Refused(ApiFailed):
    """The server answered with a 4xx, which says that it will not do such a thing at all."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    record: RequestRecord
    text: str | None
    """`None` when it has more than plain text (reasoning, tool calls), whose tokens nothing lists."""
    text_events: int
    """Events that carried text: what counts as tokens for a client that counts chunks."""
    listed_tokens: int | None
    """In its log-probabilities; `None` when there are none."""

    @property
    def usage_tokens(self) -> int | None:
        """Completion tokens of its usage object; `None` when it has none."""
        return self.record.output_tokens if self.record.prompt_tokens is not None else None

    @property
    def tokens(self) -> int | None:
        """The best count of its own: listed, else from usage."""
        return self.usage_tokens if self.listed_tokens is None else self.listed_tokens

    @property
    def total_s(self) -> float:
        """From sending to the last text."""
        written = self.record.written_ns or self.record.scheduled_ns
        return ((self.record.last_token_ns or written) - written) * NS

    @property
    def writing_s(self) -> float:
        """From the first text to the last: what no cache of the prompt can make shorter."""
        first, last = self.record.first_token_ns, self.record.last_token_ns
        return 0.0 if first is None or last is None else (last - first) * NS


def chat(prompt: str, max_tokens: int, **more: Any) -> Json:
    """The body of a question."""
    return {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, **more}


def ask(server: Server, bodies: Sequence[Mapping[str, Any]]) -> list[Stream]:
    """One after another. Raises `Refused` for a 4xx, `ApiFailed` for anything else that is no answer."""
    requests = [server.request(_CHAT, body, stream=True) for body in bodies]
    return [_stream(server, exchange) for exchange in exchanges(server, requests, at_once=1)]


def takes_logprobs(server: Server, prompt: str) -> bool:
    """Whether it answers when it is asked for log-probabilities. Raises `ApiFailed` when it never does."""
    try:
        ask(server, [chat(prompt, 2, logprobs=True)])
    except Refused:
        ask(server, [chat(prompt, 2)])
        return False
    return True


def _stream(server: Server, exchange: Exchange) -> Stream:
    record = read_answer(exchange)
    if record.failure is not None:
        refused = record.failure is Failure.HTTP_STATUS and 400 <= (record.status or 0) < 500
        kind = Refused if refused else ApiFailed
        raise kind(f"{server.target.authority} gave no answer: {record.failure}: {record.message}.")
    response = parse_response(exchange.reads, closed=exchange.closed)
    assert response is not None  # or the record would be a failure
    choices = [
        choice
        for event in sse.events(response.body.data)
        if event.data.strip() != b"[DONE]"
        for choice in msgspec.json.decode(event.data, type=_Event).choices
    ]
    found = [piece for choice in choices for piece in pieces({}, choice.delta)]
    plain = all(piece.kind is Kind.CONTENT for piece in found)
    listed = sum(len(choice.logprobs.content or ()) for choice in choices if choice.logprobs)
    return Stream(
        record=record,
        text="".join(piece.text for piece in found) if plain else None,
        text_events=len(record.chunks),
        listed_tokens=listed if listed and plain else None,
    )


class _Listed(msgspec.Struct):
    content: list[Any] | None = None


class _Choice(msgspec.Struct):
    delta: Json = msgspec.field(default_factory=dict)
    logprobs: _Listed | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
