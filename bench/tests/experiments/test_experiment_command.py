"""Experiments as a user types them, with `--quick`, on the real gateway and worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sluice_bench.cli import app
from sluice_bench.experiments import requirement
from sluice_bench.experiments.results_folder import run_files
from sluice_bench.recording.run_file import read_run
from sluice_bench.recording.verification import complaints

BUNDLED = Path(__file__).parents[3] / "worker-core/models/sluice-tiny"
runner = CliRunner(env={"COLUMNS": "300"})
pytestmark = pytest.mark.usefixtures("few_probes")


def experiment(tmp_path: Path, name: str, *more: str) -> Result:
    arguments = ["experiment", name, "--quick", "--bundled-model", str(BUNDLED), *more]
    return runner.invoke(app, [*arguments, "--results", str(tmp_path / "results")])


def test_a_report_has_plots_raw_rows_and_runs_that_verify(tmp_path: Path) -> None:
    result = experiment(tmp_path, "batching", "--only", "continuous", "--output", str(tmp_path))

    assert result.exit_code == 0, result.output
    raw = json.loads((tmp_path / "batching.json").read_text())
    assert [row["load"] for row in raw["rows"]] == ["1 at a time", "10 at a time", "Poisson, 20 a second"]
    for row in raw["rows"]:
        assert (row["failures"], row["cached_tokens"], row["misrouted"]) == (0, 0, 0)
        assert len(row["ttft_ms"]) == row["requests"]
        assert row["figures"]["mean_batch"] >= 1
        assert 0 < row["figures"]["kv_utilisation"] <= 1
        run = read_run(tmp_path / "results" / row["run_file"])
        assert complaints(run) == []
        assert run.meta.figures_sha256 == row["figures_sha256"]
        assert {record.backend for record in run.requests} == {"worker"}
    page = (tmp_path / "batching.md").read_text()
    assert "Its figures mean nothing." in page
    assert "](batching-speed.svg)" in page
    assert (tmp_path / "batching-ttft.svg").read_text().startswith("<svg")


def test_dense_memory_is_reserved_and_paged_memory_is_held(tmp_path: Path) -> None:
    result = experiment(tmp_path, "paged-kv", "--output", str(tmp_path))

    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "paged-kv.json").read_text())["rows"]
    used = {row["variant"]: row["figures"]["kv_utilisation"] for row in rows if row["load"] == "4 at a time"}
    assert used["dense"] < used["paged"]
    assert len({row["workload_sha256"] for row in rows if row["load"] == "4 at a time"}) == 1


def test_quantized_workers_are_chosen_by_header_and_smaller(tmp_path: Path) -> None:
    only = ("--only", "bf16", "--only", "int4")
    result = experiment(tmp_path, "quant", *only, "--output", str(tmp_path))

    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "quant.json").read_text())["rows"]
    weights = {row["variant"]: row["figures"]["weights_mb"] for row in rows}
    assert weights["int4"] < weights["bf16"]
    assert [row["misrouted"] for row in rows] == [0, 0, 0, 0]


def test_the_gateway_and_the_worker_itself_are_asked_the_same(tmp_path: Path) -> None:
    result = experiment(tmp_path, "short-prompts")

    assert result.exit_code == 0, result.output
    assert "TTFT over direct" in result.output
    direct, gateway = (
        read_run(run_files(tmp_path / "results", variant)[0]) for variant in ("direct", "gateway")
    )
    assert direct.meta.workload_sha256 == gateway.meta.workload_sha256
    assert {record.backend for record in direct.requests} == {""}
    assert {record.backend for record in gateway.requests} == {"worker"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["experiment", "tensor-parallel"], "needs a sluice-worker with tensor parallelism"),
        (["experiment", "backends", "--peers-dir", "/nowhere"], "needs llama.cpp's server"),
        (["experiment", "batching", "--bundled-model", "/nowhere"], "needs the bundled model"),
        (["speculative"], "needs a sluice-worker with speculative decoding"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence_with_status_2(arguments: list[str], sentence: str) -> None:
    result = runner.invoke(app, arguments)

    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_nothing_is_started_when_programs_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirement, "script", lambda name: f"/nowhere/{name}")
    for arguments in (["experiment", "quant"], ["local"]):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 2
        assert "there is no sluice here" in result.output


def test_an_unknown_variant_is_refused_with_those_that_are(tmp_path: Path) -> None:
    result = experiment(tmp_path, "batching", "--only", "brave")

    assert result.exit_code == 1
    assert "--only does not know brave; choose from none, static, dynamic, continuous" in result.output
