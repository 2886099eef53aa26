"""A against B on a machine that does not hold still.

Both are measured in short slots in turn, four to a block: ABBA or BAAB, by the toss of a coin. Within a block
what drifts steadily cancels out, and because a coin decided, a block's result would have had the opposite
sign as likely as not if A and B were the same. So the test is exact whatever the noise is, however it drifts
and however one block depends on the next: the sign of each block's log ratio is flipped in all ways, and the
p value is the share of ways that give as large a mean as the one seen. The interval of the ratio comes from
the same idea: the means of all choices of blocks are equally likely to have the true one between any two
neighbours (Hartigan 1969), if its noise is symmetric.

The verdict asks for p <= 0.025, so that of 200 comparisons of equals it is most unlikely that more than ten
show a difference. What such a number of blocks could have found at all, its minimum detectable effect, is
computed from the noise alone, with the blocks' own mean taken out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Literal

import msgspec

from sluice_bench.stats.elementary import exp, ln
from sluice_bench.stats.estimate import Comparison, Estimate, Verdict
from sluice_bench.stats.intervals import mean, mean_interval
from sluice_bench.stats.percentile import percentile_of

ALPHA = 0.025
POWER = 0.95
MIN_BLOCKS = 7
"""Of six, even the most extreme result has p = 2 / 64."""

_EXACT_BLOCKS = 12
_DRAWS = 4095
_Z_ALPHA, _Z_POWER = 2.2414027276049464, 1.6448536269514722
"""Normal quantiles of `1 - ALPHA / 2` and of `POWER`."""

Slot = Literal["a", "b"]


class Block(msgspec.Struct, frozen=True):
    """One figure per slot, positive: the two of A and the two of B, in any order."""

    a: tuple[float, float]
    b: tuple[float, float]

    def log_ratio(self) -> float:
        """ln of B / A. Raises `ValueError` unless all four are positive."""
        if min(*self.a, *self.b) <= 0:
            raise ValueError("a ratio needs figures that are positive")
        return ln(sum(self.b)) - ln(sum(self.a))


def slot_order(blocks: int, source: Random) -> tuple[tuple[Slot, Slot, Slot, Slot], ...]:
    """Who is measured when. The coin is not a luxury: without it the test is not exact."""
    return tuple(
        ("a", "b", "b", "a") if source.random() < 0.5 else ("b", "a", "a", "b") for _ in range(blocks)
    )


def compare(
    metric: str, blocks: Sequence[Block], source: Random, *, more_is_better: bool = False
) -> Comparison:
    """The verdict on B. Raises `ValueError` of fewer than `MIN_BLOCKS` or of figures that are not
    positive."""
    if len(blocks) < MIN_BLOCKS:
        raise ValueError(f"a comparison needs at least {MIN_BLOCKS} blocks, not {len(blocks)}")
    logs = [block.log_ratio() for block in blocks]
    mde = minimum_detectable_effect(logs, source)
    p_value = sign_flip_p(logs, source)
    return Comparison(
        metric=metric,
        a=mean_interval([sum(block.a) / 2 for block in blocks], source),
        b=mean_interval([sum(block.b) / 2 for block in blocks], source),
        ratio=_ratio(logs, source),
        mde=mde,
        blocks=len(blocks),
        p_value=p_value,
        verdict=_verdict(p_value, mean(logs), more_is_better),
    )


def _verdict(p_value: float, log_ratio: float, more_is_better: bool) -> Verdict:
    if p_value > ALPHA:
        return "no difference shown"
    return "faster" if (log_ratio > 0) == more_is_better else "slower"


def sign_flip_p(logs: Sequence[float], source: Random) -> float:
    """Two-sided: the share of sign patterns whose mean is as far from 0 as the one seen.

    All patterns of up to twelve blocks, a random choice of those of more.
    """
    seen = abs(math.fsum(logs))
    slack = 1e-12 * math.fsum(map(abs, logs))  # sums in another order differ in the last places
    sums = _flipped_sums(logs, source)
    return sum(abs(total) >= seen - slack for total in sums) / len(sums)


def _flipped_sums(logs: Sequence[float], source: Random) -> list[float]:
    """Sums under sign patterns, the given one among them. A pattern and its opposite are equally far from 0,
    so the first sign stays."""
    if len(logs) <= _EXACT_BLOCKS:
        sums = [logs[0]]
        for log in logs[1:]:
            sums = [total + log for total in sums] + [total - log for total in sums]
        return sums
    draws = [math.fsum(log if source.random() < 0.5 else -log for log in logs) for _ in range(_DRAWS)]
    return [math.fsum(logs), *draws]


def _ratio(logs: Sequence[float], source: Random) -> Estimate:
    """e to the mean, between order statistics of the means of choices of blocks."""
    means = sorted(_subset_means(logs, source))
    beyond = math.floor(ALPHA / 2 * (len(means) + 1))
    return Estimate(
        value=exp(mean(logs)),
        low=exp(means[beyond - 1]) if beyond else None,
        high=exp(means[-beyond]) if beyond else None,
        n=len(logs),
        confidence=1 - ALPHA,
    )


def _subset_means(logs: Sequence[float], source: Random) -> list[float]:
    """Of every choice of at least one block, or of a random few thousand."""
    if len(logs) <= _EXACT_BLOCKS:
        sums = [(0.0, 0)]
        for log in logs:
            sums += [(total + log, count + 1) for total, count in sums]
        return [total / count for total, count in sums[1:]]
    choices = ([log for log in logs if source.random() < 0.5] for _ in range(_DRAWS))
    return [mean(choice) for choice in choices if choice]


def minimum_detectable_effect(logs: Sequence[float], source: Random) -> float:
    """The relative change that blocks with this noise show with a probability of 95 %: 0.03 is 3 %.

    From the noise alone: the mean of the blocks, which is the effect if there is one, is taken out first.
    Raises `ValueError` of fewer than `MIN_BLOCKS`.
    """
    n = len(logs)
    if n < MIN_BLOCKS:
        raise ValueError(f"{n} blocks can show nothing; at least {MIN_BLOCKS} are needed")
    centre, inflation = mean(logs), math.sqrt(n / (n - 1))
    noise = [(log - centre) * inflation for log in logs]
    critical = percentile_of([abs(total) / n for total in _flipped_sums(noise, source)], 1 - ALPHA)
    return exp(critical + _Z_POWER * _deviation(logs) / math.sqrt(n)) - 1


def blocks_needed(pilot: Sequence[float], effect: float) -> int:
    """How many blocks show a relative change of `effect` with a probability of 95 %, by the noise of a
    pilot's.

    Raises `ValueError` unless `effect` is positive and the pilot has at least two blocks.
    """
    if effect <= 0 or len(pilot) < 2:
        raise ValueError("a plan needs a positive effect and a pilot of at least two blocks")
    by_noise = ((_Z_ALPHA + _Z_POWER) * _deviation(pilot) / ln(1 + effect)) ** 2
    # The normal curve is too hopeful for few blocks, by about two of them.
    return max(MIN_BLOCKS, math.ceil(by_noise) + 2)


def _deviation(logs: Sequence[float]) -> float:
    """Standard deviation of the population that these are from."""
    centre = mean(logs)
    return math.sqrt(math.fsum((log - centre) ** 2 for log in logs) / (len(logs) - 1))
