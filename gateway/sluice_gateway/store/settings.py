"""The `store` section of `sluice.yaml`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sluice_gateway.settings_base import Section


class StoreSettings(Section, frozen=True, kw_only=True):
    """Where keys, usage, stored responses, files and batches are kept. No request waits for it."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            description="`sqlite:///path` (relative to the working directory; four slashes for an absolute"
            " path) or, for several gateways, `postgresql://user:password@host/name`, which needs"
            " `sluice-gateway[postgres]`. The environment variable `SLUICE_STORE_URL` wins over it.",
        ),
    ] = "sqlite:///.sluice/sluice.db"
