"""From rows of the worker bench to figures, verdicts and the page."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from sluice_bench.checkpoint import SHAPES
from sluice_bench.figure import Figure
from sluice_bench.gateway_targets import Missing
from sluice_bench.worker_bench import CellResult, WorkerBench
from sluice_bench.worker_command import without_results
from sluice_bench.worker_figures import pairs, weights_read, worker_figures
from sluice_bench.worker_plan import LARGE, ROOF, SMALL, Cell, Group, Lane, Row, full_plan
from sluice_bench.worker_report import render_worker
from sluice_bench.worker_targets import LABELS

from .invented_machine import TEST_MACHINE

CELLS = {cell.key: cell for cell in full_plan(3)}


def row(contestant: str, repeat: int = 0, label: str = "", problem: str = "", **figures: float) -> Row:
    return Row(
        contestant=contestant, label=label, repeat=repeat, figures=figures, problem=problem, foreign_cores=0.0
    )


def measured(key: str, rows: Sequence[Row], missing: Sequence[Missing] = ()) -> CellResult:
    return CellResult(
        cell=CELLS[key],
        measured_at="2026-01-01T10:00+00:00",
        commit="abc1234",
        seconds=12.0,
        weight_bytes=2_069_000_000,
        rows=list(rows),
        missing=list(missing),
    )


def bench_of(*results: CellResult, failed: dict[str, str] | None = None) -> WorkerBench:
    return WorkerBench(
        command="sluice-bench worker",
        quick=False,
        environment=TEST_MACHINE,
        versions={"llama.cpp": "as in llama-cpp-python"},
        threads=2,
        foreign_before=0.0,
        results={result.cell.key: result for result in results},
        failed=failed or {},
    )


def figure(bench: WorkerBench, name: str) -> Figure:
    [found] = [figure for figure in worker_figures(bench) if name in figure.name]
    return found


ONE = f"decode/{LARGE}/plain/1 stream"


def test_every_figure_is_there_before_anything_is_measured() -> None:
    found = worker_figures(bench_of())
    assert len({figure.name for figure in found}) == len(found) > 30
    assert {figure.verdict for figure in found} == {"not measured"}


def test_every_figure_can_be_measured_by_the_plan() -> None:
    """Rows of every step of the plan, in which each engine is as fast as the others."""
    figures = {
        "tokens_per_s": 10.0, "prefill_tokens_per_s": 9.0, "tpot_p50_ms": 50.0, "ttft_p50_ms": 4.0,
        "best_gb_s": 50.0, "idle_gap_p99_ms": 3.0, "busy_gap_p99_ms": 6.0, "first_token_s": 4.0,
        "peak_mb": 2300.0, "kv_mb": 60.0,
    }  # fmt: skip
    facts: dict[str, dict[str, object]] = {
        name: {"weight_bytes": 2_200_000_000} for name in ("worker-bf16", "worker-int8", "worker-int4")
    }
    results = []
    for key, cell in CELLS.items():
        rows = [row(step.contestant, 0, step.label, **figures) for step in cell.steps]
        results.append(msgspec.structs.replace(measured(key, rows), facts=facts))
    assert [figure.name for figure in worker_figures(bench_of(*results)) if figure.value is None] == []


def test_a_ratio_is_of_the_same_repeat_and_its_value_the_median() -> None:
    ours = [row("worker-bf16", repeat, tokens_per_s=speed) for repeat, speed in enumerate((10.0, 30.0, 12.0))]
    theirs = [row("llamacpp-bf16", repeat, tokens_per_s=speed) for repeat, speed in ((0, 10.0), (1, 20.0))]
    found = figure(bench_of(measured(ONE, [*theirs, *ours])), "1.1B, 1 stream: bf16 ÷ llama-server")
    assert (found.value, found.spread, found.verdict) == (1.25, (1.0, 1.5), "aim")
    assert len(pairs(ours, theirs)) == 2


def test_a_quotient_is_disturbed_when_either_of_its_rows_was() -> None:
    ours = [row("worker-bf16", repeat, tokens_per_s=10.0) for repeat in range(3)]
    theirs = [row("llamacpp-bf16", repeat, tokens_per_s=10.0) for repeat in range(3)]
    name = "1.1B, 1 stream: bf16 ÷ llama-server"
    ours[0] = msgspec.structs.replace(ours[0], foreign_cores=1.0)
    assert not figure(bench_of(measured(ONE, [*ours, *theirs])), name).disturbed
    theirs[1] = msgspec.structs.replace(theirs[1], foreign_cores=1.0)
    assert figure(bench_of(measured(ONE, [*ours, *theirs])), name).disturbed


def test_a_row_with_a_problem_does_not_count_and_is_named() -> None:
    rows = [
        row("worker-bf16", 0, tokens_per_s=10.0, problem="63 output tokens, not 64"),
        row("llamacpp-bf16", 0, tokens_per_s=10.0),
    ]
    bench = bench_of(measured(ONE, rows))
    assert figure(bench, "1.1B, 1 stream: bf16 ÷ llama-server").verdict == "not measured"
    assert "Does not count: worker-bf16: 63 output tokens, not 64." in render_worker(bench, "raw.json")


def test_an_engine_that_hides_its_prompt_cache_counts_and_is_named() -> None:
    rows = [
        row("worker-bf16", 0, tokens_per_s=10.0, cache_untold_requests=0.0),
        row("llamacpp-bf16", 0, tokens_per_s=10.0, cache_untold_requests=2.0),
    ]
    bench = bench_of(measured(ONE, rows))
    assert figure(bench, "1.1B, 1 stream: bf16 ÷ llama-server").value == 1.0
    page = render_worker(bench, "raw.json")
    assert [line for line in page.splitlines() if "prompt cache" in line and "Unchecked" in line] == [
        f"- Unchecked: {LABELS['llamacpp-bf16']} does not tell what came from a prompt cache."
    ]


def test_the_best_precision_of_each_side_is_held_against_the_other() -> None:
    rows = [
        row("worker-bf16", tokens_per_s=100.0),
        row("worker-int8", tokens_per_s=400.0),
        row("llamacpp-bf16", tokens_per_s=50.0),
        row("llamacpp-q8_0", tokens_per_s=100.0),
    ]
    found = figure(bench_of(measured(f"decode/{SMALL}/quantized/32 streams", rows)), "best precision")
    assert (found.value, found.note) == (4.0, "worker-int8 ÷ llamacpp-q8_0")


def test_the_roofs_share_is_of_what_the_worker_holds_less_the_embedding() -> None:
    key = f"roof/{LARGE}/own"
    rows = [
        row(ROOF, best_gb_s=50.0),
        row("worker-bf16", tpot_p50_ms=50.0),
        row("worker-int8", tpot_p50_ms=25.0),
    ]
    shape = SHAPES[LARGE]
    held = 1_000_000_000 + shape.vocab * shape.hidden * 2
    facts: dict[str, dict[str, object]] = {"worker-int8": {"weight_bytes": held}}
    result = msgspec.structs.replace(measured(key, rows), facts=facts)
    assert weights_read(result, "worker-int8") == 1_000_000_000
    bench = bench_of(result)
    assert figure(bench, "read roof, int8").value == pytest.approx(100 * 1.0 / 0.025 / 50)
    assert figure(bench, "read roof, bf16").value == pytest.approx(100 * 2.069 / 0.05 / 50)
    assert figure(bench, "read roof, int4").value is None


def test_a_share_above_the_roof_is_called_impossible() -> None:
    rows = [row(ROOF, best_gb_s=20.0), row("worker-bf16", tpot_p50_ms=50.0)]
    found = figure(bench_of(measured(f"roof/{LARGE}/own", rows)), "read roof, bf16")
    assert "the probe of the memory was disturbed" in found.note


def test_slower_and_lower_are_judged_the_right_way_round() -> None:
    context = measured(
        f"context/{LARGE}/own",
        [row("worker-bf16", 0, "128", tpot_p50_ms=40.0), row("worker-bf16", 0, "2,048", tpot_p50_ms=50.0)],
    )
    hog = measured(
        f"hog/{LARGE}/own",
        [
            row("worker-bf16", 0, "quiet", tokens_per_s=20.0),
            row("worker-bf16", 0, "hogged", tokens_per_s=9.0),
        ],
    )
    start = measured(
        f"start/{LARGE}/unloaded",
        [row("worker-bf16", 0, "cold", first_token_s=6.0, peak_mb=2464.0, kv_mb=64.0)],
    )
    facts: dict[str, dict[str, object]] = {"worker-bf16": {"num_parameters": 1_100_000_000}}
    bench = bench_of(context, msgspec.structs.replace(hog, facts=facts), start)
    slower = figure(bench, "decode at context 2,048")
    assert (slower.value, slower.verdict) == (pytest.approx(25.0), "no")
    share = figure(bench, "hogs a core")
    assert (share.value, share.verdict) == (pytest.approx(45.0), "bar")
    assert figure(bench, "cold start").verdict == "no"
    peak = figure(bench, "1.1B bf16: (peak RSS")
    assert (peak.value, peak.verdict) == (pytest.approx(2400 / 2200), "bar")


def test_the_page_hides_nothing() -> None:
    rows = [row("worker-bf16", repeat, tokens_per_s=10.0, tpot_p50_ms=40.0) for repeat in range(3)]
    rows += [row("llamacpp-bf16", repeat, tokens_per_s=20.0, tpot_p50_ms=20.0) for repeat in range(3)]
    rows[0] = msgspec.structs.replace(rows[0], foreign_cores=1.5)
    result = measured(ONE, rows, [Missing("vllm-cpu-bf16", "no network | here")])
    page = render_worker(bench_of(result, failed={"start/x": "no disk"}), "raw.json")
    assert (
        "| 1.1B, 1 stream: bf16 ÷ llama-server bf16 | ≥ 1 × | ≥ 1.15 × | 0.50 × (0.50–0.50) | **no** |"
        in page
    )
    assert "vLLM CPU bf16 | not measured: no network / here" in page
    assert "1 of 3" in page
    assert "`start/x` could not be measured: no disk" in page


def test_cells_have_keys_of_their_own() -> None:
    assert len(CELLS) == len(full_plan(3))
    assert all(isinstance(cell, Cell) and cell.repeats <= 3 for cell in CELLS.values())
    lanes = {cell.lane for cell in CELLS.values()}
    assert lanes == set(Lane)
    assert {cell.group for cell in CELLS.values()} == set(Group)


def test_what_a_report_has_can_be_left_out() -> None:
    first, second = list(CELLS.values())[:2]
    earlier = bench_of(measured(first.key, [row("worker-bf16")]), failed={second.key: "no memory"})
    assert without_results([first, second], earlier) == (second,)
    assert without_results([first, second], None) == (first, second)
