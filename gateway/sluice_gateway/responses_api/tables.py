"""Tables of stored responses.

A response holds its own input items only: the conversation is the chain of `previous_response_id`. `response`
and `input_items` are JSON, bytes because a text column of PostgreSQL refuses the character NUL that JSON may
hold. Times are seconds since 1970.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, ForeignKey, Integer, LargeBinary, String, Table

from sluice_gateway.store.schema import METADATA

RESPONSES = Table(
    "responses",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("previous_response_id", String(64)),
    Column("status", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
    Column("alive_at", Double, nullable=False),
    Column("streamed", Boolean(create_constraint=False), nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("input_items", LargeBinary, nullable=False),
)
"""`alive_at`: when the process that runs a background response last said so. `streamed`: its events are kept
below."""

EVENTS = Table(
    "response_events",
    METADATA,
    Column("response_id", String(64), ForeignKey("responses.id", ondelete="CASCADE"), primary_key=True),
    Column("first_sequence", Integer, primary_key=True, autoincrement=False),
    Column("events", LargeBinary, nullable=False),
)
"""Events of background responses, in runs of consecutive ones, framed as they were sent."""
