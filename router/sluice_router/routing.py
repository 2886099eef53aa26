"""What whoever serves asks of a router, be it a `Router` or one that is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sluice_router.breaker import BreakerState
from sluice_router.inspection import RouterDetails
from sluice_router.matching import Mismatch
from sluice_router.snapshot import RouterSnapshot
from sluice_router.ticket import Desk, Notify, Ticket
from sluice_router.types import Endpoint, EngineLoad, FailureClass, RequestFacts


class Hedging(Protocol):
    """See `hedging.Hedges`."""

    def due_at(self, ticket: Ticket, now: float) -> float | None:
        """See `Hedges.due_at`."""
        ...

    def begin(self, ticket: Ticket, now: float) -> Endpoint | None:
        """See `Hedges.begin`."""
        ...

    def won(self, ticket: Ticket, now: float) -> None:
        """See `Hedges.won`."""
        ...

    def failed(self, ticket: Ticket, failure: FailureClass, now: float) -> None:
        """See `Hedges.failed`."""
        ...


class Routing(Desk, Protocol):
    """See `router.Router`."""

    @property
    def hedges(self) -> Hedging:
        """See `Router.hedges`."""
        ...

    @property
    def endpoints(self) -> int:
        """See `Router.endpoints`."""
        ...

    def backends(self) -> tuple[str, ...]:
        """See `Router.backends`."""
        ...

    def models(self, backend: str | None = None) -> tuple[str, ...]:
        """See `Router.models`."""
        ...

    def mismatch(self, facts: RequestFacts) -> Mismatch | None:
        """See `Router.mismatch`."""
        ...

    def snapshot(self) -> RouterSnapshot:
        """See `Router.snapshot`."""
        ...

    def details(self, now: float) -> RouterDetails:
        """See `Router.details`."""
        ...

    def admit(self, facts: RequestFacts, now: float, notify: Notify) -> Ticket:
        """See `Router.admit`."""
        ...

    def expire(self, now: float) -> float | None:
        """See `Router.expire`."""
        ...

    def set_health(self, endpoint_id: str, healthy: bool, now: float) -> None:
        """See `Router.set_health`."""
        ...

    def set_draining(self, endpoint_id: str, draining: bool, now: float) -> None:
        """See `Router.set_draining`."""
        ...

    def force_breaker(self, endpoint_id: str, state: BreakerState | None, now: float) -> None:
        """See `Router.force_breaker`."""
        ...

    def set_models(self, endpoint_id: str, models: Sequence[str], now: float) -> None:
        """See `Router.set_models`."""
        ...

    def set_quant(self, endpoint_id: str, quant: str, now: float) -> None:
        """See `Router.set_quant`."""
        ...

    def record_load(self, endpoint_id: str, load: EngineLoad, now: float) -> None:
        """See `Router.record_load`."""
        ...
