"""`sluice-bench ab` over real sockets, against null servers of known slowness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from sluice_bench.cli import app
from sluice_bench.processes import ServerProcess, free_port, null_server_process
from sluice_bench.recording.run_file import read_run
from sluice_bench.recording.verification import complaints
from sluice_bench.runs.ab_record import AbRecord

runner = CliRunner()
FAST_MS, SLOW_MS = 20.0, 60.0
PACE_MS = 12.0
"""A busy machine may keep the client from reading until all of an answer is there, which has no TPOT then."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    folder = tmp_path_factory.mktemp("null")
    with (
        null_server_process(folder, 3, PACE_MS, more=["--first-ms", str(FAST_MS)]) as fast,
        null_server_process(folder, 3, PACE_MS, more=["--first-ms", str(SLOW_MS)]) as slow,
    ):
        yield fast, slow


@pytest.fixture(autouse=True)
def quick_and_never_void(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers this fast are below what a busy machine's client can measure; no verdict here needs that."""
    monkeypatch.setattr("sluice_bench.runs.ab_slots._SLOT_PROBES", 1)
    monkeypatch.setattr("sluice_bench.runs.ab_slots.slot_void", lambda calibration, figures: False)


def compared(*arguments: str) -> Result:
    loop = ["--blocks", "7", "--requests-per-slot", "2", "--concurrency", "2"]
    return runner.invoke(app, ["ab", *arguments, *loop], env={"COLUMNS": "100"})


def record_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_slower_server_gets_that_verdict(
    servers: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    fast, slow = servers
    output, runs = tmp_path / "ab.json", tmp_path / "runs"
    result = compared("--a", fast.url, "--b", slow.url, "--output", str(output), "--runs", str(runs))
    assert result.exit_code == 0, result.output
    assert "Verdict: B is slower" in result.output
    said = result.output.index("Minimum detectable effect")
    assert said < result.output.index("B is slower")
    [row] = [line for line in result.output.splitlines() if line.strip().startswith("tokens/s")]
    assert len(row) <= 100 and row.split()[-1] in ("slower", "shown")

    run = record_of(output)["run"]
    verdict = {found["metric"]: found for found in run["comparisons"]}
    assert verdict["ttft-p50"]["verdict"] == verdict["e2e-p50"]["verdict"] == "slower"
    assert verdict["ttft-p50"]["ratio"]["value"] > 1.3
    assert len(run["slots"]) == 28
    for half in range(14):
        asked = {
            slot["workload_sha256"]
            for slot in run["slots"]
            if 2 * slot["block"] + slot["position"] // 2 == half
        }
        assert len(asked) == 1
    assert len({slot["workload_sha256"] for slot in run["slots"]}) == 14
    kept = read_run(runs / run["slots"][5]["file"])
    assert kept.meta.records_sha256 == run["slots"][5]["records_sha256"]
    assert kept.meta.variant == run["slots"][5]["variant"]
    assert complaints(kept) == []
    again = msgspec.json.decode(output.read_bytes(), type=AbRecord)
    assert again.run.sound_blocks == 7 and again.run.complete


def test_a_server_against_itself_asked_in_two_ways_gives_a_valid_answer(
    servers: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    output = tmp_path / "ab.json"
    headers = ["--a-header", "X-Quant: int8", "--b-header", "X-Key: open sesame", "--api-key", "sk-secret"]
    result = compared("--a", servers[0].url, *headers, "--ttft-ms", "500", "--output", str(output))
    assert result.exit_code == 0, result.output
    assert "Verdict: " in result.output
    assert "X-Quant: int8" in result.output
    record = record_of(output)
    assert {found["metric"] for found in record["run"]["comparisons"]} == {
        "ttft-p50", "ttft-mean", "tpot-p50", "e2e-p50", "tokens-per-s", "goodput",
    }  # fmt: skip
    [goodput] = (found for found in record["run"]["comparisons"] if found["metric"] == "goodput")
    assert goodput["verdict"] == "no difference shown"
    assert "sesame" not in output.read_text() and "sk-secret" not in output.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "either --concurrency N"),
        (["--concurrency", "1", "--rate", "1"], "either --concurrency N"),
        (["--rate", "0"], "--rate must be positive"),
        (["--concurrency", "1", "--effect", "big"], "is no share"),
        (["--concurrency", "1", "--metric", "joy"], "There is no --metric"),
        (["--concurrency", "1", "--metric", "goodput"], "needs an objective"),
        (["--concurrency", "1", "--plain"], "--metric e2e-p50"),
        (["--concurrency", "1", "--model", "m"], "cannot be reached"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments: list[str], sentence: str) -> None:
    result = runner.invoke(app, ["ab", "--a", f"http://127.0.0.1:{free_port()}", *arguments])
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output
