"""Classes of urgency, and how they share a queue without starving each other.

Requests are served by earliest virtual deadline: the time of arrival plus a share of the queue timeout that
depends on the class. So a more urgent request goes before a less urgent one that came at most that much
earlier, and never before one that came earlier still. The shares are below 1: whoever has waited for almost
the whole timeout goes before everybody who arrives now, whatever the class. Source: earliest deadline first,
Liu and Layland, 1973.
"""

from __future__ import annotations

from collections.abc import Mapping

from sluice_router.queue import Place
from sluice_router.types import PRIORITIES

PATIENCE: Mapping[str, float] = {"interactive": 0.0, "default": 0.25, "bulk": 0.75}
"""How long a class gives way to newer, more urgent requests, as a share of the queue timeout."""

BANDS: Mapping[str, int] = {name: index for index, name in enumerate(PRIORITIES)}
"""The classes as numbers, 0 the most urgent."""


def place(priority: str, now: float, queue_timeout_s: float, order: int) -> Place:
    """Where a request that arrives now belongs in the queue; `order` decides among equals."""
    return now + PATIENCE[priority] * queue_timeout_s, order
