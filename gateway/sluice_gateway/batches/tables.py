"""The table of batches, and one batch as the rest of the gateway knows it.

Times are seconds since 1970. A batch that is not yet at its end belongs to the process whose `lease_owner` it
names, until `lease_until`; `epoch` counts how often it has changed hands.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from sqlalchemy import BigInteger, Column, Double, Index, Integer, Table, Text

from sluice_gateway.store.schema import METADATA

Status = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
]
Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
"""What the requests of a batch may ask for."""
UNFINISHED: tuple[Status, ...] = ("validating", "in_progress", "finalizing", "cancelling")
"""Somebody has to work on it."""

BATCHES = Table(
    "batches",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("holder", Text),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("metadata", Text),
    Column("results_lifetime_s", Integer),
    Column("status", Text, nullable=False),
    Column("model", Text),
    Column("errors", Text),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("usage", Text),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("in_progress_at", BigInteger),
    Column("finalizing_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("expired_at", BigInteger),
    Column("cancelling_at", BigInteger),
    Column("cancelled_at", BigInteger),
    Column("epoch", Integer, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Double, nullable=False),
    Index("ix_batches_tenant_created_us", "tenant", "created_us"),
    Index("ix_batches_status", "status"),
)


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch cannot be run; OpenAI's `BatchError`."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    """From 1."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One batch, as stored."""

    id: str
    tenant: str
    key_id: str
    """The key that made it: it pays, and its limits hold."""
    holder: str | None = None
    """JSON of the `Key`, when it cannot be looked up by its id: the holder of a signed token."""
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: str | None = None
    """JSON."""
    results_lifetime_s: int | None = None
    """How long its results are kept; `None`: as long as other files."""
    status: Status = "validating"
    model: str | None = None
    """The one that all its requests ask for, if they do."""
    errors: str | None = None
    """JSON: a list of `LineError`."""
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: str | None = None
    """JSON: OpenAI's `BatchUsage`."""
    created_us: int
    expires_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    epoch: int = 0
    lease_owner: str | None = None
    lease_until: float = 0.0

    def to_openai(self) -> dict[str, Any]:
        """OpenAI's batch object."""
        errors = msgspec.json.decode(self.errors) if self.errors else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_us // 1_000_000,
            **{name: getattr(self, name) for name in _TIMES},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": msgspec.Raw(self.usage.encode()) if self.usage else None,
            "metadata": msgspec.Raw(self.metadata.encode()) if self.metadata else None,
        }


_TIMES = (
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
