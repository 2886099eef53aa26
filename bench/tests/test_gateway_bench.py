"""The gateway bench from end to end, on the real gateway, without other projects' packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.gateway_bench import GatewayBench, LaneResult


def measure(folder: Path, lane: str) -> Result:
    command = ["gateway", "--quick", "--no-peers", "--output-dir", str(folder), "--only", lane]
    return CliRunner().invoke(app, command)


def read(folder: Path) -> GatewayBench:
    return msgspec.json.decode((folder / "gateway.json").read_bytes(), type=GatewayBench)


def targets(lane: LaneResult[Any] | None) -> set[str]:
    assert lane is not None
    assert sum(row.failures for row in lane.rows) == 0
    return {row.target for row in lane.rows}


def test_lanes_are_measured_one_after_another_into_one_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = measure(tmp_path, "plain")
    assert result.exit_code == 0, result.output
    first = read(tmp_path)
    assert targets(first.plain) == {"direct", "bare-relay", "sluice", "sluice-sources", "fastapi-httpx"}
    assert first.latency is None

    failed = {"latency": "no gateway", "memory": "no gateway"}
    (tmp_path / "gateway.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(first, failed=failed))
    )
    result = measure(tmp_path, "latency")
    assert result.exit_code == 0, result.output
    second = read(tmp_path)
    assert second.plain == first.plain
    assert targets(second.latency) == {"direct", "bare-relay", "sluice", "fastapi-httpx"}
    assert second.failed == {"memory": "no gateway"}

    monkeypatch.setattr("sluice_bench.gateway_targets.script", lambda name: "/nonexistent/sluice")
    assert measure(tmp_path, "latency").exit_code == 1
    assert read(tmp_path).latency == second.latency
    page = (tmp_path / "gateway.md").read_text()
    assert "mean nothing" in page
    assert "## Plain requests: CPU per request" in page and "## Added latency" in page
    assert "Lane `latency` could not be measured" in page
