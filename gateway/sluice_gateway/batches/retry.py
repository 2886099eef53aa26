"""Which answers to a batch's request are only a "not now", and when to ask again."""

from __future__ import annotations

from sluice_gateway.batches.runner_types import CollectedAnswer

_FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 60.0
_NOT_NOW = frozenset({429, 503})
"""Limits and lack of room: they pass."""
_BROKEN = frozenset({502, 504})
"""An engine failed, which may be the request's doing."""
_ATTEMPTS = 5


def delay_s(answer: CollectedAnswer, attempt: int) -> float | None:
    """Seconds until the next attempt; `None` when the answer is final. `attempt` counts from 1."""
    if answer.headers.get(b"x-should-retry") == b"false":
        return None
    if answer.status not in _NOT_NOW and (answer.status not in _BROKEN or attempt >= _ATTEMPTS):
        return None
    asked_s = _number(answer.headers.get(b"retry-after-ms"), 0.001) or _number(
        answer.headers.get(b"retry-after"), 1.0
    )
    # 2 ** 16 halves of a second are more than the longest delay.
    wait_s = asked_s or _FIRST_DELAY_S * 2 ** min(attempt - 1, 16)
    return min(wait_s, LONGEST_DELAY_S)


def _number(value: bytes | None, unit_s: float) -> float | None:
    return int(value) * unit_s if value is not None and value.isdigit() else None
