"""Figures as text: how many digits, how a spread is shown, and when a repeat counts as disturbed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

DISTURBED_CORES = 0.2
"""Above this much foreign CPU a repeat counts as disturbed."""


def spread(values: Sequence[float]) -> str:
    """Median with the smallest and the largest in brackets."""
    if not values:
        return "–"
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def number(value: float) -> str:
    """With three digits or so, and separators for thousands."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
