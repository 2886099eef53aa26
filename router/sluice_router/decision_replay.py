"""A decision log, run again: whether a fresh router decides the same, and where it does not.

The log leads. A call in it is made; what the router then draws, decides, returns or raises has to be what the
following lines say, in their order. The first that differs ends the replay, for what comes after it would
differ because of it. See `decision_log.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from sluice_router.decision_log import (
    CALLS,
    VERSION,
    Call,
    Decided,
    Drawn,
    Ended,
    Line,
    Start,
    decided,
    encode,
    is_over,
)
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, RequestFacts

_DECODER = msgspec.json.Decoder(Line)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where log and router part."""

    line: int
    """Counted from 1."""
    logged: str
    """The line."""
    now: str
    """What the router does instead, as a line."""


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    calls: int
    decisions: int
    """Those that are equal, waiting included."""
    difference: Difference | None


class LogError(ValueError):
    """The log is not one; the text says which line, and why."""


class _Over(Exception):
    """The log ends within a call."""


class _Differs(Exception):
    def __init__(self, difference: Difference) -> None:
        super().__init__()
        self.difference = difference


def replay(lines: Iterable[bytes]) -> Replayed:
    """Run a log. A last line that was cut off, as of a process that was killed, is left out.

    Raises `LogError`.
    """
    return _Replay(iter(lines)).run()


class _Replay:
    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._number: int = 0
        self._text: bytes = b""
        self._next: Line | None = None
        start = self._advance()
        if not isinstance(start, Start):
            raise LogError("Line 1 is no start of a decision log.")
        if start.version != VERSION:
            raise LogError(f"The log has format {start.version}; this version reads {VERSION}.")
        self._advance()
        self._router: Router = start.options.router(start.endpoints, self._draw)
        self._tickets: dict[int, Ticket] = {}
        self._issued: int = 0
        self._depth: int = 0
        self._calls: int = 0
        self._decisions: int = 0

    def run(self) -> Replayed:
        difference = None
        try:
            self._perform_all()
            if self._next is not None:
                raise LogError(f"Line {self._number} belongs to no call.")
        except _Over:
            pass
        except _Differs as differs:
            difference = differs.difference
        return Replayed(calls=self._calls, decisions=self._decisions, difference=difference)

    def _perform_all(self) -> None:
        """The calls at the present depth."""
        while isinstance(self._next, Call) and self._next.depth == self._depth:
            call = self._next
            self._advance()
            self._depth += 1
            self._perform(call)
            if CALLS[call.name][0] is int:
                self._forget(int(call.args[0]))
            self._depth -= 1
            self._calls += 1

    def _perform(self, call: Call) -> None:
        args = self._arguments(call)
        try:
            if call.name == "admit":
                self._admit(*args)
            elif call.name in ("retry", "resume"):
                number = int(call.args[0])
                getattr(self._router, call.name)(*args, self._telling(number))
                self._told(number, self._tickets[number])
            elif call.name == "expire":
                self._expect(Ended(returned=self._router.expire(*args)))
            elif call.name.startswith("hedges."):
                self._hedge(call, *args)
            else:
                getattr(self._router, call.name)(*args)
        except (KeyError, ValueError) as error:
            if isinstance(error, LogError):
                raise
            self._expect(Ended(raised=type(error).__name__))

    def _arguments(self, call: Call) -> list[Any]:
        types = CALLS.get(call.name)
        if types is None or len(types) != len(call.args):
            raise LogError(f"Line {self._number - 1}: there is no call '{call.name}' like this.")
        try:
            args = [msgspec.convert(arg, kind) for arg, kind in zip(call.args, types, strict=True)]
        except msgspec.ValidationError as error:
            raise LogError(f"Line {self._number - 1}: {error}.") from None
        if types[0] is int:
            if args[0] not in self._tickets:
                raise LogError(f"Line {self._number - 1}: ticket {args[0]} was not issued.")
            args[0] = self._tickets[args[0]]
        return args

    def _admit(self, facts: RequestFacts, now: float) -> None:
        self._issued += 1
        number = self._issued
        ticket = self._router.admit(facts, now, self._telling(number))
        self._tickets[number] = ticket
        self._told(number, ticket)

    def _hedge(self, call: Call, ticket: Ticket, *rest: Any) -> None:
        name = call.name.removeprefix("hedges.")
        returned = getattr(self._router.hedges, name)(ticket, *rest)
        if name in ("due_at", "begin"):
            self._expect(Ended(returned=returned.id if isinstance(returned, Endpoint) else returned))
        elif name == "won" and int(call.args[0]) in self._tickets:
            self._told(int(call.args[0]), ticket)

    def _telling(self, number: int) -> Callable[[], None]:
        def tell() -> None:
            self._told(number, self._tickets[number])
            self._perform_all()

        return tell

    def _told(self, number: int, ticket: Ticket) -> None:
        self._expect(decided(number, ticket))
        self._decisions += 1
        self._forget(number)

    def _forget(self, number: int) -> None:
        if number in self._tickets and is_over(self._tickets[number]):
            del self._tickets[number]

    def _draw(self) -> float:
        line = self._next
        if not isinstance(line, Drawn):
            raise self._differs(b"(draws a random number)\n")
        self._advance()
        return line.number

    def _expect(self, line: Decided | Ended) -> None:
        now = encode(line)
        if now != self._text:
            raise self._differs(now)
        self._advance()

    def _differs(self, now: bytes) -> Exception:
        if self._next is None:
            return _Over()
        return _Differs(
            Difference(line=self._number, logged=self._text.decode().rstrip(), now=now.decode().rstrip())
        )

    def _advance(self) -> Line | None:
        """Read the next line; `None` at the end of the log."""
        self._number += 1
        self._text = next(self._lines, b"")
        if not self._text.endswith(b"\n"):  # the end, or a line that was cut off
            self._next = None
            return None
        try:
            self._next = _DECODER.decode(self._text)
        except msgspec.DecodeError as error:
            raise LogError(f"Line {self._number} is no line of a decision log: {error}.") from None
        return self._next
