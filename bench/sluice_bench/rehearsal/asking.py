"""Tenants' requests: sent all at once or for a while, some by clients who come back when they are told to.

All of it is the load client's (`load_run.py`); several of its runs share one event loop. What a refusal said
is read from the bytes that it recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from sluice_bench.answers import read_answer
from sluice_bench.connection import Exchange
from sluice_bench.http_wire import parse_response
from sluice_bench.load_run import LoadRun, frozen_gc, new_event_loop
from sluice_bench.loops import LoadPlan, Loop, OpenLoop
from sluice_bench.records import RequestRecord
from sluice_bench.target import Target, WireRequest

MOST_TRIES = 12
TOO_MANY_REQUESTS = 429
REQUEST_LIMIT_S = 300.0
_LOOK_EVERY_S = 0.005

Result = TypeVar("Result")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one request, as its client saw it."""

    record: RequestRecord
    code: str = ""
    """Of the error that answered it."""
    retry_after_s: float | None = None
    """As the answer's head said."""
    route: str = ""
    """How the gateway placed it, as the answer's head said."""

    @property
    def served(self) -> bool:
        """Answered, whole."""
        return self.record.failure is None

    @property
    def end(self) -> str:
        """In words."""
        record = self.record
        place = f" at {record.backend}" if record.backend else ""
        return f"{record.status} {self.code} {record.failure}{place}: {record.message}"

    @property
    def hedged(self) -> bool:
        """A second attempt has answered it."""
        return "hedge" in self.route.rpartition("reason=")[2].split(",")

    @property
    def refused(self) -> bool:
        """For now."""
        return self.record.status == TOO_MANY_REQUESTS


class _Error(msgspec.Struct):
    code: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


def outcome_of(exchange: Exchange) -> Outcome:
    """Of one that has ended."""
    record = read_answer(exchange)
    response = None if record.status is None else parse_response(exchange.reads, closed=exchange.closed)
    if response is None:
        return Outcome(record=record)
    headers = response.head.headers
    return Outcome(
        record=record,
        code=_code_in(response.body.data) if response.head.status >= 400 else "",
        retry_after_s=_seconds(headers.get(b"retry-after", b"")),
        route=headers.get(b"x-sluice-route", b"").decode("latin-1"),
    )


def _code_in(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error.code or ""
    except msgspec.DecodeError:
        return ""


def _seconds(value: bytes) -> float | None:
    return float(value) if value.isdigit() else None


def load(target: Target, requests: Sequence[WireRequest], loop: Loop) -> LoadRun:
    """Requests to be sent in the way of `loop`."""
    return LoadRun(
        LoadPlan(target=target, requests=requests, loop=loop, request_timeout_s=REQUEST_LIMIT_S),
    )


async def outcomes(running: LoadRun) -> list[Outcome]:
    """Of all requests of a load, in their order."""
    return [outcome_of(exchange) for exchange in await running.run()]


async def asked_until_served(
    target: Target,
    request: WireRequest,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[Outcome]:
    """One client's tries: refused, it waits as long as the refusal says. The last one is not a refusal, or
    says nothing of when to come back, or was one too many."""
    tries: list[Outcome] = []
    while len(tries) < MOST_TRIES:
        tries += await outcomes(load(target, [request], OpenLoop((0,))))
        if not tries[-1].refused or tries[-1].retry_after_s is None:
            break
        await pause(tries[-1].retry_after_s)
    return tries


async def until(condition: Callable[[], bool]) -> None:
    """Look every few milliseconds whether it is so."""
    while True:
        if condition():
            return
        await asyncio.sleep(_LOOK_EVERY_S)


async def together(*things: Awaitable[Result]) -> list[Result]:
    """All of them at once."""
    return list(await asyncio.gather(*things))


def in_a_loop(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Carry it out as the load client wants it: its own event loop, no collector of garbage."""
    with frozen_gc(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())
