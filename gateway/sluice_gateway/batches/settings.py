"""The `batches` section of `sluice.yaml`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sluice_gateway.settings_base import Count, Section


class BatchesSettings(Section, frozen=True, kw_only=True):
    """How `/v1/batches` are run. Their requests have priority `bulk`, and the limits of the key that made
    them."""

    concurrency: Annotated[
        Count,
        Meta(description="Requests of batches that one gateway process runs at once, over all batches."),
    ] = 4
