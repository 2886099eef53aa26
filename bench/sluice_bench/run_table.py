"""One run for a terminal: its distributions, what happened in sentences, and the client's verdict on itself.

Computes no metric of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE
from rich.table import Table

from sluice_bench.calibration import Calibration
from sluice_bench.formatting import number
from sluice_bench.metrics import Distribution, Summary
from sluice_bench.recording.run_record import Stopping
from sluice_bench.runs.run_estimates import SHARES, RunEstimates, SteadyPart
from sluice_bench.stats import warm_up
from sluice_bench.stats.estimate import Estimate
from sluice_bench.stats.intervals import share_interval
from sluice_bench.stats.tails import minimum_count


def summary_table(summary: Summary, estimates: RunEstimates) -> Table:
    """The distributions of one run, milliseconds; below each percentile where the true one lies."""
    table = Table(title="milliseconds", box=SIMPLE, padding=(0, 1))
    for column in ("metric", "n", "mean", "p50", "p90", "p95", "p99", "max"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    metrics = (
        ("TTFT, user", summary.ttft_user_ms, "ttft_user"),
        ("TTFT, service", summary.ttft_service_ms, "ttft_service"),
        ("TPOT", summary.tpot_ms, "tpot"),
        ("ITL (TBT)", summary.tbt_ms, ""),
        ("NTPOT", summary.ntpot_ms, "ntpot"),
        ("E2E", summary.e2e_ms, "e2e"),
        ("longest stall", summary.stall_ms, "stall"),
        ("dispatch lag", summary.dispatch_lag_ms, ""),
    )
    for name, found, key in metrics:
        if found is not None:
            table.add_row(name, *_cells(found, estimates.latencies_ms.get(key, {})))
    return table


def _cells(found: Distribution, estimates: Mapping[float, Estimate]) -> list[str]:
    percentiles = ((0.5, found.p50), (0.9, found.p90), (0.95, found.p95), (0.99, found.p99))
    shown = [_percentile_cell(value, estimates.get(share)) for share, value in percentiles]
    return [str(found.count), number(found.mean), *shown, number(found.high)]


def _percentile_cell(value: float | None, estimate: Estimate | None) -> str:
    """The value with its interval below it, or with a mark when there are too few to have one."""
    if value is None:
        return "–"
    if estimate is None:
        return number(value)
    if estimate.low is None or estimate.high is None:
        return f"{number(value)}*"
    return f"{number(value)}\n[dim]{_between(estimate.low, estimate.high)}[/dim]"


def _between(low_ms: float, high_ms: float) -> str:
    """Short enough for four of them beside each other, however long the waits are."""
    if high_ms >= 10_000:
        return f"{number(low_ms / 1000)}–{number(high_ms / 1000)} s"
    return f"{number(low_ms)}–{number(high_ms)}"


def table_note(estimates: RunEstimates) -> str:
    """What the intervals and the marks of the table mean."""
    cells = [cell for row in estimates.latencies_ms.values() for cell in row.values()]
    note = "Below a percentile: where the true one lies, in 95 of 100 runs."
    if all(cell.claimed for cell in cells):
        return note
    needed = ", ".join(f"p{share * 100:g} {minimum_count(share):,}" for share in SHARES)
    mark = f"*: of too few requests to claim anything ({needed})."
    return f"{note} {mark}" if any(cell.claimed for cell in cells) else mark


def summary_lines(summary: Summary) -> list[str]:
    """What happened, in sentences."""
    lines = [f"{summary.complete} of {summary.scheduled} scheduled requests complete."]
    lines += [f"{count} failed: {name}." for name, count in summary.failures.items()]
    if summary.whole is not None:
        rate = f"{_known(summary.whole.tokens_per_s)} output tokens/s over {summary.whole.seconds:.2f} s"
        steady = f", {_known(summary.steady.tokens_per_s)} while steady" if summary.steady else ""
        lines.append(rate + steady + ".")
    lines.append(
        f"Goodput: {summary.goodput_share:.1%} ({_goodput_bounds(summary)}) of scheduled requests, "
        f"{number(summary.goodput_per_s)}/s."
    )
    if summary.connected:
        lines.append(_connection_line(summary))
    return [*lines, *_token_lines(summary), *_length_lines(summary)]


def _goodput_bounds(summary: Summary) -> str:
    share = share_interval(summary.good, summary.scheduled)
    return f"{share.low or 0:.1%}–{share.high or 0:.1%}"


def steady_line(found: SteadyPart) -> str:
    """Where the steady part begins, and what the beginning did to the median."""
    length, n = found.warm_up.length, found.warm_up.n
    if n < warm_up.MINIMUM:
        return f"Too few answers to tell where the steady part begins: {n} of {warm_up.MINIMUM}."
    if not found.warm_up.settled:
        return (
            f"No steady part: {found.metric} had not settled by the middle of the run; its percentiles "
            "describe a change and not a state. Ask for more requests, or for a lower rate."
        )
    if length == 0:
        return f"Steady from the first answer on, by {found.metric}."
    return (
        f"Steady from answer {length + 1} of {n} on, by {found.metric}; without those before it (up to "
        f"request {found.last_left_out}) its p50 is {number(found.p50_ms)} ms."
    )


def stopping_line(stopping: Stopping, sent: int) -> str:
    """Whether a rule ended the run, and what is known of its figure."""
    figure, _, width = stopping.rule.partition(":")
    found = stopping.estimate
    if found is None:
        return f"--stop-when {stopping.rule}: no request has such a figure."
    value = f"{figure} {number(found.value * 1000)} ms"
    if found.low is not None and found.high is not None:
        value = f"{value} ({number(found.low * 1000)}–{number(found.high * 1000)}, valid at any time)"
    if stopping.reached:
        return f"Stopped after {sent} of {stopping.planned} requests, {figure} known to {width}: {value}."
    return f"Not stopped early: {figure} was not known to {width} after {found.n} answers: {value}."


def _connection_line(summary: Summary) -> str:
    fresh = summary.connected - summary.reused_connections
    line = f"Open connections were used by {summary.reused_connections / summary.connected:.1%} of requests"
    if not fresh:
        return line + "."
    return f"{line}; the handshakes of {fresh} are in their user TTFT (--warm-connections opens more ahead)."


def _token_lines(summary: Summary) -> list[str]:
    """Totals, and how much of them the server left untold: unknown is not 0."""
    prompt, cached, output = (
        "unknown" if count is None else str(count)
        for count in (summary.prompt_tokens, summary.cached_tokens, summary.output_tokens)
    )
    lines = [
        f"Prompt tokens: {prompt} (cached: {cached}), output tokens: {output}; "
        f"counted by {', '.join(sorted(summary.token_sources)) or 'nothing'}."
    ]
    if summary.cached_tokens:
        lines.append(
            f"Prompt tokens from a cache: {cached} of {prompt}; without it there would have been more to do."
        )
    if summary.requests_without_usage:
        lines.append(
            f"Answers without usage: {summary.requests_without_usage} of {summary.complete}. Their prompt "
            "tokens are unknown, and those of the run."
        )
    if summary.requests_without_cached_tokens > summary.requests_without_usage:
        lines.append(
            f"Answers with usage that do not tell cached tokens: "
            f"{summary.requests_without_cached_tokens - summary.requests_without_usage} of "
            f"{summary.complete}."
        )
    return lines


def _length_lines(summary: Summary) -> list[str]:
    lines = []
    if summary.shorter_than_asked:
        lines.append(
            f"Answers shorter than asked: {summary.shorter_than_asked} of {summary.complete}; runs with "
            "other lengths measure other work (--ignore-eos fixes them where the server knows it)."
        )
    if summary.longer_than_asked:
        lines.append(
            f"Answers longer than asked: {summary.longer_than_asked} of {summary.complete}; the server does "
            "not keep to max_tokens, or counts otherwise."
        )
    return lines


def _known(value: float | None) -> str:
    return "unknown" if value is None else number(value)


def calibration_line(calibration: Calibration) -> str:
    """The client's verdict on itself."""
    if calibration.reference_p99_ms is None:
        return "VOID: nothing completed."
    if calibration.null_p99_ms is None:
        return "VOID: the null server did not answer, so the client's own error is unknown."
    share = calibration.error_ms / calibration.reference_p99_ms if calibration.reference_p99_ms else 1.0
    verdict = "VOID, latencies say more of the client than of the server" if calibration.void else "valid"
    several = ""
    if calibration.shards:
        void = [str(shard) for shard, its_own in enumerate(calibration.shards) if its_own.void]
        several = f" Of {len(calibration.shards)} client processes void: {', '.join(void) or 'none'}."
    return (
        f"Client's own error: null server p99 {calibration.null_p99_ms:.3f} ms over {calibration.probes} "
        f"probes, dispatch lag p99 {calibration.dispatch_lag_p99_ms:.3f} ms: {share:.1%} of the reported p99 "
        f"(limit {calibration.limit_share:.0%}): {verdict}.{several}"
    )
