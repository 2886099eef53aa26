"""Single calls of a server's API and the JSON that comes back, for questions that are not about speed.

What is asked is a list of calls, a few of them in flight at once; what comes back is one answer each, in the
same order. A server that is not there, or does not speak HTTP, is an `ApiFailed` whose message says so. What
a status means is for whoever asked to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from sluice_bench.answers import read_answer
from sluice_bench.connection import Exchange
from sluice_bench.http_wire import HttpWireError, parse_response
from sluice_bench.load_run import run_blocking
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.target import Target, WireRequest, http_request

CALLS_AT_ONCE = 4
_LIMIT_S = 300.0

Kind = TypeVar("Kind")


class ApiFailed(Exception):
    """A server did not answer as it must; the message is a sentence for the user."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked, and with which headers."""

    target: Target
    model: str
    headers: tuple[tuple[str, str], ...] = ()
    api_key: str | None = None

    def request(self, path: str, body: Mapping[str, Any], *, stream: bool = False) -> WireRequest:
        """A POST of `body` with the model's name in it; a stream asks for its usage, too."""
        fields: dict[str, Any] = {"model": self.model, **body}
        if stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = list(self.headers)
        if self.api_key:
            headers.append(("Authorization", f"Bearer {self.api_key}"))
        wire = http_request(self.target, "POST", path, msgspec.json.encode(fields), headers)
        return WireRequest(wire, stream, asked_tokens=body.get("max_tokens"))


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    body: bytes

    @property
    def good(self) -> bool:
        """A 2xx."""
        return 200 <= self.status < 300

    @property
    def message(self) -> str:
        """The server's own words about an error; empty when it has none."""
        try:
            error = msgspec.json.decode(self.body, type=_Refusal).error
        except msgspec.DecodeError:
            return self.body[:200].decode("utf-8", "replace")
        return error.message if isinstance(error, _Error) else error

    def decoded(self, kind: type[Kind]) -> Kind:
        """The body. Raises `ApiFailed` when it is something else."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except msgspec.DecodeError as error:
            raise ApiFailed(f"The answer is not what an OpenAI-compatible server sends: {error}.") from error


class _Error(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Error | str = ""


def exchanges(
    server: Server,
    requests: Sequence[WireRequest],
    *,
    at_once: int = CALLS_AT_ONCE,
    on_progress: Callable[[int], None] | None = None,
) -> list[Exchange]:
    """Everything sent and answered, with its stamps. Raises `ApiFailed` when the server is not there."""
    plan = LoadPlan(
        target=server.target,
        requests=requests,
        loop=ClosedLoop(at_once),
        warm_connections=min(at_once, len(requests)),
        request_timeout_s=_LIMIT_S,
    )
    try:
        return run_blocking(plan, on_progress)
    except OSError as error:
        raise ApiFailed(f"{server.target.authority} cannot be reached: {error}.") from error


def answers(
    server: Server,
    path: str,
    bodies: Sequence[Mapping[str, Any]],
    on_progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """One plain answer for each body. Raises `ApiFailed` when one does not come."""
    requests = [server.request(path, body) for body in bodies]
    return [_answer(server, exchange) for exchange in exchanges(server, requests, on_progress=on_progress)]


def _answer(server: Server, exchange: Exchange) -> Answer:
    try:
        response = parse_response(exchange.reads, closed=exchange.closed)
    except HttpWireError as error:
        raise ApiFailed(f"{server.target.authority} does not speak HTTP/1.1: {error}.") from error
    if response is None or not response.complete:
        record = read_answer(exchange)
        raise ApiFailed(f"{server.target.authority} did not answer: {record.failure}: {record.message}.")
    return Answer(status=response.head.status, body=response.body.data)


def token_ids(server: Server, texts: Sequence[str], *, special: bool) -> list[list[int]] | None:
    """The tokens of each text, by `/tokenize` in vLLM's shape; `None` when the server does not offer it.

    `special` asks for those that the tokenizer puts around a prompt.
    """
    bodies = [{"prompt": text, "add_special_tokens": special} for text in texts]
    found = answers(server, "/tokenize", bodies)
    if not all(answer.good for answer in found):
        return None
    return [answer.decoded(_Tokens).tokens for answer in found]


class _Tokens(msgspec.Struct):
    tokens: list[int]
