"""An engine's shape from a recorded run of a real one, and how well it foretells another run.

Fitted are the prefill rate, `a` and `b` of the time between tokens, the overhead of a first token, and the
tokens of a step: those values with which the simulated requests of the run are nearest to the recorded ones,
in the logarithm of TTFT and of ITL, one by one and at their percentiles. What a run cannot tell apart (an
open loop that never has two requests at once says nothing of `b`) the fit cannot either.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

from sluice_bench.simulator.engine_shape import EngineShape
from sluice_bench.simulator.replay import Replay, Sent, Simulated, mean_itl_s, simulated
from sluice_bench.simulator.simplex import minimise
from sluice_bench.stats.percentile import percentile_of

EVALUATIONS = 600
"""About: simulations of the whole run."""
TTFT_BAR, ITL_BAR = 0.15, 0.10
_CHUNKS = (96, 384, 1536)
"""Tokens of a step to start from: a small one delays a prompt, a large one the answers beside it."""
_LARGEST_CHUNK = 8192
_PERCENTILE_WEIGHT = 2.0


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Recorded and simulated of one run, seconds."""

    requests: int
    ttft_p50_s: tuple[float, float]
    ttft_p90_s: tuple[float, float]
    itl_s: tuple[float, float]
    """Mean over all gaps."""

    @property
    def ttft_p90_error(self) -> float:
        """Simulated over recorded, less 1."""
        return self.ttft_p90_s[1] / self.ttft_p90_s[0] - 1

    @property
    def itl_error(self) -> float:
        """The same."""
        return self.itl_s[1] / self.itl_s[0] - 1 if self.itl_s[0] else 0.0


def fit(replay: Replay, max_running: int, kv_tokens: int) -> EngineShape:
    """The shape that is nearest to the run, of an engine whose limits are known. Raises `ValueError`."""
    longest = max(one.prompt + one.output for one in replay.sent)
    if longest > kv_tokens:
        raise ValueError(
            f"a request has {longest} tokens, more than the KV cache's {kv_tokens}: give --kv-tokens"
        )

    def shape_of(point: Sequence[float]) -> EngineShape:
        rate, step, sequence, overhead, chunk = (math.exp(min(50.0, max(-50.0, value))) for value in point)
        return EngineShape(
            prefill_tokens_per_s=rate,
            step_s=step,
            sequence_s=sequence,
            overhead_s=overhead,
            chunk_tokens=max(max_running + 1, min(_LARGEST_CHUNK, round(chunk))),
            max_running=max_running,
            kv_tokens=kv_tokens,
        )

    def cost(point: Sequence[float]) -> float:
        return distance(replay, simulated(replay, shape_of(point)))

    starts = [[*_first_guess(replay), math.log(chunk)] for chunk in _CHUNKS if chunk > max_running]
    tried = [minimise(cost, start, 0.5, EVALUATIONS // 4) for start in starts]
    best = minimise(cost, min(tried, key=cost), 0.2, EVALUATIONS // 2)
    return shape_of(minimise(cost, best, 0.05, EVALUATIONS // 4))


def _first_guess(replay: Replay) -> list[float]:
    """Logarithms of the rate, a, b and overhead, by straight lines through the run.

    TTFT over the prompt's length, of the half that came when least was in flight; ITL over the number of
    others that were in flight meanwhile.
    """
    sent = replay.sent
    crowds = [_others(replay, place) for place in range(len(sent))]
    calm = sorted(range(len(sent)), key=lambda place: crowds[place])[: max(5, len(sent) // 2)]
    overhead, per_token = line([sent[p].prompt for p in calm], [sent[p].ttft_s for p in calm])
    gaps = [(crowds[place], one.itl_s) for place, one in enumerate(sent) if one.itl_s]
    step, sequence = line([x for x, _ in gaps], [y for _, y in gaps]) if gaps else (overhead, overhead / 10)
    smallest = max(1e-5, min(one.ttft_s for one in sent))
    return [
        math.log(1 / max(per_token, 1e-7)),
        math.log(max(step, smallest / 100)),
        math.log(max(sequence, step / 50, 1e-6)),
        math.log(max(overhead - step, smallest / 20)),
    ]


def _others(replay: Replay, place: int) -> float:
    """How many other requests were in flight at once, on average, while this one was."""
    start, end = _span(replay.sent[place])
    together = 0.0
    for other, one in enumerate(replay.sent):
        if other != place:
            began, ended = _span(one)
            together += max(0.0, min(end, ended) - max(start, began))
    return together / max(end - start, 1e-9)


def _span(one: Sent) -> tuple[float, float]:
    return one.at_s, one.at_s + one.ttft_s + (one.itl_s or 0.0) * (one.output - 1)


def line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of the line with the least squares; a level one where all x are the same."""
    x_mean, y_mean = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - x_mean) ** 2 for x in xs)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0
    return y_mean - slope * x_mean, slope


def distance(replay: Replay, found: Sequence[Simulated]) -> float:
    """How far a simulation is from the recorded run: differences of logarithms, each and in the tails."""
    pairs = list(zip(replay.sent, found, strict=True))
    ttft = sum(_apart(ours.ttft_s, real.ttft_s) for real, ours in pairs) / len(pairs)
    gaps = [(real.itl_s, ours.itl_s) for real, ours in pairs if real.itl_s and ours.itl_s]
    itl = sum(_apart(ours, real) for real, ours in gaps) / len(gaps) if gaps else 0.0
    outputs = [one.output for one in replay.sent]
    tails = sum(
        _apart(
            percentile_of([ours.ttft_s for ours in found], share),
            percentile_of([real.ttft_s for real in replay.sent], share),
        )
        for share in (0.5, 0.9)
    )
    if gaps:
        tails += _apart(mean_itl_s(found, outputs), mean_itl_s(replay.sent, outputs))
    return ttft + itl + _PERCENTILE_WEIGHT * tails / 3


def _apart(one: float, other: float) -> float:
    return abs(math.log(max(one, 1e-9) / max(other, 1e-9)))


def compare(replay: Replay, shape: EngineShape) -> Comparison:
    """A run against its simulation."""
    found = simulated(replay, shape)
    outputs = [one.output for one in replay.sent]
    recorded = [one.ttft_s for one in replay.sent]
    ours = [one.ttft_s for one in found]
    return Comparison(
        requests=len(found),
        ttft_p50_s=(percentile_of(recorded, 0.5), percentile_of(ours, 0.5)),
        ttft_p90_s=(percentile_of(recorded, 0.9), percentile_of(ours, 0.9)),
        itl_s=(mean_itl_s(replay.sent, outputs), mean_itl_s(found, outputs)),
    )
