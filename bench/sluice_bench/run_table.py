"""One run for a terminal: its distributions, what happened in sentences, and the client's verdict on itself.

Computes no metric of its own.
"""

from __future__ import annotations

from rich.table import Table

from sluice_bench.calibration import Calibration
from sluice_bench.formatting import number
from sluice_bench.metrics import Distribution, Summary


def summary_table(summary: Summary) -> Table:
    """The distributions of one run, milliseconds."""
    table = Table(title="milliseconds")
    for column in ("metric", "n", "mean", "p50", "p90", "p95", "p99", "max"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    metrics = (
        ("TTFT, user", summary.ttft_user_ms),
        ("TTFT, service", summary.ttft_service_ms),
        ("TPOT", summary.tpot_ms),
        ("TBT (per token)", summary.tbt_ms),
        ("NTPOT", summary.ntpot_ms),
        ("E2E", summary.e2e_ms),
        ("longest stall", summary.stall_ms),
        ("dispatch lag", summary.dispatch_lag_ms),
    )
    for name, found in metrics:
        if found is not None:
            table.add_row(name, *_cells(found))
    return table


def _cells(found: Distribution) -> list[str]:
    values = (found.mean, found.p50, found.p90, found.p95, found.p99, found.high)
    return [str(found.count), *("–" if value is None else number(value) for value in values)]


def summary_lines(summary: Summary) -> list[str]:
    """What happened, in sentences."""
    lines = [f"{summary.complete} of {summary.scheduled} scheduled requests complete."]
    lines += [f"{count} failed: {name}." for name, count in summary.failures.items()]
    if summary.whole is not None:
        rate = f"{_known(summary.whole.tokens_per_s)} output tokens/s over {summary.whole.seconds:.2f} s"
        steady = f", {_known(summary.steady.tokens_per_s)} while steady" if summary.steady else ""
        lines.append(rate + steady + ".")
    lines.append(
        f"Goodput: {summary.goodput_share:.1%} of scheduled requests, {number(summary.goodput_per_s)}/s."
    )
    if summary.connected:
        lines.append(_connection_line(summary))
    return [*lines, *_token_lines(summary), *_length_lines(summary)]


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
