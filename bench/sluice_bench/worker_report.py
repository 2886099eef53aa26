"""The page of the worker bench: figures against their bars, the setting, a table per cell, and trust."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from sluice_bench.figure import figures_section
from sluice_bench.formatting import DISTURBED_CORES, number, spread
from sluice_bench.gateway_report import machine
from sluice_bench.gateway_tables import cell as cell_text
from sluice_bench.worker_bench import CellResult, WorkerBench
from sluice_bench.worker_figures import worker_figures
from sluice_bench.worker_loads import CACHE_UNTOLD
from sluice_bench.worker_plan import (
    LARGE,
    ROOF,
    SMALL,
    Cell,
    Extension,
    Group,
    Intrusion,
    Lane,
    Load,
    Row,
    Start,
    Streams,
)
from sluice_bench.worker_targets import ALL_CONTESTANTS, LABELS

_SHAPES = {LARGE: "TinyLlama-1.1B's shape", SMALL: "SmolLM-135M's shape"}
_TITLES = {
    Lane.DECODE: "Throughput",
    Lane.PREFILL: "Prefill",
    Lane.ROOF: "Share of the memory's read roof",
    Lane.CONTEXT: "Long contexts",
    Lane.VERIFY: "A step of four tokens",
    Lane.STUTTER: "A long prompt beside a running stream",
    Lane.BATCHING: "Continuous batching and none",
    Lane.HOG: "Another process on one core",
    Lane.START: "Start and memory",
}
_EXPLAINED = {
    Lane.DECODE: "Tokens/s are output tokens over the whole window, prefill included; TPOT is decode alone.",
    Lane.PREFILL: "One request at a time with one output token: prompt tokens over the time to it.",
    Lane.ROOF: (
        "The roof is the best of several reads of a buffer as large as the weights, in the same repeat. "
        "A share is weights as the worker holds them, read once a token, over TPOT, over the roof."
    ),
    Lane.CONTEXT: "The same worker on short and on long prompts, in turn.",
    Lane.VERIFY: (
        "HTTP has no request that verifies drafted tokens, so the step is measured as the time to the first "
        "token of a prompt of which all but the last one or four tokens are in the prefix cache: the same "
        "step of the engine, with a request around it that is in both."
    ),
    Lane.STUTTER: "Gaps between tokens of one stream before a long prompt arrives, and while it is read.",
    Lane.BATCHING: "The same requests with `--batching continuous` and `--batching none`.",
    Lane.HOG: "One stream, alone and beside a process that does nothing else than keep one core busy.",
    Lane.START: (
        "From starting the process to the first token of a short prompt. Cold: its files were dropped from "
        "the page cache before, as far as nobody else held them. The peak is the largest resident set of its "
        "largest process, after 16 streams."
    ),
}
_COLUMNS = {
    "tokens_per_s": "output tokens/s",
    "prefill_tokens_per_s": "prompt tokens/s",
    "ttft_p50_ms": "TTFT p50 ms",
    "tpot_p50_ms": "TPOT p50 ms",
    "best_gb_s": "best GB/s",
    "idle_gap_p99_ms": "gap p99 before, ms",
    "busy_gap_p99_ms": "gap p99 meanwhile, ms",
    "busy_gap_max_ms": "longest gap, ms",
    "intruder_ttft_ms": "TTFT of the long prompt, ms",
    "ready_s": "ready after s",
    "first_token_s": "first token after s",
    "peak_mb": "peak RSS MB",
    "cpu_ms_per_token": "CPU ms / output token",
    "engine_cores": "engine's cores",
    "client_cores": "client's cores",
    "resident_mb": "RSS MB",
}
_PREFILL_ONLY = ("prefill_tokens_per_s",)


def render_worker(bench: WorkerBench, raw_name: str) -> str:
    """The Markdown page; `raw_name` is the file with the raw rows beside it."""
    results = sorted(bench.results.values(), key=lambda result: _order(result.cell))
    parts = [
        _opening(bench, raw_name),
        figures_section(worker_figures(bench)),
        _setting(bench, results),
        *(_section(result) for result in results),
        _trust(bench, results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _order(cell: Cell) -> tuple[int, str, int, str]:
    groups = list(Group)
    return list(Lane).index(cell.lane), cell.shape, groups.index(cell.group), cell.name.zfill(12)


def _opening(bench: WorkerBench, raw_name: str) -> str:
    warning = (
        "\n\n**This was a `--quick` run: it shows that everything works. Its figures mean nothing.**"
        if bench.quick
        else ""
    )
    return (
        "# Worker on CPUs: against its bars and beside other engines\n\n"
        f"Last run:\n\n```\n{bench.command}\n```\n\n"
        f"Every repeat is a row in [{raw_name}]({raw_name}); each table says when it was measured. A figure "
        "is the median of its repeats, with the smallest and the largest in brackets; a ratio is taken "
        "repeat by repeat between engines that took turns. How each is measured: "
        "[measuring.md](../measuring.md). Why bars are missed, and what was tried: "
        "[worker-cpu-notes.md](worker-cpu-notes.md)." + warning
    )


def _setting(bench: WorkerBench, results: Sequence[CellResult]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in bench.versions.items())
    commands: dict[str, str] = {}
    for result in results:
        commands |= result.commands
    lines = [f"{LABELS[name]}: `{commands[name]}`" for name in ALL_CONTESTANTS if name in commands]
    return "\n\n".join(
        [
            "## Setting",
            f"{machine(bench.environment)} Peers: {versions}. Every engine has {bench.threads} threads and "
            "the same random weights; a request is a prompt of token ids and a fixed number of output "
            "tokens, greedy. Engines of a table are loaded together and take turns; whoever's turn it is not "
            "is paused. `transformers` gets its batches without HTTP. Client and engine share the cores.",
            "\n".join(f"- {line}" for line in lines),
        ]
    )


def _section(result: CellResult) -> str:
    cell = result.cell
    title = f"## {_TITLES[cell.lane]}: {_SHAPES.get(cell.shape, cell.shape)}"
    title += f", {cell.name}" if cell.name else ""
    what = "; ".join(dict.fromkeys(_described(step.load) for step in cell.steps))
    when = f"Measured {result.measured_at} at commit `{result.commit}` in {result.seconds:.0f} s."
    intro = f"{_EXPLAINED[cell.lane]} {what[:1].upper()}{what[1:]}; {cell.repeats} repeats. {when}"
    columns = _columns(result)
    head = ["engine", *(_COLUMNS[name] for name in columns), "disturbed"]
    lines = [_line(result, step.contestant, step.label, columns) for step in cell.steps]
    lines = [line for line in lines if line]
    lines += [
        [LABELS.get(gone.target, gone.target), f"not measured: {cell_text(gone.reason)}"]
        + [""] * (len(head) - 2)
        for gone in result.missing
    ]
    table = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    table += ["| " + " | ".join(line) + " |" for line in lines]
    problems = dict.fromkeys(
        f"{row.contestant}: {cell_text(row.problem)}" for row in result.rows if row.problem
    )
    notes = [f"- Does not count: {problem}." for problem in problems]
    untold = dict.fromkeys(row.contestant for row in result.rows if row.figures.get(CACHE_UNTOLD))
    notes += [
        f"- Unchecked: {LABELS.get(name, name)} does not tell what came from a prompt cache."
        for name in untold
    ]
    return "\n\n".join([f"{title}", intro, "\n".join(table), *notes])


def _described(load: Load) -> str:
    match load:
        case Streams():
            tokens = f"{load.prompt_tokens:,} tokens in, {load.output_tokens} out"
            return f"{tokens}, {load.requests} requests a repeat"
        case Extension():
            return f"a prefix of {load.prefix_tokens:,} tokens, {load.requests} requests a repeat"
        case Intrusion():
            return (
                f"a stream of {load.output_tokens} tokens, a prompt of {load.intruder_tokens:,} after "
                f"{load.after_s:g} s"
            )
        case Start():
            return "one server at a time"
        case _:
            return "a probe of the memory before them"


def _columns(result: CellResult) -> list[str]:
    """What was measured, of what this lane is about."""
    found = {name for row in result.rows for name in row.figures}
    unwanted = set() if result.cell.lane is Lane.PREFILL else set(_PREFILL_ONLY)
    if result.cell.lane is Lane.PREFILL:
        unwanted = {"tokens_per_s", "tpot_p50_ms", "cpu_ms_per_token"}
    return [name for name in _COLUMNS if name in found and name not in unwanted]


def _line(result: CellResult, contestant: str, label: str, columns: Sequence[str]) -> list[str]:
    """Empty when nothing was measured."""
    rows = [row for row in result.rows if row.contestant == contestant and row.label == label]
    counted = [row for row in rows if not row.problem]
    if not rows:
        return []
    name = "memory read" if contestant == ROOF else LABELS[contestant]
    cells = [spread([row.figures[column] for row in counted if column in row.figures]) for column in columns]
    bad = sum(row.foreign_cores > DISTURBED_CORES for row in rows)
    return [f"{name}, {label}" if label else name, *cells, f"{bad} of {len(rows)}"]


def _trust(bench: WorkerBench, results: Sequence[CellResult]) -> str:
    rows: Iterable[Row] = [row for result in results for row in result.rows]
    foreign = [row.foreign_cores for row in rows]
    lines = ["## How far to trust these figures", ""]
    lines += [f"- `{key}` could not be measured: {cell_text(reason)}" for key, reason in bench.failed.items()]
    if bench.foreign_before > DISTURBED_CORES:
        lines.append(
            f"- **The machine was not quiet: others kept {number(bench.foreign_before)} cores busy before "
            "the first cell of the last run.**"
        )
    if foreign:
        bad = sum(cores > DISTURBED_CORES for cores in foreign)
        lines.append(
            f"- CPU of others during the repeats: median {statistics.median(foreign):.2f} cores, at most "
            f"{max(foreign):.2f}; {bad} of {len(foreign)} repeats had more than {DISTURBED_CORES:g} and "
            "count as disturbed."
        )
    lines += [
        "- Every request was checked: no failure, prompt and output tokens as asked, nothing from a prompt "
        "cache as far as the engine tells. A repeat in which one was not counts nowhere and is named under "
        "its table.",
        "- Machines differ in how much faster they compute than they read memory: ratios travel better than "
        "tokens/s, and neither travels far.",
    ]
    return "\n".join(lines)
