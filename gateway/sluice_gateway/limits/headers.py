"""The limits as they stand, as OpenAI's and Anthropic's clients read them from response headers.

Of several subjects the tightest is shown: the one with the least left. A reset is the time until the bucket
is full again. Sources: OpenAI's rate-limit guide (durations as Go writes them), Anthropic's API reference
(times as RFC 3339).
"""

from __future__ import annotations

import datetime
from typing import Literal

from sluice_gateway.limits.bounds import WINDOW_US
from sluice_gateway.limits.types import Level, RateState
from sluice_gateway.wire import Header

Family = Literal["openai", "anthropic"]

RATE_HEADERS = tuple(
    f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)
ANTHROPIC_RATE_HEADERS = tuple(
    f"anthropic-ratelimit-{of}-{what}"
    for of in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
)
MODE = "x-sluice-limits"
"""Says which mode decided while the shared store could not be asked."""

SHOULD_RETRY = "x-should-retry"
"""What OpenAI's SDKs obey above all else."""

_OPENAI_PREFIX = b"x-ratelimit-"
_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000


def level(limit: int, used_us: int) -> Level:
    """A bucket that is `used_us` away from being full of room."""
    remaining = max(0, (WINDOW_US - used_us) * limit // WINDOW_US)
    return Level(limit, remaining, used_us)


def tighter(one: Level | None, other: Level) -> Level:
    """The one with less left."""
    return other if one is None or other.remaining < one.remaining else one


def rate_limit_headers(state: RateState, family: Family = "openai") -> tuple[Header, ...]:
    """The headers for clients of a family."""
    if family == "anthropic":
        return _anthropic(state)
    requests, tokens = state.requests, state.tokens
    headers: tuple[Header, ...] = ()
    if requests is not None:
        headers = (
            (b"x-ratelimit-limit-requests", b"%d" % requests.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % requests.remaining),
            (b"x-ratelimit-reset-requests", duration(requests.reset_us)),
        )
    if tokens is not None:
        headers += (
            (b"x-ratelimit-limit-tokens", b"%d" % tokens.limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % tokens.remaining),
            (b"x-ratelimit-reset-tokens", duration(tokens.reset_us)),
        )
    return headers


def for_anthropic(headers: tuple[Header, ...], state: RateState) -> tuple[Header, ...]:
    """The headers of a lease or a refusal, made for OpenAI's clients, as Anthropic's read them."""
    others = (header for header in headers if not header[0].startswith(_OPENAI_PREFIX))
    return (*rate_limit_headers(state, "anthropic"), *others)


def _anthropic(state: RateState) -> tuple[Header, ...]:
    headers: list[Header] = []
    for name, found in ((b"requests", state.requests), (b"tokens", state.tokens)):
        if found is not None:
            headers += [
                (b"anthropic-ratelimit-%s-limit" % name, b"%d" % found.limit),
                (b"anthropic-ratelimit-%s-remaining" % name, b"%d" % found.remaining),
                (b"anthropic-ratelimit-%s-reset" % name, _rfc3339(state.at_us + found.reset_us)),
            ]
    return tuple(headers)


def duration(microseconds: int) -> bytes:
    """As Go writes it, in whole milliseconds, rounded up: `0s`, `20ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    ms = -(-microseconds // 1000)
    if ms < 1000:
        return b"%dms" % ms if ms else b"0s"
    if ms < _MINUTE_MS:
        return _seconds(ms)
    minutes, rest = divmod(ms, _MINUTE_MS)
    if ms < _HOUR_MS:
        return b"%dm%s" % (minutes, _seconds(rest))
    return b"%dh%dm%s" % (*divmod(minutes, 60), _seconds(rest))


def _seconds(ms: int) -> bytes:
    whole, fraction = divmod(ms, 1000)
    return b"%d.%ss" % (whole, (b"%03d" % fraction).rstrip(b"0")) if fraction else b"%ds" % whole


def _rfc3339(microseconds: int) -> bytes:
    whole = -(-microseconds // 1_000_000)
    return datetime.datetime.fromtimestamp(whole, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
