"""The client's own cost: measured in small, and its page."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.client_cost import ClientCost, ClientLoads, ClientRow
from sluice_bench.client_probe import ProbeResult
from sluice_bench.client_report import figures, render_client
from sluice_bench.peer_packages import PeerUnavailable

from .invented_machine import TEST_MACHINE


def test_a_quick_run_writes_its_page_without_the_other_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object) -> Path:
        raise PeerUnavailable("no network")

    monkeypatch.setattr("sluice_bench.client_cost.installed_script", nowhere)
    page = tmp_path / "client.md"
    result = CliRunner().invoke(app, ["client-cost", "--quick", "--output", str(page)])
    assert result.exit_code == 0, result.output
    cost = msgspec.json.decode(page.with_suffix(".json").read_bytes(), type=ClientCost)
    assert [(row.lane, row.client) for row in cost.rows] == [
        ("event", "sluice"),
        ("schedule", "sluice"),
        ("streams", "sluice"),
    ]
    event, schedule, streams = cost.rows
    assert event.result.events == 10 * (10 + 4)  # role, finish, usage and [DONE] are events too
    assert schedule.result.failures == 0 and schedule.result.lag_p99_ms is not None
    assert streams.result.timed_events > 0 and (streams.result.late_p50_ms or 0) > 0
    assert "no network" in page.read_text() and "not measured" in page.read_text()
    assert "Its figures mean nothing" in page.read_text()


def row(lane: str, client: str = "sluice", repeat: int = 0, **result: Any) -> ClientRow:
    fields: dict[str, Any] = {"hot_cpu_s": 0.5, "parse_cpu_s": 1.0, "wall_s": 10.0, "events": 100_000}
    return ClientRow(
        lane=lane,
        client=client,
        repeat=repeat,
        requests=2000,
        planned_events_per_s=100_000.0,
        result=ProbeResult(**fields | {"failures": 0} | result),
        server_cores=0.95,
        foreign_cores=0.0,
    )


def cost_of(*rows: ClientRow) -> ClientCost:
    return ClientCost(
        command="sluice-bench client-cost",
        measured_at="2026-01-01",
        quick=False,
        environment=TEST_MACHINE,
        loads=ClientLoads(),
        peer="aiohttp==0",
        rows=list(rows),
    )


def test_figures_are_medians_against_their_bars() -> None:
    rows = [
        *(row("event", repeat=repeat, hot_cpu_s=cpu) for repeat, cpu in enumerate((0.5, 0.9, 0.6))),
        row("event", "aiohttp", hot_cpu_s=3.0),
        row("schedule", lag_p50_ms=0.1, lag_p99_ms=1.5),
        row("streams", hot_cpu_s=5.0, events=1_000_000, late_p99_ms=2.0),
    ]
    found = {figure.name: figure for figure in figures(cost_of(*rows))}
    assert [(round(figure.value or 0, 3), figure.verdict) for figure in found.values()] == [
        (6.0, "bar"),
        (10.0, "no bar"),
        (30.0, "no bar"),
        (1.5, "no"),
        (4000.0, "bar"),
        (2.0, "no bar"),
    ]
    page = render_client(cost_of(*rows), "client.json")
    assert "| Sluice's | 6.00 (5.00–9.00) | 10.0 (10.0–10.0) |" in page
    assert "The null server was at its own limit in 1 repeats" in page


def test_streams_that_failed_were_not_carried() -> None:
    (figure,) = [f for f in figures(cost_of(row("streams", failures=1))) if f.name.startswith("streams")]
    assert figure.verdict == "not measured"


def test_the_other_client_cuts_events_wherever_reads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", types.ModuleType("aiohttp"))
    cutter = importlib.import_module("sluice_bench.peers.aiohttp_streams").EventCutter()
    stream = b'data: {"a": 1}\n\n: note\n\ndata: [DONE]\n\n'
    found = [event for byte in stream for event in cutter.cut(bytes([byte]))]
    assert found == ['data: {"a": 1}', ": note", "data: [DONE]"]
    assert cutter.cut(stream) == found
