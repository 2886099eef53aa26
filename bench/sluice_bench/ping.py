"""Does an OpenAI-compatible server answer here? Models, one plain answer, one stream, each in a sentence."""

from __future__ import annotations

import msgspec

from sluice_bench.answers import read_answer
from sluice_bench.connection import Exchange
from sluice_bench.http_wire import HttpWireError, parse_response
from sluice_bench.load_run import run_blocking
from sluice_bench.loops import ClosedLoop, LoadPlan
from sluice_bench.metrics import e2e_s, ttft_service_s
from sluice_bench.target import Target, WireRequest, http_request
from sluice_bench.workload import Asking, Shape, chat_requests

_SHAPE = Shape(prompt_words=14, output_tokens=8)
_LIMIT_S = 60.0


class PingFailed(Exception):
    """The server did not answer as an OpenAI-compatible one does; the message says how."""


def ping(target: Target, model: str | None, api_key: str | None, *, generate: bool = True) -> list[str]:
    """One sentence per thing that works; without `generate` no answer is asked for, only the models.

    Raises `PingFailed` at the first that does not.
    """
    known = models(target, api_key)
    if not generate and model is not None and model not in known:
        raise PingFailed(f"{target.authority} has no model {model} but: {', '.join(known)}.")
    model = model or known[0]
    findings = [f"{len(known)} models: {', '.join(known)}"]
    if not generate:
        return findings
    for stream in (False, True):
        asking = Asking(model=model, stream=stream, api_key=api_key)
        request = chat_requests(target, _SHAPE, asking, 1, seed=1)[0]
        findings.append(_describe(model, _send(target, request)))
    return findings


def models(target: Target, api_key: str | None) -> list[str]:
    """Ids that `/v1/models` lists, at least one. Raises `PingFailed`."""
    headers = [("Authorization", f"Bearer {api_key}")] if api_key else []
    exchange = _send(target, WireRequest(http_request(target, "GET", "/v1/models", headers=headers), False))
    try:
        response = parse_response(exchange.reads, closed=exchange.closed)
    except HttpWireError as error:
        raise PingFailed(f"{target.authority} does not speak HTTP/1.1: {error}.") from error
    if response is None or response.head.status != 200:
        status = "nothing" if response is None else f"status {response.head.status}"
        raise PingFailed(f"/v1/models of {target.authority} answers {status}: {_words(exchange)}")
    try:
        page = msgspec.json.decode(response.body.data, type=_ModelList)
    except msgspec.DecodeError as error:
        raise PingFailed(f"/v1/models of {target.authority} is not a model list: {error}.") from error
    if not page.data:
        raise PingFailed(f"{target.authority} lists no models; name one with --model.")
    return [entry.id for entry in page.data]


class _ModelEntry(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_ModelEntry]


def _send(target: Target, request: WireRequest) -> Exchange:
    plan = LoadPlan(target=target, requests=[request], loop=ClosedLoop(1), request_timeout_s=_LIMIT_S)
    try:
        return run_blocking(plan)[0]
    except OSError as error:
        raise PingFailed(f"{target.authority} cannot be reached: {error}.") from error


def _describe(model: str, exchange: Exchange) -> str:
    record = read_answer(exchange)
    kind = "stream" if record.stream else "plain answer"
    if record.failure is not None:
        raise PingFailed(f"{kind} of {model}: {record.failure}: {record.message}")
    total_ms = (e2e_s(record) or 0.0) * 1000
    first = ttft_service_s(record)
    detail = f", first token after {first * 1000:.1f} ms, {record.n_events} events" if first else ""
    tokens = "an unknown number of" if record.output_tokens is None else record.output_tokens
    return f"{kind} of {model}: {tokens} tokens in {total_ms:.1f} ms{detail}"


def _words(exchange: Exchange) -> str:
    record = read_answer(exchange)
    return record.message or "no message"
