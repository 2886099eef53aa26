"""What is known of one request while it is on its way: the mutable record that log and metrics are made of.

Stages fill in what they find out; nobody decides by it. It never holds a secret, a prompt or an answer.
"""

from __future__ import annotations

from sluice_gateway.errors import Failure
from sluice_gateway.routes import Kind
from sluice_router.types import Usage

OK = "ok"


class Exchange:
    """One request's record."""

    __slots__ = (
        "attempts",
        "backend",
        "duration_s",
        "endpoint",
        "failure",
        "first_token_s",
        "key_id",
        "kind",
        "model",
        "path",
        "queued_s",
        "request_id",
        "started_s",
        "status",
        "stream",
        "tenant",
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
        self.backend = ""
        """The backend that served, or was tried last."""
        self.endpoint = ""
        self.stream = False
        self.attempts = 0
        self.queued_s = 0.0
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

    @property
    def outcome(self) -> str:
        """`ok`, or the failure's name: a metric label."""
        return self.failure.value if self.failure else OK
