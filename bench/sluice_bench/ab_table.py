"""An A/B for a terminal: what could have been seen, then what was. Computes nothing."""

from __future__ import annotations

from collections import Counter

from rich.box import SIMPLE
from rich.table import Table

from sluice_bench.formatting import number
from sluice_bench.runs.ab_record import AbRecord
from sluice_bench.runs.ab_run import SLOTS, AbRun
from sluice_bench.stats.estimate import Comparison
from sluice_bench.stats.paired import MIN_BLOCKS

_UNITS = {"tokens-per-s": "tokens/s", "goodput": "goodput"}


def title(figure: str) -> str:
    """`ttft-p50` as `TTFT p50, ms`."""
    if figure in _UNITS:
        return _UNITS[figure]
    latency, _, statistic = figure.partition("-")
    return f"{latency.upper()} {statistic}, ms"


def blocks_lines(record: AbRecord) -> list[str]:
    """How much was measured, what was set aside, and what failed."""
    run, load, plan = record.run, record.load, record.plan
    how = f"{load.concurrency} at a time" if load.rate is None else f"{load.rate:g}/s, Poisson"
    lines = [
        f"{run.sound_blocks} blocks of two slots each; {load.requests} requests of {load.suite} a slot, "
        f"{how}, the same for A and B."
    ]
    if run.needed_blocks is not None and plan.effect is not None:
        lines.append(
            f"By the noise of the first {plan.blocks}, {run.needed_blocks} blocks find a change of "
            f"{plan.effect:.3g} in {title(plan.primary)}."
        )
        if run.needed_blocks > run.wanted_blocks:
            lines.append(f"That is more than --most-blocks {plan.most_blocks}: a smaller one stays hidden.")
    for reason, count in Counter(run.set_aside.values()).items():
        lines.append(f"Blocks set aside: {count} ({reason}).")
    for who in SLOTS:
        if failed := run.failed(who):
            asked = sum(slot.scheduled for slot in run.slots if slot.variant == who)
            lines.append(
                f"{who.upper()} failed in {failed} of {asked} requests; their blocks are not compared."
            )
    return lines


def detectable_line(run: AbRun) -> str:
    """What such blocks show at all, before it is said what they showed."""
    effects = ", ".join(f"{title(found.metric)} {found.mde:.1%}" for found in run.comparisons)
    return (
        f"Minimum detectable effect, by the noise of these {run.sound_blocks} blocks (found with a "
        f"probability of 95 %): {effects}."
    )


def comparison_table(run: AbRun) -> Table:
    """All figures; the interval of a ratio is that of its test."""
    table = Table(box=SIMPLE, padding=(0, 1))
    for column in ("figure", "A", "B", "B / A", "97.5 % interval", "p", "verdict"):
        left = column in ("figure", "verdict")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for found in run.comparisons:
        table.add_row(
            title(found.metric),
            number(found.a.value),
            number(found.b.value),
            f"{found.ratio.value:.3f}",
            interval(found),
            f"{found.p_value:.4f}",
            _words(found),
        )
    return table


def interval(found: Comparison) -> str:
    """Of the ratio."""
    low, high = found.ratio.low, found.ratio.high
    return "–" if low is None or high is None else f"{low:.3f}–{high:.3f}"


def verdict_lines(record: AbRecord) -> list[str]:
    """On the figure that the comparison is about, and why others are missing."""
    run, plan = record.run, record.plan
    lines = [f"Not compared: {title(figure)} ({why})." for figure, why in run.not_compared.items()]
    if not run.complete:
        lines.append(
            f"VOID: after {len(run.set_aside)} blocks that could not be compared, measuring ended with "
            f"{run.sound_blocks} of {run.wanted_blocks}."
        )
    [*found] = (comparison for comparison in run.comparisons if comparison.metric == plan.primary)
    if not found:
        return [*lines, f"No verdict: it takes {MIN_BLOCKS} sound blocks and a {plan.primary} in each slot."]
    return [*lines, verdict_line(found[0])]


def _words(found: Comparison) -> str:
    if found.verdict == "no difference shown":
        return found.verdict
    if found.metric == "goodput":
        return "B is better" if found.verdict == "faster" else "B is worse"
    return f"B is {found.verdict}"


def verdict_line(found: Comparison) -> str:
    """One verdict in a sentence."""
    change = abs(found.ratio.value - 1)
    what = title(found.metric)
    if found.verdict == "no difference shown":
        return f"Verdict: no difference shown in {what}; one of {found.mde:.1%} or more is most unlikely."
    more = "more" if found.ratio.value > 1 else "less"
    return (
        f"Verdict: {_words(found)}: {change:.1%} {more} {what} than A "
        f"(ratio {found.ratio.value:.3f}, {interval(found)})."
    )
