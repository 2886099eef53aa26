"""W3C trace context: what a client sends, and whether its request is traced.

The decision is made from the header's bytes, before any span exists: a request that is not sampled pays a
dict look-up and a comparison. Source: W3C Trace Context, level 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """The client's span."""

    trace_id: int
    span_id: int
    sampled: bool


def parse_traceparent(header: bytes) -> Parent | None:
    """The parent in a `traceparent` header; `None` when it is not valid, which counts as absent."""
    found = _TRACEPARENT.fullmatch(header)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if trace_id == 0 or span_id == 0:
        return None
    return Parent(trace_id=trace_id, span_id=span_id, sampled=bool(int(found[4], 16) & _SAMPLED))


class Sampler:
    """Decides which requests are traced."""

    def __init__(self, ratio: float, random: Callable[[], float]) -> None:
        """`ratio` of the requests whose client did not decide; `random` gives numbers from 0 to 1."""
        self._ratio = ratio
        self._random = random

    def decide(self, header: bytes | None) -> tuple[bool, Parent | None]:
        """Whether to trace, and under which parent."""
        parent = parse_traceparent(header) if header is not None else None
        if parent is not None:
            return parent.sampled, parent
        return self._random() < self._ratio, None
