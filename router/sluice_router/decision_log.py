"""Every call into a router and every decision that came of it, as lines from which it can be run again.

The router has no clock, no randomness and no I/O of its own, so that its calls, with the times that they were
told and the random numbers that were drawn in them, are all there is to know: a fresh router that is given
the same decides the same (`decision_replay.py`). `RecordedRouter` has the interface of a `Router` and changes
nothing that is decided; a router that is not recorded knows nothing of it.

A line is one JSON object. The first is a `Start`, and the rest are in the order in which things happened: a
call, the numbers drawn in it, the decisions that it led to, what it returned or raised. A call that a
`notify` made while another call was telling its decisions has a greater `depth`. Lines hold what the router
knows of a request: names of tenant, model and session, sizes, and hashes of the prompt, never its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sluice_router.breaker import BreakerState
from sluice_router.matching import Mismatch
from sluice_router.router_options import Options
from sluice_router.snapshot import RouterSnapshot
from sluice_router.ticket import Notify, Ticket
from sluice_router.types import Endpoint, EngineLoad, FailureClass, Reject, RequestFacts, Usage

VERSION = 1
"""Of the format."""

READS: frozenset[str] = frozenset({"endpoints", "backends", "models", "mismatch", "snapshot"})
"""Public names of a router that change nothing: not recorded."""
CALLS: dict[str, tuple[Any, ...]] = {
    "admit": (RequestFacts, float),
    "cancel": (int, float),
    "settle": (int, float, Usage | None, FailureClass | None),
    "answered": (int, float),
    "retry": (int, float, FailureClass),
    "expire": (float,),
    "set_health": (str, bool, float),
    "set_draining": (str, bool, float),
    "force_breaker": (str, BreakerState | None, float),
    "set_models": (str, tuple[str, ...], float),
    "set_quant": (str, str, float),
    "record_load": (str, EngineLoad, float),
}
"""All others, with the types of what is recorded of their arguments: of a ticket its number, of a `notify`
nothing."""


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start", tag_field="line"):
    """The first line."""

    version: int = VERSION
    endpoints: tuple[Endpoint, ...]
    options: Options


class Call(msgspec.Struct, frozen=True, kw_only=True, tag="call", tag_field="line", omit_defaults=True):
    """A call began."""

    name: str
    args: tuple[Any, ...]
    """See `CALLS`. Of an `admit` the ticket's number is not among them: tickets are numbered from 1."""
    depth: int = 0


class Drawn(msgspec.Struct, frozen=True, kw_only=True, tag="drawn", tag_field="line"):
    """The router drew a random number."""

    number: float


class Decided(msgspec.Struct, frozen=True, kw_only=True, tag="decided", tag_field="line", omit_defaults=True):
    """What became of a ticket. With neither an endpoint nor a refusal it waits."""

    ticket: int
    endpoint: str | None = None
    reject: Reject | None = None
    route: str = ""
    scores: tuple[Any, ...] = ()
    """Of the candidates, in the order in which they were looked at; see `scoring.Score`."""


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended", tag_field="line", omit_defaults=True):
    """A call returned something that is no ticket, or raised."""

    returned: float | None = None
    raised: str | None = None
    """The kind of error."""


Line = Start | Call | Drawn | Decided | Ended
_ENCODER = msgspec.json.Encoder(order="deterministic")


def encode(line: Line) -> bytes:
    """As a line of the log, with its line break. Equal lines are equal bytes."""
    return _ENCODER.encode(line) + b"\n"


def decided(number: int, ticket: Ticket) -> Decided:
    """A ticket's decision as it stands."""
    decision = ticket.decision
    return Decided(
        ticket=number,
        endpoint=decision.id if isinstance(decision, Endpoint) else None,
        reject=decision if isinstance(decision, Reject) else None,
        route=ticket.route,
        scores=tuple(ticket.scores),
    )


def is_over(ticket: Ticket) -> bool:
    """Whether the ticket is closed and its owner knows."""
    return ticket.closed and ticket.notify is None


class RecordedRouter:
    """A router whose calls and decisions are written down. `write` gets each line, at once and in order."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        write: Callable[[bytes], None],
        *,
        random: Callable[[], float],
        options: Options,
    ) -> None:
        """Raises `ValueError` as `Router` does."""
        self._write = write
        self._random = random
        self._router = options.router(endpoints, self._draw)
        self._numbers: dict[Ticket, int] = {}
        """Of the tickets that are open, or whose end was not told yet."""
        self._issued = 0
        self._depth = 0
        self._write(encode(Start(endpoints=tuple(endpoints), options=options)))

    # What changes nothing

    @property
    def endpoints(self) -> int:
        """See `Router.endpoints`."""
        return self._router.endpoints

    def backends(self) -> tuple[str, ...]:
        """See `Router.backends`."""
        return self._router.backends()

    def models(self, backend: str | None = None) -> tuple[str, ...]:
        """See `Router.models`."""
        return self._router.models(backend)

    def mismatch(self, facts: RequestFacts) -> Mismatch | None:
        """See `Router.mismatch`."""
        return self._router.mismatch(facts)

    def snapshot(self) -> RouterSnapshot:
        """See `Router.snapshot`."""
        return self._router.snapshot()

    # A request's stay

    def admit(self, facts: RequestFacts, now: float, notify: Notify) -> Ticket:
        """See `Router.admit`."""
        self._issued += 1
        number = self._issued
        told: list[Ticket] = []
        ticket: Ticket = self._call(
            "admit", (facts, now), lambda: self._router.admit(facts, now, self._telling(told, notify))
        )
        told.append(ticket)
        ticket.hand_to(self)
        self._numbers[ticket] = number
        self._tell(ticket)
        return ticket

    def cancel(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.cancel`."""
        self._of_ticket("cancel", ticket, (now,), lambda: self._router.cancel(ticket, now))

    def settle(self, ticket: Ticket, now: float, usage: Usage | None, failure: FailureClass | None) -> None:
        """See `Ticket.settle`."""
        self._of_ticket(
            "settle", ticket, (now, usage, failure), lambda: self._router.settle(ticket, now, usage, failure)
        )

    def answered(self, ticket: Ticket, now: float) -> None:
        """See `Ticket.first_token`."""
        self._of_ticket("answered", ticket, (now,), lambda: self._router.answered(ticket, now))

    def retry(self, ticket: Ticket, now: float, failure: FailureClass, notify: Notify) -> None:
        """See `Ticket.retry`."""
        number = self._numbers.get(ticket)
        if number is None:
            self._router.retry(ticket, now, failure, notify)
            return
        telling = self._telling([ticket], notify)
        self._call("retry", (number, now, failure), lambda: self._router.retry(ticket, now, failure, telling))
        self._tell(ticket)

    # What the outside reports

    def expire(self, now: float) -> float | None:
        """See `Router.expire`."""
        returned: float | None = self._call("expire", (now,), lambda: self._router.expire(now))
        self._write(encode(Ended(returned=returned)))
        return returned

    def set_health(self, endpoint_id: str, healthy: bool, now: float) -> None:
        """See `Router.set_health`."""
        self._report("set_health", endpoint_id, healthy, now)

    def set_draining(self, endpoint_id: str, draining: bool, now: float) -> None:
        """See `Router.set_draining`."""
        self._report("set_draining", endpoint_id, draining, now)

    def force_breaker(self, endpoint_id: str, state: BreakerState | None, now: float) -> None:
        """See `Router.force_breaker`."""
        self._report("force_breaker", endpoint_id, state, now)

    def set_models(self, endpoint_id: str, models: Sequence[str], now: float) -> None:
        """See `Router.set_models`."""
        self._report("set_models", endpoint_id, tuple(models), now)

    def set_quant(self, endpoint_id: str, quant: str, now: float) -> None:
        """See `Router.set_quant`."""
        self._report("set_quant", endpoint_id, quant, now)

    def record_load(self, endpoint_id: str, load: EngineLoad, now: float) -> None:
        """See `Router.record_load`."""
        self._report("record_load", endpoint_id, load, now)

    # Writing

    def _report(self, name: str, *args: Any) -> None:
        self._call(name, args, lambda: getattr(self._router, name)(*args))

    def _of_ticket(self, name: str, ticket: Ticket, rest: tuple[Any, ...], do: Callable[[], None]) -> None:
        """One of a ticket's verbs. On a ticket whose end is known it changes nothing, and is not recorded."""
        number = self._numbers.get(ticket)
        if number is None:
            do()
            return
        self._call(name, (number, *rest), do)
        self._forget(ticket)

    def _call(self, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        self._write(encode(Call(name=name, args=args, depth=self._depth)))
        self._depth += 1
        try:
            return do()
        except Exception as error:
            self._write(encode(Ended(raised=type(error).__name__)))
            raise
        finally:
            self._depth -= 1

    def _telling(self, told: list[Ticket], notify: Notify) -> Notify:
        """A `notify` that writes down what has been decided first. `told` has the ticket by then."""

        def tell() -> None:
            self._tell(told[0])
            notify()

        return tell

    def _tell(self, ticket: Ticket) -> None:
        self._write(encode(decided(self._numbers[ticket], ticket)))
        self._forget(ticket)

    def _forget(self, ticket: Ticket) -> None:
        """Nothing will come of it any more, once it is closed and nobody has to be told."""
        if is_over(ticket):
            self._numbers.pop(ticket, None)

    def _draw(self) -> float:
        number = self._random()
        self._write(encode(Drawn(number=number)))
        return number
