"""Rate-limit headers, as the clients of two families read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_gateway.limits.headers import RATE_HEADERS, duration, level, rate_limit_headers
from sluice_gateway.limits.types import NO_RATES, RateState

STATE = RateState(at_us=1_790_000_000_000_001, requests=level(60, 1_000_000), tokens=level(1000, 90_000_000))


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, b"0s"),
        (1, b"1ms"),
        (20_000, b"20ms"),
        (999_001, b"1s"),
        (1_500_000, b"1.5s"),
        (1_050_000, b"1.05s"),
        (60_000_000, b"1m0s"),
        (360_000_000, b"6m0s"),
        (59_999_001, b"1m0s"),
        (3_600_000_000, b"1h0m0s"),
        (90_061_250_000, b"25h1m1.25s"),
    ],
)
def test_durations_are_written_as_go_writes_them(microseconds: int, text: bytes) -> None:
    assert duration(microseconds) == text


@given(st.integers(0, 10**12))
def test_a_duration_read_back_is_never_too_short(microseconds: int) -> None:
    text = duration(microseconds).decode()
    units = {"h": 3600e6, "m": 60e6, "s": 1e6, "ms": 1e3}
    read = sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text))
    assert -1 < read - microseconds < 1001


def test_openais_names() -> None:
    found = {name.decode(): value.decode() for name, value in rate_limit_headers(STATE)}
    assert tuple(found) == RATE_HEADERS
    assert found == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m30s",
    }


def test_anthropics_names() -> None:
    found = {name.decode(): value.decode() for name, value in rate_limit_headers(STATE, "anthropic")}
    assert found == {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "59",
        "anthropic-ratelimit-requests-reset": "2026-09-21T14:13:22Z",
        "anthropic-ratelimit-tokens-limit": "1000",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2026-09-21T14:14:51Z",
    }


def test_what_is_not_limited_has_no_headers() -> None:
    assert rate_limit_headers(NO_RATES) == ()
    assert rate_limit_headers(NO_RATES, "anthropic") == ()
