"""The router's state at one moment, as values: for metrics and the admin view."""

from __future__ import annotations

import msgspec

from sluice_router.breaker import BreakerState
from sluice_router.types import Endpoint, EngineLoad, Outcome, Usage


class ReplicaSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint's state at one moment, for metrics and the admin view."""

    endpoint: Endpoint
    """With the models last discovered."""
    healthy: bool
    draining: bool
    """Gets no new requests by somebody's wish."""
    breaker: BreakerState
    breaker_forced: bool
    """Somebody set the breaker's state by hand."""
    failures: int
    """Failures in a row that the breaker counted."""
    in_flight: int
    load: EngineLoad | None
    """The last reading, however old; `None` before the first."""
    load_at: float | None
    """When it was taken, on the router's clock."""
    mean_service_s: float | None
    """Moving average from placement to settlement; `None` before the first settlement."""
    settled: int
    """Requests that gave their slot back, whatever their end."""
    usage: Usage
    """Sum of all settled usages."""


class RouterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The router's state at one moment, for metrics and the admin view."""

    replicas: tuple[ReplicaSnapshot, ...]
    """In the order of the configuration."""
    waiting: int
    admitted: int
    """Tickets issued since the start, refused ones included."""
    retries: int
    """Attempts after a request's first one."""
    outcomes: dict[Outcome, int]
    """Closed tickets by outcome; every outcome has an entry."""
