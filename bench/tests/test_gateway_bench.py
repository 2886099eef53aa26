"""The gateway bench from end to end, on the real gateway, without other projects' packages."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.gateway_bench import GatewayBench, LaneResult


def bench(folder: Path, *arguments: str) -> GatewayBench:
    command = ["gateway", "--quick", "--no-peers", "--output-dir", str(folder), *arguments]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return msgspec.json.decode((folder / "gateway.json").read_bytes(), type=GatewayBench)


def targets(lane: LaneResult | None) -> set[str]:  # type: ignore[type-arg]
    assert lane is not None
    assert sum(row.failures for row in lane.rows) == 0
    return {row.target for row in lane.rows}


def test_lanes_can_be_measured_one_after_another_into_one_report(tmp_path: Path) -> None:
    first = bench(tmp_path, "--only", "plain")
    assert targets(first.plain) == {"direct", "sluice", "fastapi-httpx"}
    assert first.latency is None

    second = bench(tmp_path, "--only", "latency")
    assert second.plain == first.plain
    assert targets(second.latency) == {"direct", "sluice", "fastapi-httpx"}

    page = (tmp_path / "gateway.md").read_text()
    assert "mean nothing" in page
    assert "## Plain requests: CPU per request" in page and "## Added latency" in page


def test_a_gateway_that_does_not_start_is_the_lanes_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice_bench.gateway_targets.script", lambda name: "/nonexistent/sluice")
    command = ["gateway", "--quick", "--no-peers", "--output-dir", str(tmp_path), "--only", "memory"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "Lane `memory` could not be measured" in (tmp_path / "gateway.md").read_text()
