"""The table of files, and one file as the rest of the gateway knows it."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Index, Table, Text

from sluice_gateway.store.schema import METADATA

FILES = Table(
    "files",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Index("ix_files_tenant_created_us", "tenant", "created_us"),
    Index("ix_files_expires_at", "expires_at"),
)


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file. A row exists only once its content is complete on disk."""

    id: str
    tenant: str
    """Whose it is: nobody else gets to know that it exists."""
    key_id: str
    """The key it came with."""
    filename: str
    purpose: str
    bytes: int
    sha256: str
    """Of the content, in hexadecimal."""
    created_us: int
    """Microseconds since 1970, so that files have an order."""
    expires_at: int | None
    """Seconds since 1970; from then on it is as good as deleted."""

    def to_openai(self) -> dict[str, Any]:
        """OpenAI's file object."""
        shown: dict[str, Any] = {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_us // 1_000_000,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }
        return shown if self.expires_at is None else {**shown, "expires_at": self.expires_at}
