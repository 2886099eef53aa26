"""The section `responses` of `sluice.yaml`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sluice_gateway.settings_base import Section


class ResponsesSettings(Section, frozen=True, kw_only=True):
    """What the Responses API (`/v1/responses`) keeps."""

    store: Annotated[
        bool,
        Meta(
            description="Whether responses are kept at all. Without, `previous_response_id`, background"
            " responses and retrieval are refused, as if every request said `store: false`."
        ),
    ] = True
    ttl_days: Annotated[
        float,
        Meta(
            gt=0,
            description="A response that nobody has continued for this long is forgotten, with its input.",
        ),
    ] = 30.0
    max_stored_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="A larger response, its own input items included, is answered but not kept.",
        ),
    ] = 16_777_216
