"""The worker's figures against their bars: from rows to one line each. Pure.

A ratio is taken repeat by repeat between contestants of one cell, which took turns; its value is the median.
Rows with a problem do not count. `met` is judged on the median, whatever the spread; a figure more than half
of whose rows were disturbed by other programs says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from sluice_bench.checkpoint import SHAPES
from sluice_bench.figure import Figure, disturbed
from sluice_bench.worker_bench import CellResult, WorkerBench
from sluice_bench.worker_plan import LARGE, ROOF, SMALL, Group, Lane, Row, streams_name
from sluice_bench.worker_targets import (
    CONTINUOUS_BF16,
    GENERATE_BF16,
    LLAMA_BF16,
    LLAMA_Q4_0,
    LLAMA_Q4_K_M,
    LLAMA_Q8_0,
    VLLM_BF16,
    WORKER_BF16,
    WORKER_INT4,
    WORKER_INT8,
    WORKER_NONE,
)

_BF16_BYTES = 2

Pairs = Sequence[tuple[Row, Row]]


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio of throughputs: ours over theirs."""

    name: str
    key: str
    """Of the cell."""
    ours: str
    theirs: str
    bar: float
    aim: float
    metric: str = "tokens_per_s"


def _key(lane: Lane, shape: str, group: Group, streams: int | None = None) -> str:
    name = [] if streams is None else [streams_name(streams)]
    return "/".join([lane, shape, group, *name])


_LARGE_1 = _key(Lane.DECODE, LARGE, Group.PLAIN, 1)
_LARGE_16 = _key(Lane.DECODE, LARGE, Group.PLAIN, 16)
_LARGE_PREFILL = _key(Lane.PREFILL, LARGE, Group.PLAIN)
_LARGE_Q_1 = _key(Lane.DECODE, LARGE, Group.QUANTIZED, 1)
_LARGE_Q_16 = _key(Lane.DECODE, LARGE, Group.QUANTIZED, 16)
_LARGE_Q_PREFILL = _key(Lane.PREFILL, LARGE, Group.QUANTIZED)
_LARGE_T_1 = _key(Lane.DECODE, LARGE, Group.TRANSFORMERS, 1)
_LARGE_T_16 = _key(Lane.DECODE, LARGE, Group.TRANSFORMERS, 16)
_SMALL_1 = _key(Lane.DECODE, SMALL, Group.PLAIN, 1)
_SMALL_16 = _key(Lane.DECODE, SMALL, Group.PLAIN, 16)
_SMALL_Q_1 = _key(Lane.DECODE, SMALL, Group.QUANTIZED, 1)
_SMALL_Q_32 = _key(Lane.DECODE, SMALL, Group.QUANTIZED, 32)
_SMALL_PREFILL = _key(Lane.PREFILL, SMALL, Group.PLAIN)


def _against(
    name: str, key: str, ours: str, theirs: str, bar: float, aim: float, metric: str = "tokens_per_s"
) -> Against:
    return Against(name=name, key=key, ours=ours, theirs=theirs, bar=bar, aim=aim, metric=metric)


_PREFILL = "prefill_tokens_per_s"
_LLAMA_1 = (
    _against("1.1B, 1 stream: bf16 ÷ llama-server bf16", _LARGE_1, WORKER_BF16, LLAMA_BF16, 1.0, 1.15),
    _against("1.1B, 1 stream: int8 ÷ llama-server q8_0", _LARGE_Q_1, WORKER_INT8, LLAMA_Q8_0, 1.1, 1.4),
    _against("1.1B, 1 stream: int4 ÷ llama-server q4_0", _LARGE_Q_1, WORKER_INT4, LLAMA_Q4_0, 1.0, 1.2),
    _against("1.1B, 1 stream: int4 ÷ llama-server q4_K_M", _LARGE_Q_1, WORKER_INT4, LLAMA_Q4_K_M, 1.0, 1.6),
)
_LLAMA_SMALL = (
    _against("135M, 1 stream: bf16 ÷ llama-server bf16", _SMALL_1, WORKER_BF16, LLAMA_BF16, 1.0, 1.8),
    _against("135M, 1 stream: int8 ÷ llama-server q8_0", _SMALL_Q_1, WORKER_INT8, LLAMA_Q8_0, 1.0, 1.8),
    _against("135M, 1 stream: int4 ÷ llama-server q4_0", _SMALL_Q_1, WORKER_INT4, LLAMA_Q4_0, 1.0, 1.8),
    _against("135M, 1 stream: int4 ÷ llama-server q4_K_M", _SMALL_Q_1, WORKER_INT4, LLAMA_Q4_K_M, 1.0, 1.8),
)
_LLAMA_16 = (
    _against("1.1B, 16 streams: bf16 ÷ llama-server bf16", _LARGE_16, WORKER_BF16, LLAMA_BF16, 1.6, 2.2),
    _against("1.1B, 16 streams: int8 ÷ llama-server q8_0", _LARGE_Q_16, WORKER_INT8, LLAMA_Q8_0, 2.5, 5.0),
)
_LLAMA_PREFILL = (
    _against(
        "1.1B, prefill of 1,024: bf16 ÷ llama-server bf16",
        _LARGE_PREFILL, WORKER_BF16, LLAMA_BF16, 1.3, 1.8, _PREFILL,
    ),
    _against(
        "1.1B, prefill of 1,024: int8 ÷ llama-server q8_0",
        _LARGE_Q_PREFILL, WORKER_INT8, LLAMA_Q8_0, 3.0, 5.0, _PREFILL,
    ),
    _against(
        "135M, prefill of 1,024: bf16 ÷ llama-server bf16",
        _SMALL_PREFILL, WORKER_BF16, LLAMA_BF16, 1.5, 2.5, _PREFILL,
    ),
)  # fmt: skip
_TRANSFORMERS = (
    _against("1.1B, 1 stream: bf16 ÷ `generate`", _LARGE_T_1, WORKER_BF16, GENERATE_BF16, 2.0, 4.0),
    _against("1.1B, 16 streams: bf16 ÷ `generate`", _LARGE_T_16, WORKER_BF16, GENERATE_BF16, 4.0, 10.0),
    _against(
        "1.1B, 16 streams: bf16 ÷ transformers' continuous batching",
        _LARGE_T_16, WORKER_BF16, CONTINUOUS_BF16, 5.0, 15.0,
    ),
)  # fmt: skip
_VLLM = (
    _against("1.1B, 1 stream: bf16 ÷ vLLM CPU bf16", _LARGE_1, WORKER_BF16, VLLM_BF16, 1.1, 1.2),
    _against("1.1B, 16 streams: bf16 ÷ vLLM CPU bf16", _LARGE_16, WORKER_BF16, VLLM_BF16, 1.1, 1.3),
    _against("1.1B, 16 streams: int8 ÷ vLLM CPU bf16", _LARGE_16, WORKER_INT8, VLLM_BF16, 1.5, 2.0),
    _against(
        "1.1B, prefill of 1,024: bf16 ÷ vLLM CPU bf16",
        _LARGE_PREFILL, WORKER_BF16, VLLM_BF16, 0.9, 1.0, _PREFILL,
    ),
    _against("135M, 1 stream: bf16 ÷ vLLM CPU bf16", _SMALL_1, WORKER_BF16, VLLM_BF16, 2.0, 4.0),
    _against("135M, 16 streams: bf16 ÷ vLLM CPU bf16", _SMALL_16, WORKER_BF16, VLLM_BF16, 1.3, 2.5),
)  # fmt: skip


def worker_figures(bench: WorkerBench) -> list[Figure]:
    """All of them, measured or not, in the order of the page."""
    return [
        *(_ratio(bench, against) for against in _LLAMA_1),
        _roof_share(bench, WORKER_BF16, "bf16", 80, 93),
        _roof_share(bench, WORKER_INT8, "int8", 75, 90),
        _roof_share(bench, WORKER_INT4, "int4", 65, 85),
        *(_ratio(bench, against) for against in _LLAMA_SMALL),
        *(_ratio(bench, against) for against in _LLAMA_16),
        _best_of_each(bench),
        *(_ratio(bench, against) for against in _LLAMA_PREFILL),
        *(_ratio(bench, against) for against in _TRANSFORMERS),
        *(_ratio(bench, against) for against in _VLLM),
        _prefill_int8_vllm(bench),
        _context(bench),
        _verify(bench, WORKER_BF16, "bf16"),
        _verify(bench, WORKER_INT8, "int8"),
        _stutter(bench),
        *_batching(bench),
        _hog(bench),
        *_start(bench),
    ]


def rows_of(result: CellResult | None, contestant: str, label: str | None = None) -> list[Row]:
    """The cell's rows that count, of one contestant (and load)."""
    rows = [] if result is None else result.rows
    rows = [row for row in rows if row.contestant == contestant and not row.problem]
    return [row for row in rows if label is None or row.label == label]


def pairs(ours: Sequence[Row], theirs: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of the same repeat."""
    by_repeat = {row.repeat: row for row in theirs}
    return [(row, by_repeat[row.repeat]) for row in ours if row.repeat in by_repeat]


def _figure(
    name: str,
    unit: str,
    bar: float | None,
    aim: float | None,
    values: Sequence[float],
    rows: Sequence[Row],
    *,
    higher_is_better: bool = False,
    note: str = "",
) -> Figure:
    return Figure(
        name=name,
        unit=unit,
        bar=bar,
        aim=aim,
        value=statistics.median(values) if values else None,
        spread=(min(values), max(values)) if values else None,
        higher_is_better=higher_is_better,
        note=note,
        disturbed=disturbed(row.foreign_cores for row in rows),
    )


def _quotients(found: Pairs, metric: str) -> list[float]:
    return [
        own.figures[metric] / other.figures[metric]
        for own, other in found
        if metric in own.figures and other.figures.get(metric)
    ]


def _worse(found: Pairs) -> list[Row]:
    """Of each pair the row that was disturbed more: it spoils the quotient whichever side it is on."""
    return [max(pair, key=lambda row: row.foreign_cores) for pair in found]


def _ratio(bench: WorkerBench, against: Against) -> Figure:
    result = bench.results.get(against.key)
    found = pairs(rows_of(result, against.ours), rows_of(result, against.theirs))
    values = _quotients(found, against.metric)
    return _figure(against.name, "×", against.bar, against.aim, values, _worse(found), higher_is_better=True)


def _prefill_int8_vllm(bench: WorkerBench) -> Figure:
    """An aim without a bar."""
    result = bench.results.get(_LARGE_PREFILL)
    found = pairs(rows_of(result, WORKER_INT8), rows_of(result, VLLM_BF16))
    name = "1.1B, prefill of 1,024: int8 ÷ vLLM CPU bf16"
    return _figure(name, "×", None, 1.6, _quotients(found, _PREFILL), _worse(found), higher_is_better=True)


def _best_of_each(bench: WorkerBench) -> Figure:
    """The contestant with the best median on either side, held against each other."""
    result = bench.results.get(_SMALL_Q_32)
    ours = _best(result, (WORKER_BF16, WORKER_INT8, WORKER_INT4))
    theirs = _best(result, (LLAMA_BF16, LLAMA_Q8_0, LLAMA_Q4_0))
    found = pairs(rows_of(result, ours), rows_of(result, theirs))
    name = "135M, 32 streams: best precision of each, Sluice ÷ llama-server"
    values = _quotients(found, "tokens_per_s")
    note = f"{ours} ÷ {theirs}"
    return _figure(name, "×", 2.5, 6.0, values, _worse(found), higher_is_better=True, note=note)


def _best(result: CellResult | None, names: Sequence[str]) -> str:
    def throughput(name: str) -> float:
        found = [row.figures.get("tokens_per_s", 0.0) for row in rows_of(result, name)]
        return statistics.median(found) if found else 0.0

    return max(names, key=throughput)


def weights_read(result: CellResult, contestant: str) -> float | None:
    """Bytes of weights, as the worker holds them, that one decode step of one stream reads.

    The worker says what it holds in all; of an embedding that is not the output matrix too, a step reads one
    row. `None` when it does not say, and the checkpoint's own bytes are not what it holds.
    """
    held = result.facts.get(contestant, {}).get("weight_bytes")
    shape = SHAPES[result.cell.shape]
    if isinstance(held, int):
        return held - (0 if shape.tied else shape.vocab * shape.hidden * _BF16_BYTES)
    return result.weight_bytes if contestant == WORKER_BF16 else None


def _roof_share(bench: WorkerBench, contestant: str, kind: str, bar: float, aim: float) -> Figure:
    result = bench.results.get(_key(Lane.ROOF, LARGE, Group.OWN))
    found = pairs(rows_of(result, contestant), rows_of(result, ROOF))
    weights = weights_read(result, contestant) if result else None
    shares = [
        100 * weights / (own.figures["tpot_p50_ms"] / 1000) / (roof.figures["best_gb_s"] * 1e9)
        for own, roof in found
        if weights and own.figures.get("tpot_p50_ms")
    ]
    roofs = [roof.figures["best_gb_s"] for _, roof in found]
    note = f"roof {statistics.median(roofs):.1f} GB/s" if roofs else ""
    if any(share > 100 for share in shares):
        note += "; nobody passes 100 %: the probe of the memory was disturbed, measure again"
    name = f"1.1B, 1 stream: share of the memory's read roof, {kind}"
    return _figure(name, "%", bar, aim, shares, _worse(found), higher_is_better=True, note=note)


def _own(
    bench: WorkerBench, lane: Lane, contestant: str, first: str, second: str, metric: str
) -> tuple[list[float], list[Row]]:
    """Quotients of a metric under one load over that under another."""
    result = bench.results.get(_key(lane, LARGE, Group.OWN))
    found = pairs(rows_of(result, contestant, first), rows_of(result, contestant, second))
    return _quotients(found, metric), _worse(found)


def _context(bench: WorkerBench) -> Figure:
    values, rows = _own(bench, Lane.CONTEXT, WORKER_BF16, "2,048", "128", "tpot_p50_ms")
    slower = [100 * (value - 1) for value in values]
    return _figure("1.1B bf16: decode at context 2,048 slower than at 128", "%", 20, 8, slower, rows)


def _verify(bench: WorkerBench, contestant: str, kind: str) -> Figure:
    values, rows = _own(bench, Lane.VERIFY, contestant, "4 new", "1 new", "ttft_p50_ms")
    name = f"1.1B {kind}: a step of 4 tokens of one sequence ÷ a step of 1"
    return _figure(name, "×", 1.3, 1.05, values, rows, note="whole requests behind a cached prefix")


def _stutter(bench: WorkerBench) -> Figure:
    result = bench.results.get(_key(Lane.STUTTER, LARGE, Group.OWN))
    rows = rows_of(result, WORKER_BF16)
    values = [row.figures["busy_gap_p99_ms"] / row.figures["idle_gap_p99_ms"] for row in rows]
    name = "1.1B bf16: inter-token p99 while a 4k prompt prefills ÷ idle p99"
    return _figure(name, "×", 3.0, 1.5, values, rows)


def _batching(bench: WorkerBench) -> list[Figure]:
    result = bench.results.get(_key(Lane.BATCHING, LARGE, Group.OWN))
    ours = rows_of(result, WORKER_BF16)
    found = pairs(ours, rows_of(result, WORKER_NONE))
    values = _quotients(found, "tokens_per_s")
    speeds = [row.figures["tokens_per_s"] for row in ours]
    name = "1.1B bf16, 4 concurrent: continuous batching"
    return [
        _figure(f"{name} ÷ none", "×", 3.0, None, values, _worse(found), higher_is_better=True),
        _figure(name, "tok/s", 30, None, speeds, ours, higher_is_better=True),
    ]


def _hog(bench: WorkerBench) -> Figure:
    values, rows = _own(bench, Lane.HOG, WORKER_BF16, "hogged", "quiet", "tokens_per_s")
    shares = [100 * value for value in values]
    name = "1.1B bf16, 1 stream: share of quiet throughput while another process hogs a core"
    return _figure(name, "%", 40, 55, shares, rows, higher_is_better=True)


def _start(bench: WorkerBench) -> list[Figure]:
    result = bench.results.get(_key(Lane.START, LARGE, Group.UNLOADED))
    figures = []
    for label, limit in (("cold", 5.0), ("warm", None)):
        rows = rows_of(result, WORKER_BF16, label)
        seconds = [row.figures["first_token_s"] for row in rows]
        name = f"1.1B bf16: {label} start to first token"
        if rows or limit is not None:
            figures.append(_figure(name, "s", limit, None, seconds, rows))
    for contestant, kind in ((WORKER_BF16, "bf16"), (WORKER_INT8, "int8"), (WORKER_INT4, "int4")):
        figures.append(_peak(bench, result, contestant, kind))
    return figures


def _peak(bench: WorkerBench, result: CellResult | None, contestant: str, kind: str) -> Figure:
    """The part of the peak that is not the KV cache, over the weights."""
    weights = _weights_held(bench, contestant)
    rows = rows_of(result, contestant)
    values = [(row.figures["peak_mb"] - row.figures["kv_mb"]) * 1e6 / weights for row in rows if weights]
    return _figure(f"1.1B {kind}: (peak RSS − KV) ÷ weights", "×", 1.15, None, values, rows)


def _weights_held(bench: WorkerBench, contestant: str) -> float | None:
    """From any cell in which the worker said so; else what a bfloat16 checkpoint weighs."""
    for result in bench.results.values():
        held = result.facts.get(contestant, {}).get("weight_bytes")
        if isinstance(held, int) and result.cell.shape == LARGE:
            return held
    for result in bench.results.values():
        count = result.facts.get(contestant, {}).get("num_parameters")
        if contestant == WORKER_BF16 and isinstance(count, int) and result.cell.shape == LARGE:
            return count * _BF16_BYTES
    return None
