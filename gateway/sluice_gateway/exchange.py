"""What is known of one request while it is on its way: the mutable record that log, metrics, ledger and trace
are made of.

Stages fill in what they find out; nobody decides by it. It never holds a secret, a prompt or an answer.
"""

from __future__ import annotations

from sluice_gateway.errors import Failure
from sluice_gateway.limits.types import FREE, Price
from sluice_gateway.routes import Kind
from sluice_router.types import Usage

OK = "ok"


class Exchange:
    """One request's record."""

    __slots__ = (
        "attempts",
        "backend",
        "cache",
        "cost",
        "duration_s",
        "endpoint",
        "failure",
        "first_token_s",
        "key_id",
        "kind",
        "limits_mode",
        "model",
        "path",
        "price",
        "quant",
        "queued_s",
        "request_id",
        "route",
        "started_s",
        "status",
        "stream",
        "tenant",
        "traceparent",
        "upstream_s",
        "usage",
        "usage_is_exact",
    )

    def __init__(self, request_id: str, kind: Kind, path: str, started_s: float) -> None:
        self.request_id = request_id
        self.kind = kind
        self.path = path
        self.started_s = started_s
        """On the gateway's monotonic clock, as all times here."""
        self.key_id = ""
        self.tenant = ""
        self.model = ""
        """As the client wrote it."""
        self.backend = ""
        """The backend that served, or was tried last."""
        self.endpoint = ""
        self.quant = ""
        self.route = ""
        """How the router came to its decision, in a few words."""
        self.stream = False
        self.attempts = 0
        self.queued_s = 0.0
        self.upstream_s = 0.0
        """Spent waiting for engines: from sending a request to the head of its answer, all attempts."""
        self.first_token_s: float | None = None
        """Seconds from the start until the first content went to the client."""
        self.duration_s = 0.0
        """Known once the request has ended."""
        self.status = 0
        """What the client saw; 499 when it saw nothing."""
        self.failure: Failure | None = None
        self.usage: Usage | None = None
        self.usage_is_exact = False
        """The engine reported it; otherwise it was counted from what went by."""
        self.price: Price = FREE
        self.cost = 0.0
        """Money, by the price table; known once the request has ended."""
        self.cache = ""
        """`hit`, `miss`, `replayed` or `attached` when an answer kept earlier was looked for."""
        self.limits_mode = ""
        """Which mode of the limits served, when it was not the usual one."""
        self.traceparent = ""
        """The client's, when it sent one."""

    @property
    def outcome(self) -> str:
        """`ok`, or the failure's name: a metric label."""
        return self.failure.value if self.failure else OK
