"""Clients who are refused: what they are told, and that they come back then, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from sluice_bench.connection import Exchange
from sluice_bench.records import Failure
from sluice_bench.rehearsal.asking import MOST_TRIES, Outcome, asked_until_served, outcome_of
from sluice_bench.target import Target, WireRequest

Requests = Callable[[Target, int], list[WireRequest]]

GOOD = b'{"choices": [{"message": {"content": "yes"}}]}'
FULL = b'{"error": {"code": "rate_limit_exceeded", "message": "full"}}'


def answer(status: int, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} So", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def refusal(seconds: str) -> bytes:
    return answer(429, FULL, f"Retry-After: {seconds}")


def tries_at(
    listen: Callable[..., Any], requests_to: Requests, answers: Sequence[bytes]
) -> tuple[list[Outcome], list[float]]:
    """What one client met where the last answer is repeated, and how long it paused."""
    replies: Iterator[bytes] = iter(answers)
    pauses: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(replies, answers[-1]))
        await writer.drain()
        writer.close()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def main() -> list[Outcome]:
        async with listen(serve) as target:
            return await asked_until_served(target, requests_to(target, 1)[0], pause)

    return asyncio.run(main()), pauses


def test_a_client_waits_as_long_as_it_is_told_until_it_is_served(
    listen: Callable[..., Any], requests_to: Requests
) -> None:
    tries, pauses = tries_at(listen, requests_to, [refusal("3"), refusal("7"), answer(200, GOOD)])

    assert [outcome.refused for outcome in tries] == [True, True, False]
    assert tries[-1].served
    assert pauses == [3.0, 7.0]


def test_a_client_that_is_never_served_gives_up(listen: Callable[..., Any], requests_to: Requests) -> None:
    tries, _ = tries_at(listen, requests_to, [refusal("1")])

    assert [outcome.refused for outcome in tries] == [True] * MOST_TRIES


@pytest.mark.parametrize("last", [answer(429, FULL), refusal("soon"), answer(500, b"{}", "Retry-After: 1")])
def test_a_client_that_is_not_told_when_does_not_come_back(
    listen: Callable[..., Any], requests_to: Requests, last: bytes
) -> None:
    tries, pauses = tries_at(listen, requests_to, [last])

    assert len(tries) == 1
    assert not tries[0].served
    assert pauses == []


def test_what_a_refusal_says_is_read_from_its_bytes(exchange_of: Callable[..., Exchange]) -> None:
    told = outcome_of(exchange_of([(20, refusal("12"))], stream=False))
    other = outcome_of(exchange_of([(20, answer(502, b"Bad gateway"))], stream=False))
    lost = outcome_of(exchange_of([(20, b"HTTP/1.1 429")], stream=False))

    assert (told.refused, told.code, told.retry_after_s) == (True, "rate_limit_exceeded", 12.0)
    assert told.record.message == "full"
    assert (other.refused, other.code, other.retry_after_s) == (False, "", None)
    assert other.record.failure is Failure.HTTP_STATUS
    assert (lost.refused, lost.code, lost.retry_after_s) == (False, "", None)


@pytest.mark.parametrize(
    ("reasons", "hedged"),
    [("hedge,least_loaded", True), ("retry:2,hedge,prefix", True), ("least_loaded", False)],
)
def test_who_answered_is_told_in_the_head(
    exchange_of: Callable[..., Exchange], reasons: str, hedged: bool
) -> None:
    route = f"x-sluice-route: model=hedge,m; backend=hedge; endpoint=hedge,-0; reason={reasons}"
    told = outcome_of(exchange_of([(20, answer(200, GOOD, route))], stream=False))

    assert (told.served, told.hedged) == (True, hedged)
