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
from typing import Literal, TypeVar

import msgspec

from sluice_bench.stats.elementary import exp, ln
from sluice_bench.stats.estimate import Comparison, Estimate, Verdict
from sluice_bench.stats.intervals import mean, mean_interval

ALPHA = 0.025
POWER = 0.95
MIN_BLOCKS = 7
"""Of six, even the most extreme result has p = 2 / 64."""

_DOZEN = 12
_DRAWS = 4095
_Z_ALPHA, _Z_POWER, _Z_PILOT = 2.2414027276049464, 1.6448536269514722, 1.2815515655446004
"""Normal quantiles of `1 - ALPHA / 2`, of `POWER`, and of 0.9."""

Slot = Literal["a", "b"]
Entry = TypeVar("Entry")


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
    mde = minimum_detectable_effect(logs)
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
    """Sums under all sign patterns of up to twelve, or under the given one and some random ones."""
    tables = [_signed_sums(dozen) for dozen in _dozens(logs)]
    if len(tables) == 1:
        return tables[0]
    return [math.fsum(logs), *(math.fsum(_one_of_each(tables, source)) for _ in range(_DRAWS))]


def _signed_sums(logs: Sequence[float]) -> list[float]:
    sums = [0.0]
    for log in logs:
        sums = [total + log for total in sums] + [total - log for total in sums]
    return sums


def _dozens(logs: Sequence[float]) -> list[Sequence[float]]:
    """All patterns of twelve can be listed; a random one of more is a random one of each dozen."""
    return [logs[start : start + _DOZEN] for start in range(0, len(logs), _DOZEN)]


def _one_of_each(tables: Sequence[Sequence[Entry]], source: Random) -> list[Entry]:
    return [table[int(source.random() * len(table))] for table in tables]


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
    tables = [_subset_sums(dozen) for dozen in _dozens(logs)]
    if len(tables) == 1:
        return [total / count for total, count in tables[0][1:]]
    choices = (_one_of_each(tables, source) for _ in range(_DRAWS))
    sums = ((math.fsum(total for total, _ in c), sum(count for _, count in c)) for c in choices)
    return [total / count for total, count in sums if count]


def _subset_sums(logs: Sequence[float]) -> list[tuple[float, int]]:
    sums = [(0.0, 0)]
    for log in logs:
        sums += [(total + log, count + 1) for total, count in sums]
    return sums


def minimum_detectable_effect(logs: Sequence[float]) -> float:
    """The relative change that blocks with this noise show with a probability of 95 %: 0.03 is 3 %.

    From the noise alone: the mean of the blocks, which is the effect if there is one, is taken out first.
    Raises `ValueError` of fewer than `MIN_BLOCKS`.
    """
    n = len(logs)
    if n < MIN_BLOCKS:
        raise ValueError(f"{n} blocks can show nothing; at least {MIN_BLOCKS} are needed")
    # Flipped signs of few blocks are coarser than Student's test; in simulations that costs two blocks.
    deviations = _student(_Z_ALPHA, n - 3) + _student(_Z_POWER, n - 3)
    return exp(deviations * _deviation(logs) / math.sqrt(n)) - 1


def _student(z: float, freedom: int) -> float:
    """The quantile of Student's t where the normal curve has `z`, by Cornish and Fisher's expansion."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / (freedom * freedom)


def blocks_needed(pilot: Sequence[float], effect: float) -> int:
    """How many blocks show a relative change of `effect` with a probability of 95 %, by the noise of a
    pilot's.

    A short pilot may have been lucky: the noise is taken to be as large as it is with a probability of 90 %
    at most, so a pilot of twelve asks for twice as many blocks as one of hundreds. Raises `ValueError` unless
    `effect` is positive and the pilot has at least four blocks.
    """
    if effect <= 0 or len(pilot) < 4:
        raise ValueError("a plan needs a positive effect and a pilot of at least four blocks")
    noise = _deviation(pilot) * _pilot_inflation(len(pilot) - 1)
    by_noise = ((_Z_ALPHA + _Z_POWER) * noise / ln(1 + effect)) ** 2
    # The normal curve is too hopeful for few blocks, by about two of them.
    return max(MIN_BLOCKS, math.ceil(by_noise) + 2)


def _pilot_inflation(freedom: int) -> float:
    """Upper bound of a standard deviation by its estimate: chi square after Wilson and Hilferty."""
    spread = 2 / (9 * freedom)
    root = 1 - spread - _Z_PILOT * math.sqrt(spread)
    return math.sqrt(1 / (root * root * root))


def _deviation(logs: Sequence[float]) -> float:
    """Standard deviation of the population that these are from."""
    centre = mean(logs)
    return math.sqrt(math.fsum((log - centre) ** 2 for log in logs) / (len(logs) - 1))
