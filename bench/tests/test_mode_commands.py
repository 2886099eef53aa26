"""`local`, `http`, `compare` and the short way in, as a user types them."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sluice_bench.cli import app
from sluice_bench.processes import ServerProcess, free_port, null_server_process
from sluice_bench.recording.run_file import read_run

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "worker-core/models/sluice-tiny"
runner = CliRunner(env={"COLUMNS": "200"})
pytestmark = pytest.mark.usefixtures("few_probes")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with null_server_process(tmp_path_factory.mktemp("null"), chunks=5, pace_ms=2) as process:
        yield process


@pytest.fixture(scope="module")
def kept(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs that are called `before`."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sluice_bench.calibration.MIN_PROBES", 4)
        result = mode("http", "--url", server.url, "--variant", "before", "--results", str(folder))
    assert result.exit_code == 0, result.output
    assert "2 iterations of 3 requests" in result.output
    assert all(word in result.output for word in ("mean", "median", "std", "TTFT p50 ms", "tokens/s"))
    return folder


def mode(*arguments: str) -> Result:
    command, *others = arguments
    few = ("--requests", "3", "--iterations", "2", "--warm-up", "1")
    return runner.invoke(app, [command, *few, *others])


def test_runs_with_a_name_are_kept_without_their_warm_up(kept: Path) -> None:
    runs = [read_run(path) for path in sorted((kept / "before").iterdir())]
    assert [len(run.requests) for run in runs] == [3, 3]
    assert len({run.meta.workload_sha256 for run in runs}) == 2


def test_a_server_is_compared_with_runs_that_were_kept(server: ServerProcess, kept: Path) -> None:
    result = mode("compare", "--url", server.url, "--baseline", "before", "--results", str(kept))

    assert result.exit_code == 0, result.output
    for word in ("baseline mean", "server mean", "ratio", "E2E p50 ms"):
        assert word in result.output, result.output
    assert [path.name for path in kept.iterdir()] == ["before"]
    assert len(list((kept / "before").iterdir())) == 2


@pytest.mark.parametrize(
    "other", [["--seed", "2"], ["--concurrency", "2"], ["--rate", "50"], ["--requests", "4"]]
)
def test_kept_runs_that_asked_for_other_work_are_refused(
    server: ServerProcess, kept: Path, other: list[str]
) -> None:
    result = mode("compare", "--url", server.url, "--baseline", "before", "--results", str(kept), *other)

    assert result.exit_code == 1
    assert "asked for other work" in result.output


def test_two_servers_are_compared_in_turn(server: ServerProcess, tmp_path: Path) -> None:
    with null_server_process(tmp_path, chunks=5, pace_ms=15) as slow:
        result = mode("compare", "--url", server.url, "--baseline", slow.url)

    assert result.exit_code == 0, result.output
    [line] = [line for line in result.output.splitlines() if "E2E p50 ms" in line]
    assert float(line.replace("│", " ").split()[-1]) < 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--baseline", "nobody"], "There are no kept runs below"),
        (["--baseline", "before", "--rate", "-1"], "must be a positive number"),
        (["--baseline", "ftp://x"], "is not a server address"),
    ],
)
def test_a_baseline_that_is_none_gets_a_sentence(
    server: ServerProcess, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    result = mode("compare", "--url", server.url, "--results", str(tmp_path), *arguments)

    assert result.exit_code == 1
    assert sentence in result.output


def test_a_request_that_fails_ends_the_command(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = mode("http", "--url", url, "--model", "m")

    assert result.exit_code == 1
    assert "cannot be reached" in result.output


def test_local_starts_the_worker_with_its_options_and_ends_it() -> None:
    worker = ("--worker-args", "--quantization int8", "--bundled-model", str(BUNDLED))
    result = mode("local", *worker)

    assert result.exit_code == 0, result.output
    assert "sluice-tiny, 2 iterations of 3 requests" in result.output


def test_local_says_why_the_worker_does_not_start() -> None:
    result = mode("local", "--worker-args", "--no-such-option", "--bundled-model", str(BUNDLED))

    assert result.exit_code == 1
    assert "No such option" in result.output


def test_ping_only_generates_nothing(server: ServerProcess) -> None:
    result = runner.invoke(app, ["ping", server.url, "--ping-only"])
    assert (result.exit_code, len(result.output.splitlines())) == (0, 1)

    result = runner.invoke(app, ["ping", server.url, "--ping-only", "--model", "gpt-9"])
    assert result.exit_code == 1
    assert "has no model gpt-9 but: null" in result.output


@pytest.mark.parametrize("own", [True, False], ids=["own server", "given server"])
def test_the_short_way_in_writes_a_row_for_each_request(
    server: ServerProcess, tmp_path: Path, own: bool
) -> None:
    output = tmp_path / "batched.csv"
    command = [sys.executable, str(ROOT / "bench/benchmark.py"), "--concurrency", "3", "--suite", "short"]
    command += ["--requests", "6", "--output", str(output), *([] if own else ["--url", server.url])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.returncode in (0, 3), done.stderr  # 3: void, when the machine is busy
    assert "6 of 6 scheduled requests complete." in done.stdout
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["item"] for row in rows] == [f"short-{index:04d}" for index in range(6)]
    assert {row["backend"] for row in rows} == ({"worker"} if own else {""})
