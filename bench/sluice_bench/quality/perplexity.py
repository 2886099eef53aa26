"""Perplexity: e to the mean of minus the log-probability per token. Windows are what is independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from sluice_bench.quality.prompt_logprobs import Prediction
from sluice_bench.stats.elementary import exp
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.intervals import bootstrap_interval

Windows = Sequence[Sequence[Prediction]]


def perplexity(windows: Windows, source: Random) -> Estimate:
    """Over all tokens of all windows, the interval by bootstrap over windows; `n` counts these.

    Raises `ValueError` without windows.
    """
    totals = [(math.fsum(-token.logprob for token in window), len(window)) for window in windows]
    return bootstrap_interval(totals, lambda drawn: exp(mean_per_token(drawn)), source)


def mean_per_token(totals: Sequence[tuple[float, int]]) -> float:
    """Of `(sum, number of tokens)` for each window."""
    return math.fsum(total for total, _ in totals) / sum(count for _, count in totals)
