"""What a limiter counts about itself, for the metrics to read. Label values are few and fixed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sluice_gateway.limits.buckets import Dimension

LimiterMode = Literal["memory", "redis", "degraded"]
"""`degraded`: Redis cannot be asked, `when_redis_is_down` holds."""

_NAMES = {
    Dimension.REQUESTS: "requests",
    Dimension.TOKENS: "tokens",
    Dimension.CONCURRENT: "concurrent",
    Dimension.DAY: "budget",
    Dimension.MONTH: "budget",
}


@dataclass
class LimiterCounters:
    """Written by one limiter, read at each scrape."""

    mode: LimiterMode
    errors: int = 0
    """Calls to the shared store that failed, those that a request did not notice included."""
    lost: int = 0
    """Settlements given up because the journal was full."""
    refused: dict[str, int] = field(default_factory=dict)
    """Refusals by the limit that bound, e.g. `key_requests`, `tenant_budget`, `gateway_concurrent`."""

    def count_refusal(self, kind: str, dimension: Dimension) -> None:
        """One more refusal by a subject's limit."""
        name = f"{kind}_{_NAMES[dimension]}"
        self.refused[name] = self.refused.get(name, 0) + 1
