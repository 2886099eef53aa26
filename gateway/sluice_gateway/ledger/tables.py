"""The ledger's table.

A row's identity is the process run that wrote it and its number in that run, given before it first reaches a
disk: a row that is stored twice, because a crash came between commit and forgetting, is there once. Money is
in billionths of the price table's currency, so that the cost of one cheap token is not rounded to nothing and
sums are exact. Times of day are milliseconds since 1970, durations microseconds.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text

from sluice_gateway.store.schema import METADATA

NANO = 1_000_000_000
"""Billionths in one."""

USAGE = Table(
    "usage",
    METADATA,
    Column("writer", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("quant", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("cache", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("usage_exact", Boolean(create_constraint=False), nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("queue_us", BigInteger, nullable=False),
    Column("first_token_us", BigInteger),
    Column("total_us", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("stream", Boolean(create_constraint=False), nullable=False),
    Index("ix_usage_time_ms", "time_ms"),
)
