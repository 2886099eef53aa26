"""The baseline page: medians of measured rows with their spread, ratios, and how far to trust them.

Computes no metric of its own; prints what it is given, disturbed and void repeats included.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from sluice_bench.baseline import Baseline
from sluice_bench.calibration import LIMIT_SHARE
from sluice_bench.formatting import DISTURBED_CORES, number, spread
from sluice_bench.gateway_overhead import Kind, OverheadRow
from sluice_bench.worker_throughput import ModelFigures, ThroughputRow

_TARGETS = {
    "direct": "null server, asked directly",
    "sluice": "**Sluice**, key checked",
    "fastapi-httpx": "FastAPI + httpx proxy, no key",
}


def render_baseline(baseline: Baseline, raw_name: str) -> str:
    """The Markdown page; `raw_name` is the file with the raw rows beside it."""
    parts = [_opening(baseline, raw_name), _machine(baseline)]
    if baseline.gateway:
        parts.append(_gateway_section(baseline))
    if baseline.worker:
        parts.append(_worker_section(baseline))
    parts.append(_trust(baseline))
    return "\n\n".join(parts) + "\n"


def _opening(baseline: Baseline, raw_name: str) -> str:
    warning = (
        "\n\n**This was a `--quick` run: it shows that everything works. Its figures mean nothing.**"
        if baseline.quick
        else ""
    )
    return (
        "# Baseline: the first figures\n\n"
        f"Measured {baseline.measured_at} at commit `{baseline.environment.commit}` with\n\n"
        f"```\n{baseline.command}\n```\n\n"
        f"Every repeat is a row in [{raw_name}]({raw_name}). A figure is the median of its repeats, with the "
        "smallest and the largest in brackets. What each metric means is defined in one place, "
        "`bench/sluice_bench/metrics.py`." + warning
    )


def _machine(baseline: Baseline) -> str:
    env = baseline.environment
    packages = ", ".join(f"{name} {number}" for name, number in env.packages.items())
    return (
        "## Machine\n\n"
        f"{env.cpu}, {env.cores} cores, {env.memory_gib:.0f} GiB, {env.system}, Python {env.python}; "
        f"{packages}. Load average before the run: {env.load_average:.2f}. "
        "Client, servers and upstream share these cores."
    )


def _gateway_section(baseline: Baseline) -> str:
    load = baseline.overhead_load
    lines = [
        "## Gateway: CPU per request and per relayed SSE event",
        "",
        f"{load.connections} connections in a closed loop; plain answers of 1.4 KB; streams of "
        f"{load.chunks} chunks {load.pace_ms:g} ms apart; {load.repeats} repeats, targets in turn. User + "
        "system CPU of the server's whole process tree; nothing subtracted. A stream's events include role, "
        "finish and `[DONE]`; its fixed cost is spread over them. Sluice runs its whole request path with a "
        "key, writes one log line a request, and asks upstream for the usage that the client did not ask "
        "for; the proxy does none of that.",
        "",
        "| target | CPU µs / plain request | ratio | CPU µs / SSE event | ratio | resident MiB "
        "| client CPU µs / event | events per read |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [_gateway_line(baseline.gateway, name) for name in _TARGETS]
    failures = sum(row.failures for row in baseline.gateway)
    lines += ["", f"Ratio: cost relative to Sluice. Failed requests in all repeats: {failures}."]
    return "\n".join(lines)


def _gateway_line(rows: Sequence[OverheadRow], target: str) -> str:
    plain, stream = _overhead(rows, target, "plain"), _overhead(rows, target, "stream")
    cells = [
        _TARGETS[target],
        spread([row.server_cpu_us_per_unit for row in plain]),
        _ratio(plain, _overhead(rows, "sluice", "plain")),
        spread([row.server_cpu_us_per_unit for row in stream]),
        _ratio(stream, _overhead(rows, "sluice", "stream")),
        f"{max(row.server_resident_mib for row in stream):.0f}",
        spread([row.client_cpu_us_per_unit for row in stream]),
        spread([row.units / max(1, row.reads) for row in stream]),
    ]
    return "| " + " | ".join(cells) + " |"


def _overhead(rows: Iterable[OverheadRow], target: str, kind: Kind) -> list[OverheadRow]:
    return [row for row in rows if row.target == target and row.kind == kind]


def _ratio(rows: Sequence[OverheadRow], reference: Sequence[OverheadRow]) -> str:
    ours = statistics.median(row.server_cpu_us_per_unit for row in reference)
    theirs = statistics.median(row.server_cpu_us_per_unit for row in rows)
    return f"{theirs / ours:.2f}" if ours else "–"


def _worker_section(baseline: Baseline) -> str:
    load = baseline.throughput_load
    head = (
        "## Worker: tokens per second\n\n"
        f"{load.prompt_tokens} prompt tokens, {load.output_tokens} output tokens, greedy, end tokens "
        f"ignored, {load.waves} requests per stream and repeat, {load.repeats} repeats, fresh prompts. "
        "Tokens/s are output tokens over the whole window, prefill included. Both engines have "
        f"{load.threads} threads and the same checkpoint, and take turns; `transformers` runs one static "
        "batch without HTTP, and its TTFT is that of a batch with one output token. The share of the roof "
        "is that of decoding alone, 1 / TPOT."
    )
    return "\n\n".join([head, *(_model_section(figures) for figures in baseline.worker)])


def _model_section(figures: ModelFigures) -> str:
    info, band = figures.worker_info, figures.bandwidth
    lines = [
        f"### {figures.model}",
        "",
        f"Worker: {info.get('kernels')} kernels, {info.get('dtype')}, {info.get('device')}, "
        f"{_millions(info.get('num_parameters'))} parameters. One decode step reads "
        f"{figures.weight_bytes / 1e6:,.1f} MB of weights (as stored); a buffer of that size is read here at "
        f"{band.best_gb_s:.1f} GB/s at best ({band.threads} threads, median {band.median_gb_s:.1f}). Roof of "
        f"one stream: **{figures.roof_tokens_per_s:,.1f} tokens/s** (KV cache reads left out).",
        "",
        "| engine | streams | output tokens/s | TTFT p50 ms | TPOT p50 ms | decode, share of roof |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    engines = dict.fromkeys((row.engine, row.streams) for row in figures.rows)
    lines += [_throughput_line(figures, engine, streams) for engine, streams in sorted(engines)]
    return "\n".join(lines)


def _millions(count: object) -> str:
    return f"{count / 1e6:,.1f} M" if isinstance(count, int) else "unknown"


def _throughput_line(figures: ModelFigures, engine: str, streams: int) -> str:
    rows = [row for row in figures.rows if row.engine == engine and row.streams == streams]
    decode = [1000 / row.tpot_p50_ms for row in rows if row.tpot_p50_ms]
    share = statistics.median(decode) / figures.roof_tokens_per_s if decode and streams == 1 else None
    cells = [
        engine,
        str(streams),
        spread([row.tokens_per_s for row in rows]),
        spread([row.ttft_p50_ms for row in rows if row.ttft_p50_ms is not None]),
        spread([row.tpot_p50_ms for row in rows if row.tpot_p50_ms is not None]),
        "–" if share is None else f"{number(share * 100)} %",
    ]
    return "| " + " | ".join(cells) + " |"


def _trust(baseline: Baseline) -> str:
    rows = [row for figures in baseline.worker for row in figures.rows]
    foreign = [row.foreign_cores for row in baseline.gateway] + [row.foreign_cores for row in rows]
    disturbed = sum(cores > DISTURBED_CORES for cores in foreign)
    lines = [
        "## How far to trust these figures",
        "",
        f"- CPU of others during the repeats: median {statistics.median(foreign):.2f} cores, at most "
        f"{max(foreign):.2f}; {disturbed} of {len(foreign)} repeats had more than {DISTURBED_CORES:g} and "
        "count as disturbed. CPU time suffers little from that (caches, clock), latency and tokens/s a lot.",
        "- CPU times come in steps of 10 ms. Ratios travel between machines, absolute figures do not.",
    ]
    if rows:
        lines.append(_calibration_line(rows))
        lines.append(
            f"- Failed requests in the worker's repeats: {sum(row.failures for row in rows)}; prompt tokens "
            f"that came from a prefix cache: {sum(row.cached_tokens for row in rows)}."
        )
    return "\n".join(lines)


def _calibration_line(rows: Sequence[ThroughputRow]) -> str:
    found = [row.calibration for row in rows if row.calibration is not None]
    void = sum(calibration.void for calibration in found)
    worst = max((calibration.error_ms for calibration in found), default=0.0)
    return (
        f"- The client's own error, measured in every repeat against a null server on the same cores: at "
        f"most {worst:.2f} ms. Latencies are void where that is more than {LIMIT_SHARE:.0%} of the "
        f"p99 TTFT: {void} of {len(found)} repeats."
    )
