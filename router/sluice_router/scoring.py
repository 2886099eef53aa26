"""What a candidate would cost a prompt: the product of its work ahead and its batch, and a barrier.

    (tokens queued before + new tokens) * (requests on it + 1) + barrier(KV use)

New tokens are those of the prompt that its cache does not have. Without any weight to be set, the product
prefers a cached prefix where loads are alike and an idle endpoint where they are not. Both factors are
relative to the endpoint's size, and divided by its warmth: an endpoint that has just come back gets a tenth
of its load at first, then more and more for `SLOW_START_S` (Envoy's slow start). The barrier grows without
bound as the KV cache fills, when requests would be put off in the middle. Where an engine does not tell its
KV use, it is taken to be like that of the other candidates: unknown is neither empty nor full.

Sources: *LMetric*, 2026, for the product; the router SMG for the barrier, 0.15 s * k / (1 - k), which at the
8,000 tokens a second of its reference engine is `BARRIER` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sluice_router.replica import Replica

FIRST, SECOND, WIDER = "first", "second", "wider"
OWNER = "owner"
DRAWN = "drawn"

SIZE = 64
"""Requests at once that an endpoint is scored by; others are larger or smaller than that."""
BARRIER = 1200.0
FULLEST = 0.99
"""KV use above which the barrier grows no further."""
SLOW_START_S = 30.0
COOLEST = 0.1


class Considered(NamedTuple):
    """One candidate, before the scores can be compared."""

    replica: Replica
    why: str
    """`first`, `second` or `wider`: by the key; `owner`: computed the prefix lately; `drawn`: by chance."""
    hit_tokens: int
    """Prompt tokens expected in its cache."""
    new_tokens: int
    """Those to be computed, but for what is hot and only has to be computed once."""
    queued_tokens: int
    running: int
    kv_used_ratio: float | None


class Score(NamedTuple):
    """What one candidate was found to be, for people who ask why."""

    endpoint: str
    why: str
    """See `Considered`."""
    hit_tokens: int
    """Prompt tokens expected in its cache."""
    queued_tokens: int
    running: int
    kv_used_ratio: float | None
    warmth: float
    score: float
    """The lowest wins, unless it has just failed."""


def scores(considered: Sequence[Considered], now: float) -> list[Score]:
    """In the same order."""
    usual = _usual_kv(considered)
    return [_score(one, usual, now) for one in considered]


def warmth(recovered_at: float, now: float) -> float:
    """The share of its load that an endpoint gets, `COOLEST` to 1."""
    return min(1.0, max(COOLEST, (now - recovered_at) / SLOW_START_S))


def barrier(kv_used_ratio: float) -> float:
    """In tokens."""
    used = min(FULLEST, max(0.0, kv_used_ratio))
    return BARRIER * used / (1.0 - used)


def _score(one: Considered, usual_kv: float, now: float) -> Score:
    endpoint = one.replica.endpoint
    warm = warmth(one.replica.recovered_at, now)
    batch = (one.running + 1) * SIZE / endpoint.max_in_flight
    kv = usual_kv if one.kv_used_ratio is None else one.kv_used_ratio
    cost = (one.queued_tokens + one.new_tokens) * batch + barrier(kv)
    return Score(
        endpoint.id,
        one.why,
        one.hit_tokens,
        one.queued_tokens,
        one.running,
        one.kv_used_ratio,
        warm,
        cost / warm,
    )


def _usual_kv(considered: Sequence[Considered]) -> float:
    known = [one.kv_used_ratio for one in considered if one.kv_used_ratio is not None]
    return sum(known) / len(known) if known else 0.0
