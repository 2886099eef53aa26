"""Objectives with a name: those of MLPerf Inference v5.1, as its rule sets have them.

Each caps the p99 of TTFT and the p99 of TPOT, both from the time at which the request was due. A run is held
against a profile as a whole; the same two numbers make a per-request objective for goodput, which is
stricter, since every request must meet it there and only 99 in 100 here.
"""

from __future__ import annotations

import math

import msgspec


class SloProfile(msgspec.Struct, frozen=True):
    """Caps on a percentile, milliseconds; `None` caps nothing."""

    name: str
    ttft_ms: float | None
    tpot_ms: float | None
    share: float = 0.99

    def strain(self, ttft_ms: float | None, tpot_ms: float | None) -> float:
        """The larger of the two percentiles by its cap: the profile is met up to 1. Unknown is infinite."""
        return max(_strain(ttft_ms, self.ttft_ms), _strain(tpot_ms, self.tpot_ms))


def _strain(value_ms: float | None, cap_ms: float | None) -> float:
    if cap_ms is None:
        return 0.0
    return math.inf if value_ms is None else value_ms / cap_ms


PROFILES = (
    SloProfile("llama-3.1-8b-server", 2000, 100),
    SloProfile("llama-3.1-8b-interactive", 500, 30),
    SloProfile("llama-2-70b-server", 2000, 200),
    SloProfile("llama-2-70b-interactive", 450, 40),
    SloProfile("mixtral-8x7b-server", 2000, 200),
    SloProfile("llama-3.1-405b-server", 6000, 175),
    SloProfile("llama-3.1-405b-interactive", 4500, 80),
    SloProfile("deepseek-r1-server", 2000, 80),
)


def profile_named(name: str) -> SloProfile:
    """Raises `ValueError`, naming those there are."""
    for profile in PROFILES:
        if profile.name == name:
            return profile
    known = ", ".join(profile.name for profile in PROFILES)
    raise ValueError(f"there is no SLO profile {name!r}; there are {known}")
