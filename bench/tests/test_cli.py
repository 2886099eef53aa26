"""The command as a user types it, against the null server."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.commands.run_command import without_secrets
from sluice_bench.processes import ServerProcess, free_port, null_server_process
from sluice_bench.recording.run_file import read_run

from .reports.test_push import gateway

runner = CliRunner()
pytestmark = pytest.mark.usefixtures("few_probes")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with null_server_process(tmp_path_factory.mktemp("null"), chunks=5, pace_ms=2) as process:
        yield process


def test_ping_tries_models_plain_and_stream(server: ServerProcess) -> None:
    result = runner.invoke(app, ["ping", server.url])
    assert result.exit_code == 0, result.output
    assert [line[:4] for line in result.output.splitlines()] == ["ok  "] * 3
    assert "null" in result.output


def test_ping_of_nobody_is_one_sentence() -> None:
    result = runner.invoke(app, ["ping", f"http://127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
    assert "Connection refused" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "loop",
    [
        ["--concurrency", "3"],
        ["--rate", "200"],
        ["--rate", "200", "--arrival", "constant"],
        ["--ramp", "100:200:1", "--suite", "multi-turn"],
        ["--rate", "200", "--preset", "qwen-api", "--fit", "1024"],
    ],
)
def test_run_reports_every_request(server: ServerProcess, tmp_path: Path, loop: list[str]) -> None:
    output = tmp_path / "run.json"
    result = runner.invoke(
        app, ["run", "--url", server.url, *loop, "--requests", "12", "--output", str(output)]
    )
    assert result.exit_code in (0, 3), result.output  # 3: void, when the machine is busy
    assert result.output.startswith("12 requests of ")
    assert ("arrivals, sha256" in result.output) == ("--concurrency" not in loop)
    assert "12 of 12 scheduled requests complete." in result.output
    assert "Open connections were used by 100.0% of requests." in result.output
    written = json.loads(output.read_text())
    assert written["summary"]["output_tokens"] == 60
    assert len(written["records"]) == 12
    assert ("VOID" in result.output) == (result.exit_code == 3)


def test_a_run_file_verifies_and_keeps_no_secret(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    arguments = ["--concurrency", "2", "--requests", "6", "--api-key", "sk-secret", "--variant", "a"]
    result = runner.invoke(app, ["run", "--url", server.url, *arguments, "--output", str(path)])
    assert result.exit_code in (0, 3), result.output
    run = read_run(path)
    assert (len(run.requests), run.meta.variant, run.meta.load.concurrency) == (6, "a", 2)
    assert run.meta.start_ns == run.requests[0].scheduled_ns
    assert run.meta.workload_sha256 in result.output
    assert [request.item for request in run.requests] == [f"short-{index:04d}" for index in range(6)]
    assert b"sk-secret" not in path.read_bytes()
    assert runner.invoke(app, ["verify", str(path)]).exit_code == 0


def test_a_command_line_is_kept_without_its_secrets() -> None:
    typed = "sluice-bench run --api-key sk-1 --header 'X-Key: open sesame' --url http://h"
    kept = without_secrets(typed, "sk-1", ["X-Key: open sesame"])
    assert kept == "sluice-bench run --api-key *** --header 'X-Key: ***' --url http://h"
    typed = "sluice-bench run --push http://me:s3cret@h:9091"
    kept = without_secrets(typed, None, [], "http://me:s3cret@h:9091")
    assert kept == "sluice-bench run --push http://***@h:9091"


def test_a_run_as_csv_has_a_row_a_request(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.csv"
    arguments = ["--concurrency", "2", "--requests", "6", "--output", str(path)]
    result = runner.invoke(app, ["run", "--url", server.url, *arguments])
    assert result.exit_code in (0, 3), result.output
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["index"] for row in rows] == [str(index) for index in range(6)]
    assert {row["output_tokens"] for row in rows} == {"5"}
    assert all(float(row["tokens_per_s"]) > 0 for row in rows)


def test_a_run_is_pushed_and_its_file_keeps_no_password(server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    with gateway() as (pushed, address):
        arguments = ["--output", str(path), "--push", f"http://me:s3cret@{address}"]
        result = runner.invoke(
            app, ["run", "--url", server.url, "--concurrency", "2", "--requests", "6", *arguments]
        )
    assert result.exit_code in (0, 3), result.output
    [(_, group, authorization, body)] = pushed.seen
    assert "/metrics/job/sluice_bench/" in group and authorization is not None
    assert 'sluice_bench_requests{outcome="complete"} 6.0' in body
    assert b"s3cret" not in path.read_bytes()


def test_a_run_that_cannot_be_kept_or_pushed_ends_with_a_sentence(
    server: ServerProcess, tmp_path: Path
) -> None:
    run = ["run", "--url", server.url, "--concurrency", "2", "--requests", "2"]
    (tmp_path / "file").write_text("")
    for arguments, sentence in (
        (["--output", str(tmp_path / "file" / "run.csv")], "cannot be written"),
        (["--push", f"http://me:s3cret@127.0.0.1:{free_port()}"], "did not take the figures"),
    ):
        result = runner.invoke(app, [*run, *arguments])
        assert result.exit_code == 1
        assert sentence in " ".join(result.output.split())
        assert "s3cret" not in result.output and "Traceback" not in result.output


def test_run_asks_for_plain_answers_too(server: ServerProcess) -> None:
    result = runner.invoke(
        app, ["run", "--url", server.url, "--plain", "--concurrency", "2", "--requests", "4"]
    )
    assert "4 of 4 scheduled requests complete." in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--url", "http://127.0.0.1:1"], "either --concurrency N"),
        (["--url", "http://127.0.0.1:1", "--rate", "1", "--concurrency", "1"], "either --concurrency N"),
        (["--url", "http://127.0.0.1:1", "--rate", "1", "--ramp", "1:2:3"], "either --concurrency N"),
        (["--url", "http://127.0.0.1:1", "--rate", "1", "--cv", "2"], "belong together"),
        (["--url", "http://127.0.0.1:1", "--rate", "1", "--sessions"], "--concurrency N"),
        (
            ["--url", "http://127.0.0.1:1", "--model", "m", "--concurrency", "1000", "--requests", "1000"],
            "--processes 2",
        ),
        (["--url", "http://127.0.0.1:1", "--trace", "no-such-file"], "No such file"),
        (["--url", "127.0.0.1", "--rate", "1"], "is not a server address"),
        (["--url", "http://127.0.0.1:1", "--model", "m", "--rate", "-1"], "must be a positive number"),
        (["--url", "http://127.0.0.1:1", "--model", "m", "--rate", "1", "--header", "x"], "'Name: value'"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments: list[str], sentence: str) -> None:
    result = runner.invoke(app, ["run", *arguments])
    assert result.exit_code == 1
    assert sentence in result.output


def test_a_run_with_failures_ends_with_the_first_of_them() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    arguments = ["--rate", "100", "--requests", "2", "--warm-connections", "0"]
    result = runner.invoke(app, ["run", "--url", url, "--model", "m", *arguments])
    assert result.exit_code == 1
    assert "0 of 2 scheduled requests complete." in result.output
    assert "First failure: request 0, connect_failed" in result.output


@pytest.mark.parametrize("loop", [["--concurrency", "2"], ["--rate", "100"]])
def test_a_load_on_nobody_is_one_sentence(loop: list[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = runner.invoke(app, ["run", "--url", url, "--model", "m", *loop])
    assert result.exit_code == 1
    assert "cannot be reached" in result.output
    assert "Traceback" not in result.output


def test_baseline_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    arguments = ["baseline", "--quick", "--only", "worker", "--bundled-model", str(tmp_path)]
    result = runner.invoke(app, [*arguments, "--output", str(tmp_path / "page.md")])
    assert result.exit_code == 1
    assert "--bundled-model" in result.output
    assert not (tmp_path / "page.md").exists()


@pytest.mark.parametrize("command", ["run", "verify", "ping", "baseline", "null-server", "prompts"])
def test_every_command_explains_itself(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 10
