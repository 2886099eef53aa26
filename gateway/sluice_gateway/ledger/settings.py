"""The `ledger` section of `sluice.yaml`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sluice_gateway.settings_base import Count, Section


class LedgerSettings(Section, frozen=True, kw_only=True):
    """What every request used and cost, one row each, for `sluice usage` and `/admin/v1/usage`."""

    enabled: Annotated[bool, Meta(description="Whether requests are written down.")] = True
    retention_days: Annotated[
        Count | None,
        Meta(description="Rows older than this are deleted, a few thousand at a time. `null` keeps them."),
    ] = 90
    journal_folder: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where rows wait for the database, safe from a crash of the gateway. Gateways may"
            " share it. Relative to the working directory.",
        ),
    ] = ".sluice/ledger"
    max_journal_bytes: Annotated[
        int,
        Meta(
            ge=1_048_576,
            description="How much may wait while the database cannot be reached; about 200 bytes a request."
            " Past it the oldest rows are dropped, counted and logged. Requests never wait.",
        ),
    ] = 268_435_456
