"""Traffic shaped after published traces: lengths, prefix reuse and arrivals. Never the traces themselves.

What is published of each trace is under `published`, by the name of the statistic; what a plan achieves is
computed by `preset_plan.achieved` under the same names, to be printed beside it. Values that are in a preset
and not under `published` were chosen so that the published ones come out, or because nothing is known.

The text is the corpus'. What is not modelled: the time of day, tenants, and how reuse is spread over time (a
cache too small for everything is treated more kindly, or less, than by the trace).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from sluice_bench.workloads.lengths import Lengths

PresetName = Literal[
    "chat-azure24",
    "code-azure23-spiky",
    "burstgpt-api",
    "kimi-conv",
    "kimi-toolagent",
    "qwen-api",
    "reasoning",
    "agent-coding",
    "b2b-prefix",
]


class Prefixes(msgspec.Struct, frozen=True, kw_only=True):
    """Each prompt begins as others of its group do: for `share` of its length."""

    groups: int
    share: float
    skew: float = 1.0
    """Group k of the ranking is asked in proportion to `1 / k ** skew`."""


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """Each prompt is the one before, its answer, and something new; at the cap the session starts over."""

    at_once: int
    median_rounds: float
    rounds_sigma: float
    """Of the logarithm of the number of rounds."""
    longest: int
    """Tokens of a prompt; beyond it the session starts over with a first prompt."""
    appended: Lengths
    think_s: Lengths
    """Seconds between an answer and the next prompt."""


class Bursts(msgspec.Struct, frozen=True, kw_only=True):
    """Two rates in turn, each kept for an exponential time: a Markov-modulated Poisson process."""

    low_per_s: float
    high_per_s: float
    low_s: float
    high_s: float


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One shape of traffic."""

    after: str
    """The trace that it is shaped after."""
    input: Lengths
    """With sessions: of their first prompts."""
    output: Lengths
    published: Mapping[str, float]
    rate_per_s: float | None = None
    """`None` when sessions set the pace."""
    cv: float = 1.0
    """Of the gaps."""
    bursts: Bursts | None = None
    prefixes: Prefixes | None = None
    sessions: Sessions | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return (self.input.cap if self.sessions is None else self.sessions.longest) + self.output.cap


PRESETS: Mapping[PresetName, Preset] = {
    "chat-azure24": Preset(
        after="Azure 2024, conversation",
        input=Lengths(p50=928, p90=3830, p99=6683, cap=14_000),
        output=Lengths(p50=41, p90=342, p99=694, cap=1500),
        rate_per_s=45.1,
        published={
            "input p50": 928,
            "input p90": 3830,
            "input p99": 6683,
            "output p50": 41,
            "output p90": 342,
            "output p99": 694,
        },
    ),
    "code-azure23-spiky": Preset(
        after="Azure 2023, code",
        input=Lengths(p50=1485, p90=4865, p99=7436, cap=8000),
        output=Lengths(p50=13, p90=59, p99=249, cap=2000),
        rate_per_s=2.57,
        bursts=Bursts(low_per_s=1.30, high_per_s=26.7, low_s=146.3, high_s=7.7),
        published={
            "input p50": 1485,
            "input mean": 2048,
            "input p99": 7436,
            "output p50": 13,
            "output mean": 28,
            "output p99": 249,
            "IDC 1 s": 13,
            "IDC 10 s": 72,
            "IDC 60 s": 167,
        },
    ),
    "burstgpt-api": Preset(
        after="BurstGPT, GPT-3.5 by API",
        input=Lengths(p50=218, p90=2161, p99=4000, cap=4096),
        output=Lengths(p50=26, p90=187, p99=934, cap=4096),
        rate_per_s=0.56,
        cv=2.0,
        published={"input p50": 218, "input p90": 2161, "output p50": 26, "output p90": 187},
    ),
    "kimi-conv": Preset(
        after="Mooncake, conversation",
        input=Lengths(p50=6909, p90=26_722, p99=85_399, cap=126_000),
        output=Lengths(p50=300, p90=583, p99=1000, cap=2000),
        rate_per_s=3.40,
        prefixes=Prefixes(groups=40, share=0.38),
        published={
            "input p50": 6909,
            "input mean": 12_035,
            "input p99": 85_399,
            "output mean": 343,
            "reused": 0.366,
        },
    ),
    "kimi-toolagent": Preset(
        after="Mooncake, tools and agents",
        input=Lengths(p50=6346, p90=11_050, p99=61_525, cap=126_000),
        output=Lengths(p50=30, p90=591, p99=2000, cap=4000),
        rate_per_s=6.67,
        prefixes=Prefixes(groups=4, share=0.56),
        published={
            "input p50": 6346,
            "input mean": 8596,
            "input p99": 61_525,
            "output p50": 30,
            "output mean": 182,
            "reused": 0.553,
        },
    ),
    "qwen-api": Preset(
        after="Qwen Bailian B, API",
        input=Lengths(p50=574, p90=1717, p99=6294, cap=32_000),
        output=Lengths(p50=39, p90=218, p99=800, cap=4000),
        rate_per_s=24.0,
        prefixes=Prefixes(groups=40, share=0.555),
        published={
            "input p50": 574,
            "input mean": 915,
            "input p99": 6294,
            "output p50": 39,
            "output mean": 92,
            "reused": 0.54,
        },
    ),
    "reasoning": Preset(
        after="Qwen Bailian, thinking",
        input=Lengths(p50=2500, p90=10_211, p99=40_000, cap=64_000),
        output=Lengths(p50=2000, p90=6477, p99=34_529, cap=65_536),
        rate_per_s=1.5,
        prefixes=Prefixes(groups=40, share=0.475),
        published={"input mean": 4763, "output mean": 3651, "output p99": 34_529, "reused": 0.46},
    ),
    "agent-coding": Preset(
        after="TraceLab, coding agents",
        input=Lengths(p50=49_000, p90=70_000, p99=90_000, cap=110_000),
        output=Lengths(p50=249, p90=1200, p99=4000, cap=16_000),
        sessions=Sessions(
            at_once=8,
            median_rounds=16,
            rounds_sigma=1.81,
            longest=250_000,
            appended=Lengths(p50=1045, p90=6963, p99=20_000, cap=50_000),
            think_s=Lengths(p50=1, p90=24, p99=300, cap=3600),
        ),
        published={"input p50": 132_092, "output p50": 249, "reused": 0.956},
    ),
    "b2b-prefix": Preset(
        after="llm-d's benchmark of shared prefixes: 150 of 6,000 tokens, 5 users each",
        input=Lengths.fixed(7200),
        output=Lengths.fixed(1000),
        rate_per_s=20.0,
        prefixes=Prefixes(groups=150, share=6000 / 7200, skew=0.0),
        published={"input p50": 7200},
    ),
}
