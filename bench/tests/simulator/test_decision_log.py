"""A simulated fleet with faults, whose routers' decisions are written down and made again."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.simulator.decisions import recorded
from sluice_bench.simulator.engine_shape import SHAPES
from sluice_bench.simulator.faults import Fault
from sluice_bench.simulator.fleet import SLUICE, Fleet, FleetSettings
from sluice_bench.simulator.ideal import capacity_per_s
from sluice_bench.simulator.sim_figures import figures
from sluice_bench.simulator.traffic import TrafficShape
from sluice_router.decision_replay import replay

SHAPE = SHAPES["small"]
TRAFFIC = TrafficShape(preset="b2b-prefix", fit=2048)
ASKED = FleetSettings(
    policy=SLUICE,
    traffic=TRAFFIC,
    shape=SHAPE,
    replicas=20,
    rate_per_s=2.0 * capacity_per_s(SHAPE, TRAFFIC, 20, 1),
    requests=600,
    seed=3,
    faults=(Fault(kind="death", share=0.2, start_s=2.0, seconds=5.0),),
)


def test_an_overloaded_fleet_with_dying_engines_is_replayed_and_recording_changes_no_figure():
    log: list[bytes] = []

    ticks, other_ticks = count(), count()
    plain = Fleet(ASKED, lambda: next(ticks))
    written = Fleet(ASKED, lambda: next(other_ticks), recorded(log.append))
    plain.run()
    written.run()

    replayed = replay(log)

    assert figures(written, 1.0, 0.0) == figures(plain, 1.0, 0.0)
    assert replayed.difference is None
    assert replayed.decisions > ASKED.requests
    assert any(b'"line":"drawn"' in line for line in log)
    assert any(b'"shed_' in line for line in log)
    assert any(b'"name":"retry"' in line for line in log)


def test_the_command_writes_a_log_that_is_decided_again_alike(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    result = CliRunner().invoke(
        app, ["simulate", "--quick", "--load", "2", "--seeds", "2", "--decision-log", str(file)]
    )
    assert result.exit_code == 0, result.output
    assert "sluice replay-decisions" in result.output

    with file.open("rb") as lines:
        replayed = replay(lines)

    assert replayed.difference is None
    admitted = sum(b'"name":"admit"' in line for line in file.read_bytes().splitlines())
    assert replayed.decisions >= admitted > 50


@pytest.mark.parametrize(
    "asked",
    [["--load", "1", "--load", "2"], ["--gateways", "2"], ["--policy", "sluice", "--policy", "random"]],
)
def test_a_log_is_of_one_run(tmp_path: Path, asked: list[str]) -> None:
    file = tmp_path / "decisions.jsonl"
    result = CliRunner().invoke(app, ["simulate", "--quick", *asked, "--decision-log", str(file)])

    assert result.exit_code == 1
    assert "a decision log is of one run" in " ".join(result.output.split())
    assert not file.exists()


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["simulate", "--quick", "--decision-log", str(tmp_path)])

    assert result.exit_code == 1
    assert "cannot write decisions to" in " ".join(result.output.split())


def test_two_routers_do_not_share_a_log() -> None:
    with pytest.raises(ValueError, match="of one gateway"):
        Fleet(msgspec.structs.replace(ASKED, gateways=2), lambda: 0, recorded(lambda line: None))
    with pytest.raises(ValueError, match="of one gateway"):
        Fleet(msgspec.structs.replace(ASKED, policy="random"), lambda: 0, recorded(lambda line: None))
