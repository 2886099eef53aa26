"""The section `tracing`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sluice_gateway.settings_base import ProxyUrl, Section


class Tracing(Section, frozen=True, kw_only=True):
    """Traces for an OpenTelemetry collector. Prompts and answers are never in them."""

    otlp_endpoint: Annotated[
        ProxyUrl | None,
        Meta(
            description="Base URL of a collector's OTLP/HTTP receiver, e.g. `http://localhost:4318`."
            " Absent: no traces; a client's trace context is still passed to the engine."
        ),
    ] = None
    sample_ratio: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of requests without a trace context of their own that are traced. A client's"
            " own decision, in `traceparent`, wins.",
        ),
    ] = 0.01
    service_name: Annotated[str, Meta(description="`service.name` of the spans.")] = "sluice-gateway"
