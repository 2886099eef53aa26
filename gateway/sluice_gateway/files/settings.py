"""The `files` section of `sluice.yaml`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sluice_gateway.settings_base import Count, Section


class FilesSettings(Section, frozen=True, kw_only=True):
    """Where `/v1/files` and the results of batches are kept."""

    dir: Annotated[
        str,
        Meta(
            min_length=1,
            description="Folder for their content, made if need be. Several gateways on one store need"
            " one that they share.",
        ),
    ] = ".sluice/files"
    max_bytes: Annotated[Count, Meta(description="A larger upload gets 413.")] = 536_870_912
    ttl_days: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="A file is deleted this long after it was made, unless its upload said otherwise"
            " (`expires_after`). Null: only when it is asked for."
        ),
    ] = 30.0
