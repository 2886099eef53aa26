"""The batching ladder: the same requests for every rung, and a page that says what they gave."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_bench.calibration import Calibration
from sluice_bench.cli import app
from sluice_bench.ladder import (
    MODELS,
    QUICK_LOAD,
    RUNGS,
    Ladder,
    LadderLoad,
    LadderModel,
    LadderRow,
    LadderSettings,
    Rung,
    choose_models,
    choose_rungs,
    counters,
    kv_bytes,
    measure_ladder,
    number_of_steps,
)
from sluice_bench.ladder_report import render_ladder
from sluice_bench.target import Target
from sluice_bench.workload import Asking, early_ending_requests, geometric_lengths

from .invented_machine import TEST_MACHINE

BUNDLED = Path(__file__).parents[2] / "worker-core/models/sluice-tiny"
SOUND = Calibration(
    probes=20, null_p50_ms=0.1, null_p99_ms=0.2, dispatch_lag_p99_ms=0.1, reference_p99_ms=50.0
)


def test_answers_have_very_different_lengths_within_their_bounds() -> None:
    lengths = geometric_lengths(2000, mean=48, low=8, high=192, seed=1)

    assert lengths == geometric_lengths(2000, mean=48, low=8, high=192, seed=1)
    assert (min(lengths), max(lengths)) == (8, 192)
    assert 44 < statistics.mean(lengths) < 50
    assert statistics.median(lengths) < 40


def test_a_request_may_take_many_tokens_and_ends_after_few() -> None:
    target = Target(host="127.0.0.1", port=8000)
    asking = Asking(model="m", ignore_eos=True)
    requests = early_ending_requests(target, [(1, 2), (3,)], [5, 9], 256, asking)

    bodies = [json.loads(request.wire.partition(b"\r\n\r\n")[2]) for request in requests]
    assert [(body["prompt"], body["min_tokens"]) for body in bodies] == [([1, 2], 5), ([3], 9)]
    assert all(body["max_tokens"] == 256 and " " in body["stop"] for body in bodies)


def test_kv_memory_is_what_the_shape_says(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    shape = {"num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64}
    config.write_text(json.dumps(shape))
    assert kv_bytes(config, "bfloat16", 10) == 2 * 3 * 2 * 8 * 2 * 10
    config.write_text(json.dumps({**shape, "head_dim": 16}))
    assert kv_bytes(config, "float32", 10) == 2 * 3 * 2 * 16 * 4 * 10


def test_counters_are_read_without_labels_and_gauges() -> None:
    page = (
        "# HELP sluice_worker_steps_total Engine steps.\n"
        "sluice_worker_steps_total 12.0\n"
        'sluice_worker_requests_total{endpoint="chat",outcome="completed"} 3.0\n'
        "sluice_worker_requests_running 1.0\n"
    )
    assert counters(page) == {"steps": 12.0}


def row(rung: Rung, speed: float, *, repeat: int = 0, tokens: int = 100, waits: int = 2) -> LadderRow:
    return LadderRow(
        model=MODELS[0].name,
        rung=rung,
        load="4 concurrent",
        repeat=repeat,
        requests=waits,
        failures=0,
        output_tokens=tokens,
        cached_tokens=0,
        seconds=1.0,
        tokens_per_s=speed,
        ttft_ms=[float(i + 1) for i in range(waits)],
        tpot_p50_ms=20.0,
        mean_batch=2.5,
        kv_utilisation=0.75,
        preemptions=1,
        foreign_cores=0.0,
        calibration=SOUND,
    )


def ladder(*rows: LadderRow) -> Ladder:
    return Ladder(
        command="sluice-bench ladder",
        measured_at="2026-01-01T00:00+00:00",
        quick=False,
        environment=TEST_MACHINE,
        load=LadderLoad(),
        models=MODELS[:1],
        rungs=RUNGS,
        rows=list(rows),
    )


FIRST, LAST = Rung("none", "paged"), Rung("continuous", "paged")


def test_the_page_holds_medians_ratios_and_verdicts() -> None:
    rows = [row(FIRST, 10.0), row(FIRST, 12.0, repeat=1), row(FIRST, 11.0, repeat=2), row(LAST, 44.0)]
    page = render_ladder(ladder(*rows), "raw.json")

    assert "| none | paged | 11.0 (10.0–12.0) | 1.00 | 1.00 | ≤ 2.00 | 20.0" in page
    assert "| continuous | paged | 44.0 (44.0–44.0) | 4.00 |" in page
    assert "| 75% | 1 |" in page
    assert "4.00 times none (bar: 3 times, met); 44.0 tokens/s (bar: 30, met)" in page
    assert "All rungs and repeats made the same number of tokens" in page


def test_a_missed_bar_and_unequal_work_are_said() -> None:
    page = render_ladder(ladder(row(FIRST, 10.0), row(LAST, 20.0, tokens=99)), "raw.json")

    assert "2.00 times none (bar: 3 times, missed); 20.0 tokens/s (bar: 30, missed)" in page
    assert f"different numbers of tokens of the same requests: {MODELS[0].name}, 4 concurrent." in page


def test_a_p99_needs_a_hundred_requests() -> None:
    page = render_ladder(ladder(row(FIRST, 10.0, waits=100)), "raw.json")

    assert "| 50.0 | 99.0 |" in page
    assert "bar:" not in page  # nothing to compare with


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--only", "brave"],
            "--only does not know brave; choose from none, static, dynamic, continuous, none-dense",
        ),
        (["--model", "gpt-9"], "--model does not know gpt-9; choose from tinyllama-1.1b, sluice-tiny."),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(arguments: list[str], said: str) -> None:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["ladder", *arguments])

    assert result.exit_code == 1
    assert said in " ".join(result.output.split())


def test_rungs_are_named_by_mode_or_whole() -> None:
    assert choose_rungs(None) == RUNGS
    assert [rung.name for rung in choose_rungs(["continuous-dense", "none"])] == [
        "none-dense",
        "none-paged",
        "continuous-dense",
    ]
    assert choose_models(MODELS, ["sluice-tiny"]) == MODELS[1:]


@pytest.mark.usefixtures("few_probes")
def test_a_worker_is_climbed_with_every_load() -> None:
    settings = LadderSettings(
        load=msgspec.structs.replace(QUICK_LOAD, concurrencies=(2, 4)),
        models=(LadderModel(name="tiny", shape=None, dtype="float32", rate=50.0),),
        rungs=(Rung("dynamic", "dense"),),
        bundled_model=BUNDLED,
    )
    steps: list[str] = []

    measured = measure_ladder(settings, "command", "now", True, steps.append)

    assert len(steps) == number_of_steps(settings)
    assert [row.load for row in measured.rows] == ["2 concurrent", "4 concurrent", "Poisson"]
    for row in measured.rows:
        assert (row.failures, row.cached_tokens, row.preemptions) == (0, 0, 0)
        assert len(row.ttft_ms) == row.requests
        assert row.output_tokens >= row.requests * QUICK_LOAD.least_output_tokens
        assert 0 < row.kv_utilisation < 1
        assert row.mean_batch >= 1
