"""Named objectives."""

from __future__ import annotations

import math

import pytest

from sluice_bench.stats.slo_profiles import PROFILES, profile_named


@pytest.mark.parametrize(
    ("name", "ttft_ms", "tpot_ms"),
    [
        ("llama-3.1-8b-server", 2000, 100),
        ("llama-3.1-8b-interactive", 500, 30),
        ("llama-2-70b-server", 2000, 200),
        ("llama-2-70b-interactive", 450, 40),
        ("mixtral-8x7b-server", 2000, 200),
        ("llama-3.1-405b-server", 6000, 175),
        ("llama-3.1-405b-interactive", 4500, 80),
        ("deepseek-r1-server", 2000, 80),
    ],
)
def test_the_limits_are_those_of_mlperf(name: str, ttft_ms: float, tpot_ms: float) -> None:
    profile = profile_named(name)
    assert (profile.ttft_ms, profile.tpot_ms, profile.share) == (ttft_ms, tpot_ms, 0.99)


def test_a_profile_is_met_up_to_its_caps() -> None:
    profile = profile_named("llama-3.1-8b-interactive")
    assert profile.strain(500, 30) == 1
    assert profile.strain(250, 45) == 1.5
    assert profile.strain(1000, 3) == 2
    assert profile.strain(None, 3) == profile.strain(3, None) == math.inf


def test_an_unknown_profile_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="deepseek-r1-server"):
        profile_named("gpt")
    assert len({profile.name for profile in PROFILES}) == len(PROFILES)
