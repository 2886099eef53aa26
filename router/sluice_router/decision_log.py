"""Every call into a router and every decision that came of it, as lines from which it can be run again.

The router has no clock, no randomness and no I/O of its own, so that its calls, with the times that they were
told and the random numbers that were drawn in them, are all there is to know: a fresh router that is given
the same decides the same. Here is what the lines are; `recorded_router.py` writes them, `decision_replay.py`
runs them again.

A line is one JSON object. The first is a `Start`, and the rest are in the order in which things happened: a
call, the numbers drawn in it, the decisions that it led to, what it returned or raised. A call that a
`notify` made while another call was telling its decisions has a greater `depth`. Lines hold what the router
knows of a request: names of tenant, model and session, sizes, and hashes of the prompt, never its text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sluice_router.breaker import BreakerState
from sluice_router.router_options import Options
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, EngineLoad, FailureClass, Reject, RequestFacts, Usage

VERSION = 1
"""Of the format."""

READS: frozenset[str] = frozenset({"endpoints", "backends", "models", "mismatch", "snapshot", "details"})
"""Public names of a router that change nothing: not recorded."""
CALLS: dict[str, tuple[Any, ...]] = {
    "admit": (RequestFacts, float),
    "cancel": (int, float),
    "settle": (int, float, Usage | None, FailureClass | None),
    "answered": (int, float),
    "retry": (int, float, FailureClass),
    "resume": (int, float, FailureClass, RequestFacts),
    "expire": (float,),
    "set_health": (str, bool, float),
    "set_draining": (str, bool, float),
    "force_breaker": (str, BreakerState | None, float),
    "set_models": (str, tuple[str, ...], float),
    "set_quant": (str, str, float),
    "record_load": (str, EngineLoad, float),
    "hedges.due_at": (int, float),
    "hedges.begin": (int, float),
    "hedges.won": (int, float),
    "hedges.failed": (int, FailureClass, float),
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

    returned: float | str | None = None
    """A time, or the id of an endpoint."""
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
