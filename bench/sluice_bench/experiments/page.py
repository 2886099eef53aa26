"""From the rows of an experiment to its Markdown page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from sluice_bench.calibration import LIMIT_SHARE
from sluice_bench.experiments.measurement import Experiment, LoadFacts, Row
from sluice_bench.experiments.plan import Column
from sluice_bench.experiments.variant_quality import quality_table
from sluice_bench.formatting import DISTURBED_CORES, number, spread
from sluice_bench.stats.percentile import percentile_of
from sluice_bench.stats.tails import minimum_count

LEAST_REPEATS = 3
_TTFT_SHARES = (0.5, 0.95)
_VOID = "‡"


def render(experiment: Experiment, raw_name: str, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The page; `raw_name` is the file of the raw rows, `pictures` are (file name, what it shows)."""
    parts = [
        f"# {experiment.title}",
        *_opening(experiment, raw_name),
        *(f"![{text}]({name})" for name, text in pictures),
        *(table(experiment, load) for load in experiment.loads),
        *_quality(experiment),
        *_left_out(experiment),
        _setup(experiment),
        trust(experiment),
    ]
    return "\n\n".join(parts) + "\n"


def _opening(experiment: Experiment, raw_name: str) -> list[str]:
    parts = [
        *experiment.remarks,
        f"Measured {experiment.measured_at} at commit `{experiment.environment.commit}` with",
        f"```\n{experiment.command}\n```",
        f"Every run is a row in [{raw_name}]({raw_name}). A figure is the median of its repeats, with the "
        "smallest and the largest in brackets; percentiles of TTFT are over the requests of all repeats, "
        "and one that has too few of them to be certain carries a `?`.",
    ]
    if experiment.quick:
        parts.append(
            "**This was a `--quick` run: it shows that everything works. Its figures mean nothing.**"
        )
    elif experiment.repeats < LEAST_REPEATS:
        parts.append(f"**A first look: {experiment.repeats} repeat(s) only.**")
    return parts


# --- tables ----------------------------------------------------------------------------------------------


def table(experiment: Experiment, load: LoadFacts) -> str:
    """The variants under one load."""
    titles = ["", "output tokens/s", "TTFT p50 ms", "TTFT p95 ms", "TPOT p50 ms"]
    what = "tokens/s" if experiment.headline == "tokens_per_s" else "TTFT"
    titles += [
        f"{what} over {experiment.reference}",
        *(column.title for column in experiment.columns),
        "failed",
    ]
    lines = [f"## {load.name}", "", _line(titles), "|---|" + "--:|" * (len(titles) - 1)]
    for variant in experiment.variants:
        if rows := rows_of(experiment, variant, load.name):
            lines.append(_line([variant, *_cells(experiment, rows, load)]))
    return "\n".join(lines)


def _cells(experiment: Experiment, rows: Sequence[Row], load: LoadFacts) -> list[str]:
    ratio = over_reference(experiment, rows, load.name)
    return [
        spread(_known(row.tokens_per_s for row in rows)),
        *(_pooled(rows, share) + _void_mark(rows) for share in _TTFT_SHARES),
        spread(_known(row.tpot_p50_ms for row in rows)),
        "–" if ratio is None else f"{ratio:.2f}",
        *(_figure(rows, column) for column in experiment.columns),
        f"{sum(row.failures for row in rows)} of {sum(row.requests for row in rows)}",
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _pooled(rows: Sequence[Row], share: float) -> str:
    """A percentile over the requests of all repeats."""
    waits = [wait for row in rows for wait in row.ttft_ms]
    if not waits:
        return "–"
    return number(percentile_of(waits, share)) + ("" if len(waits) >= minimum_count(share) else "?")


def _void_mark(rows: Sequence[Row]) -> str:
    """Whether the client's own error spoils the latencies of most repeats."""
    return f" {_VOID}" if 2 * sum(row.calibration.void for row in rows) > len(rows) else ""


def _figure(rows: Sequence[Row], column: Column) -> str:
    values = [row.figures[column.key] for row in rows if column.key in row.figures]
    if not values:
        return "–"
    if column.percent:
        return f"{statistics.median(values):.0%}"
    return f"{statistics.median(values):,.0f}" if all(v == round(v) for v in values) else spread(values)


def rows_of(experiment: Experiment, variant: str, load: str) -> list[Row]:
    """The repeats of one variant under one load."""
    return [row for row in experiment.rows if (row.variant, row.load) == (variant, load)]


def headline(experiment: Experiment, row: Row) -> float | None:
    """The figure of a repeat that the experiment is about."""
    if experiment.headline == "tokens_per_s":
        return row.tokens_per_s
    return percentile_of(row.ttft_ms, 0.5) if row.ttft_ms else None


def over_reference(experiment: Experiment, rows: Sequence[Row], load: str) -> float | None:
    """The median, repeat by repeat, of the headline over the reference's; `None` without that."""
    reference = {
        row.repeat: headline(experiment, row) for row in rows_of(experiment, experiment.reference, load)
    }
    ratios = [
        mine / theirs
        for row in rows
        if (mine := headline(experiment, row)) and (theirs := reference.get(row.repeat))
    ]
    return statistics.median(ratios) if ratios else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


# --- around them -----------------------------------------------------------------------------------------


def _quality(experiment: Experiment) -> list[str]:
    return [quality_table(experiment.quality_model, experiment.quality)] if experiment.quality else []


def _left_out(experiment: Experiment) -> list[str]:
    return [f"Left out: {left.variant}, because {left.reason}." for left in experiment.left_out]


def _setup(experiment: Experiment) -> str:
    env = experiment.environment
    packages = ", ".join(f"{name} {version}" for name, version in env.packages.items())
    loads = "; ".join(f"{load.name}: {load.requests} requests" for load in experiment.loads)
    commands = "\n".join(dict.fromkeys(experiment.commands.values()))
    return (
        f"## Setup\n\n{env.cpu}, {env.cores} cores, {env.memory_gib:.0f} GiB, {env.system}, Python "
        f"{env.python}; {packages}. Load average before: {env.load_average:.2f}. Engines compute on all "
        f"cores but one, which is left to client and gateway.\n\nModel: {experiment.model}. Loads of each "
        f"repeat: {loads}. Every variant gets byte for byte the same requests, greedy and streamed. Engines "
        f"as they were started:\n\n```\n{commands}\n```"
    )


def trust(experiment: Experiment) -> str:
    """What speaks against the figures."""
    rows = experiment.rows
    disturbed = sum(row.foreign_cores > DISTURBED_CORES for row in rows)
    worst = max(row.calibration.error_ms for row in rows)
    void = sum(row.calibration.void for row in rows)
    lines = [
        "## How far to trust these figures",
        "",
        f"- CPU of others during the runs: median {statistics.median(row.foreign_cores for row in rows):.2f} "
        f"cores, at most {max(row.foreign_cores for row in rows):.2f}; {disturbed} of {len(rows)} runs had "
        f"more than {DISTURBED_CORES:g} and count as disturbed.",
        f"- The client's own error, measured in every run against a null server on the same cores: at most "
        f"{worst:.1f} ms. Latencies are void where that is more than {LIMIT_SHARE:.0%} of the p99 TTFT: "
        f"{void} of {len(rows)} runs; where most repeats are, TTFT carries a {_VOID}.",
        f"- {_failures(rows)} Prompt tokens from a prefix cache: {_cached(rows)}. {_same_work(rows)}",
    ]
    if misrouted := sum(row.misrouted for row in rows):
        lines.append(f"- **{misrouted} requests were served by another engine than the variant's.**")
    return "\n".join(lines)


def _failures(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row.failures]
    if not failed:
        return "No request failed."
    first, total = failed[0], sum(row.failures for row in failed)
    return f"{total} requests failed, the first of {first.variant} with {first.first_failure}."


def _cached(rows: Sequence[Row]) -> str:
    known = [row.cached_tokens for row in rows]
    untold = sum(count is None for count in known)
    total = str(sum(count for count in known if count is not None))
    return f"{total}, and {untold} runs whose engine does not tell" if untold else total


def _same_work(rows: Sequence[Row]) -> str:
    """Whether all variants and repeats made the same number of tokens of the same requests."""
    made: dict[str, set[int | None]] = {}
    for row in rows:
        made.setdefault(row.load, set()).add(row.output_tokens)
    different = [load for load, totals in made.items() if len(totals) > 1]
    if not different:
        return "All variants made the same number of tokens of the same requests."
    return f"Variants or repeats made different numbers of tokens: {'; '.join(different)}."
