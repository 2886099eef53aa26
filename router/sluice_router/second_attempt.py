"""What a request's second attempt holds of its endpoint while its first one runs (`hedging.py`)."""

from __future__ import annotations

from sluice_router.scoring import Score
from sluice_router.shelf import Lane
from sluice_router.types import Endpoint
from sluice_router.work_ledger import Lease


class SecondAttempt:
    """A placement beside a ticket's own. Only `hedging.py` changes tickets by it."""

    __slots__ = ("endpoint", "hit_tokens", "lane", "lease", "permit", "reason", "scores")

    def __init__(
        self,
        endpoint: Endpoint,
        lease: Lease,
        permit: int,
        lane: Lane,
        reason: str,
        hit_tokens: int,
        scores: tuple[Score, ...],
    ) -> None:
        self.endpoint = endpoint
        self.lease = lease
        self.permit = permit
        """What the endpoint's breaker let it pass with."""
        self.lane = lane
        """Ids of the endpoints that could have had it."""
        self.reason = reason
        self.hit_tokens = hit_tokens
        self.scores = scores
