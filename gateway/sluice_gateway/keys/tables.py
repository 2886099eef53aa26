"""Tables of tenants, keys, their secrets, and the audit log.

A key may have several secrets at once, of which all but the newest have an end: that is rotation with
overlap. Only digests are kept. Revoked keys stay, so that old log lines and usage can still be told whose
they were. Every change raises `key_version` in its own transaction, which is what makes processes look again.
Times are seconds since 1970.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
)

from sluice_gateway.store.schema import METADATA

TENANTS = Table(
    "tenants",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("description", Text, nullable=False),
    Column("limits", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

KEYS = Table(
    "keys",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(64), nullable=False, index=True),
    Column("description", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("limits", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
)
"""A tenant need not be in the store: it may be one of the configuration file's."""

SECRETS = Table(
    "key_secrets",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("key", String(64), ForeignKey("keys.id"), nullable=False, index=True),
    Column("hint", String(8), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
)
"""`hint`: the last characters, by which a holder of several keys finds the right one."""

KEY_VERSION = Table(
    "key_version",
    METADATA,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("keyed", Boolean(create_constraint=False), nullable=False),
)
"""One row at most. `keyed`: whether there ever was a key, which ends open mode for good."""

AUDIT = Table(
    "audit",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("request_id", Text),
)
