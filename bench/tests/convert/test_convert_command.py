"""`sluice-bench convert` there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sluice_bench.cli import app
from sluice_bench.recording.run_file import read_run, write_run
from sluice_bench.recording.verification import complaints

from ..recording.invented_run import small_run

DATA = Path(__file__).parent / "data"


def convert(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, args)])


def words(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("tool", "name"),
    [("vllm", "vllm-worker.json"), ("guidellm", "guidellm-worker.json"), ("aiperf", "aiperf-worker.jsonl")],
)
def test_a_file_of_theirs_becomes_a_run_file_that_adds_up(tool: str, name: str, tmp_path: Path) -> None:
    output = tmp_path / "run.parquet"

    result = convert(DATA / name, "--from", tool, "--output", output)

    assert result.exit_code == 0, result.output
    run = read_run(output)
    assert complaints(run) == []
    assert run.meta.calibration.void
    assert run.meta.command == f"imported from {tool}: {name}"
    assert run.summary.ttft_user_ms is not None
    assert "Not taken from" in words(result)


@pytest.mark.parametrize(("tool", "suffix"), [("vllm", "json"), ("guidellm", "json"), ("aiperf", "jsonl")])
def test_a_run_file_becomes_theirs_beside_it(tool: str, suffix: str, tmp_path: Path) -> None:
    write_run(small_run(), tmp_path / "run.parquet")

    result = convert(tmp_path / "run.parquet", "--to", tool)

    assert result.exit_code == 0, result.output
    again = convert(tmp_path / f"run-{tool}.{suffix}", "--from", tool, "--output", tmp_path / "back.parquet")
    assert again.exit_code == 0, again.output
    first, back = small_run().summary, read_run(tmp_path / "back.parquet").summary
    assert first.ttft_user_ms is not None
    if tool != "vllm":  # whose chat answers may begin with a role
        assert back.ttft_user_ms is not None
        assert back.ttft_user_ms.mean == pytest.approx(first.ttft_user_ms.mean, abs=0.001)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "Say either --to or --from"),
        (["--to", "vllm", "--from", "vllm"], "Say either --to or --from"),
        (["--to", "vllm"], "not a parquet file"),
        (["--from", "vllm"], "is not JSON"),
        (["--from", "aiperf", "--benchmark", "1"], "is for reports of guidellm"),
    ],
)
def test_what_cannot_be_converted_is_said(args: list[str], says: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("neither")

    result = convert(file, *args)

    assert result.exit_code == 1
    assert says in words(result)
    assert "Traceback" not in result.output


def test_a_file_of_another_shape_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text('{"benchmarks": [{"requests": {"successful": [1]}}]}')

    result = convert(file, "--from", "guidellm")

    assert (result.exit_code, "not what guidellm writes" in words(result)) == (1, True)
