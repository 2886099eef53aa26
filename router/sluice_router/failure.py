"""What follows from a failure: may the request be tried elsewhere, and does the endpoint stand accused?

The docstrings of `types.FailureClass` are the rule; this is the same as data, with the numbers that bound it.
A class is neutral when it says nothing of the endpoint's state: the breaker then neither counts nor forgives.
"""

from __future__ import annotations

import msgspec

from sluice_router.types import FailureClass

_RETRIED = frozenset(
    {FailureClass.UNREACHABLE, FailureClass.BROKEN, FailureClass.OVERLOADED, FailureClass.CREDENTIAL}
)
_COUNTED = frozenset(
    {
        FailureClass.UNREACHABLE,
        FailureClass.BROKEN,
        FailureClass.FAULT,
        FailureClass.CREDENTIAL,
        FailureClass.TIMEOUT,
    }
)


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    """How failures are answered."""

    max_attempts: int = 3
    """Times one request may be placed."""
    retry_ratio: float = 0.2
    """Retries, as a share of the recent requests, that all requests together may cause."""
    retry_floor: float = 10.0
    """Retries per window that are allowed however few requests there were."""
    retry_window_s: float = 10.0
    """How long a request or a retry counts as recent: the time constant of an exponential decay."""
    avoid_s: float = 1.0
    """After a failure the endpoint is chosen last for this long: others need not find out by failing too."""
    breaker_failures: int = 5
    """Counted failures in a row that open an endpoint's breaker."""
    breaker_open_s: float = 5.0
    """First time a breaker stays open; doubles each time its probe fails."""
    breaker_max_open_s: float = 60.0
    """Where the doubling ends; the jitter is on top."""


def may_retry(failure: FailureClass) -> bool:
    """Whether another endpoint may succeed where this one failed."""
    return failure in _RETRIED


def counts(failure: FailureClass) -> bool:
    """Whether the failure is held against the endpoint."""
    return failure in _COUNTED


def is_the_endpoints(failure: FailureClass) -> bool:
    """Whether the endpoint had a part in it, be it only that it is overloaded."""
    return failure in _COUNTED or failure in _RETRIED
