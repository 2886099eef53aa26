"""What a simulated gateway asks of whoever decides: the router's own verbs, so that it can be replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sluice_router.types import Endpoint, EngineLoad, FailureClass, Reject, RequestFacts, Usage

Notify = Callable[[], None]


class Stay(Protocol):
    """A request's stay with a balancer: the part of `sluice_router.ticket.Ticket` that a gateway uses."""

    waited_s: float

    @property
    def decision(self) -> Endpoint | Reject | None:
        """`None` while it waits."""
        ...

    def cancel(self, now: float) -> None:
        """The client left."""
        ...

    def settle(self, now: float, usage: Usage | None, failure: FailureClass | None = None) -> None:
        """It ended on its endpoint."""
        ...

    def answered(self, now: float) -> None:
        """Its first token came."""
        ...

    def retry(self, now: float, failure: FailureClass, notify: Notify) -> None:
        """Its endpoint failed before the first token."""
        ...


class Hedges(Protocol):
    """The part of `sluice_router.hedging.Hedges` that a gateway uses."""

    def due_at(self, ticket: Any, now: float) -> float | None:
        """When a second attempt is worth asking for."""
        ...

    def begin(self, ticket: Any, now: float) -> Endpoint | None:
        """Where to make it."""
        ...

    def won(self, ticket: Any, now: float) -> None:
        """It has answered first."""
        ...

    def failed(self, ticket: Any, failure: FailureClass, now: float) -> None:
        """It has failed."""
        ...


class Balancer(Protocol):
    """The part of `sluice_router.router.Router` that a gateway uses."""

    def admit(self, facts: RequestFacts, now: float, notify: Notify) -> Stay:
        """Take a request in."""
        ...

    def expire(self, now: float) -> float | None:
        """Do what the passing of time asks for; when to ask again."""
        ...

    def set_health(self, endpoint_id: str, healthy: bool, now: float) -> None:
        """What probes found."""
        ...

    def record_load(self, endpoint_id: str, load: EngineLoad, now: float) -> None:
        """What an engine's metrics say."""
        ...
