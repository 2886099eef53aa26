"""From the rows of the batching ladder to a page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sluice_bench.calibration import LIMIT_SHARE
from sluice_bench.formatting import DISTURBED_CORES, number, spread
from sluice_bench.ladder import Ladder, LadderModel, LadderRow, Rung
from sluice_bench.metrics import distribution

LEAST_RATIO = 3.0
"""The bar: continuous over none with the first closed loop."""
LEAST_TOKENS_PER_S = 30.0
"""The bar there on a bfloat16 model of TinyLlama's shape."""

_FIRST, _LAST = Rung("none", "paged"), Rung("continuous", "paged")


def render_ladder(ladder: Ladder, raw_name: str) -> str:
    """The Markdown page; `raw_name` is the file with the raw rows beside it."""
    parts = [_opening(ladder, raw_name), _setup(ladder)]
    parts += [_model_section(ladder, model) for model in ladder.models]
    parts.append(_trust(ladder))
    return "\n\n".join(parts) + "\n"


def _opening(ladder: Ladder, raw_name: str) -> str:
    warnings = []
    if ladder.quick:
        warnings.append("This was a `--quick` run: it shows that everything works. Its figures mean nothing.")
    elif ladder.load.repeats < 3:
        warnings.append(f"A first look: {ladder.load.repeats} repeat(s) only.")
    return "\n\n".join(
        [
            "# What each rung of the batching ladder buys",
            f"Measured {ladder.measured_at} at commit `{ladder.environment.commit}` with",
            f"```\n{ladder.command}\n```",
            f"What the modes are: [worker/batching.md](../worker/batching.md). Every repeat is a row in "
            f"[{raw_name}]({raw_name}). A figure is the median of its repeats, with the smallest and the "
            "largest in brackets; TTFT percentiles are over the requests of all repeats.",
            *(f"**{warning}**" for warning in warnings),
        ]
    )


def _setup(ladder: Ladder) -> str:
    env, load = ladder.environment, ladder.load
    packages = ", ".join(f"{name} {version}" for name, version in env.packages.items())
    closed = ", ".join(
        f"{n} at a time ({n * waves} requests)"
        for n, waves in zip(load.concurrencies, load.waves, strict=True)
    )
    return (
        "## Setup\n\n"
        f"{env.cpu}, {env.cores} cores, {env.memory_gib:.0f} GiB, {env.system}, Python {env.python}; "
        f"{packages}. Load average before the run: {env.load_average:.2f}. Client and worker share these "
        "cores.\n\n"
        "Every rung gets byte for byte the same requests, over HTTP, greedy and streamed: prompts of "
        f"{load.prompt_tokens} random tokens, each its own; answers of {load.least_output_tokens} to "
        f"{load.most_output_tokens} tokens, about {load.mean_output_tokens} in the mean (geometric, seed "
        f"{load.seed}), each allowed {load.max_tokens}: the server learns how long an answer is when it "
        f"ends. Loads: {closed}, and {load.open_requests} requests at random (Poisson) times. The KV cache "
        f"holds {load.kv_tokens:,} tokens; a static or dynamic batch has at most {load.max_batch} requests "
        f"and waits {load.batch_wait_ms:g} ms. The worker is started anew for every rung and repeat; rungs "
        "take turns in an order drawn for each repeat."
    )


def _model_section(ladder: Ladder, model: LadderModel) -> str:
    parts = [f"## {model.name}, {model.dtype}"]
    if bar := _bar(ladder, model):
        parts.append(bar)
    parts += [_load_table(ladder, model, load) for load in ladder.load.load_names]
    return "\n\n".join(parts)


def _bar(ladder: Ladder, model: LadderModel) -> str:
    load = ladder.load.load_names[0]
    first, last = _rows(ladder, model, _FIRST, load), _rows(ladder, model, _LAST, load)
    if not first or not last:
        return ""
    ratio, speed = _speed(last) / _speed(first), _speed(last)
    bars = [(f"{ratio:.2f} times none", ratio, LEAST_RATIO, f"{LEAST_RATIO:g} times")]
    if model.shape == "tinyllama-1.1b":
        bars.append((f"{number(speed)} tokens/s", speed, LEAST_TOKENS_PER_S, f"{LEAST_TOKENS_PER_S:g}"))
    verdicts = [
        f"{text} (bar: {bar}, {'met' if value >= least else 'missed'})" for text, value, least, bar in bars
    ]
    return f"Continuous batching with a paged cache, {load}: {'; '.join(verdicts)}."


def _load_table(ladder: Ladder, model: LadderModel, load: str) -> str:
    title = f"{load}, {model.rate:g} requests/s" if load == "Poisson" else load
    lines = [
        f"### {model.name}: {title}",
        "",
        "| batching | KV | output tokens/s | over none | TTFT p50 ms | TTFT p99 ms | TPOT p50 ms "
        "| mean batch | KV used of reserved | preemptions |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    reference = _rows(ladder, model, _FIRST, load)
    for rung in ladder.rungs:
        if rows := _rows(ladder, model, rung, load):
            lines.append(_line(rung, rows, reference))
    return "\n".join(lines)


def _line(rung: Rung, rows: Sequence[LadderRow], reference: Sequence[LadderRow]) -> str:
    waits = distribution(wait for row in rows for wait in row.ttft_ms)
    cells = [
        rung.batching,
        rung.kv,
        spread([row.tokens_per_s for row in rows]),
        f"{_speed(rows) / _speed(reference):.2f}" if reference and _speed(reference) else "–",
        number(waits.p50) if waits and waits.p50 is not None else "–",
        "–" if waits is None else number(waits.p99) if waits.p99 is not None else f"≤ {number(waits.high)}",
        spread([row.tpot_p50_ms for row in rows if row.tpot_p50_ms is not None]),
        number(statistics.median(row.mean_batch for row in rows)),
        f"{statistics.median(row.kv_utilisation for row in rows):.0%}",
        str(round(statistics.median(row.preemptions for row in rows))),
    ]
    return "| " + " | ".join(cells) + " |"


def _rows(ladder: Ladder, model: LadderModel, rung: Rung, load: str) -> list[LadderRow]:
    wanted = (model.name, rung, load)
    return [row for row in ladder.rows if (row.model, row.rung, row.load) == wanted]


def _speed(rows: Sequence[LadderRow]) -> float:
    return statistics.median(row.tokens_per_s for row in rows)


def _trust(ladder: Ladder) -> str:
    rows = ladder.rows
    disturbed = sum(row.foreign_cores > DISTURBED_CORES for row in rows)
    worst = max(row.calibration.error_ms for row in rows)
    void = sum(row.calibration.void for row in rows)
    lines = [
        "## How far to trust these figures",
        "",
        f"- CPU of others during the repeats: median {statistics.median(r.foreign_cores for r in rows):.2f} "
        f"cores, at most {max(row.foreign_cores for row in rows):.2f}; {disturbed} of {len(rows)} rows had "
        f"more than {DISTURBED_CORES:g} and count as disturbed.",
        f"- The client's own error, measured in every row against a null server on the same cores: at most "
        f"{worst:.1f} ms. Latencies are void where that is more than {LIMIT_SHARE:.0%} of the p99 TTFT: "
        f"{void} of {len(rows)} rows.",
        f"- Failed requests: {sum(row.failures for row in rows)}; prompt tokens from a prefix cache: "
        f"{sum(row.cached_tokens for row in rows)}. {_same_work(ladder)}",
        "- A p99 is given from 100 requests on; below that, `≤` and the largest.",
    ]
    return "\n".join(lines)


def _same_work(ladder: Ladder) -> str:
    """Whether all rungs made the same number of tokens of the same requests."""
    made: dict[tuple[str, str], set[int]] = {}
    for row in ladder.rows:
        made.setdefault((row.model, row.load), set()).add(row.output_tokens)
    different = [f"{model}, {load}" for (model, load), totals in made.items() if len(totals) > 1]
    if not different:
        return "All rungs and repeats made the same number of tokens of the same requests."
    return f"Rungs made different numbers of tokens of the same requests: {'; '.join(different)}."
