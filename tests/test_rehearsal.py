"""The router's promises to three tenants, kept by a real gateway before two real workers, one of them slowed.

Each scene is one that `sluice-bench rehearse` plays. What is held here is counts, order and shares as the
clients measured them, never how long anything took: a busy machine breaks none of it. Scenes are played in
their order: the last one kills a worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from running_stack import ROOT

from sluice_bench.processes import script
from sluice_bench.rehearsal.finding import lines
from sluice_bench.rehearsal.program import SCENES
from sluice_bench.rehearsal.stage import Stage, stage

MODEL = ROOT / "worker-core" / "models" / "sluice-tiny"


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(MODEL, tmp_path_factory.mktemp("stage")) as running:
        yield running


@pytest.mark.parametrize("scene", SCENES)
def test_everything_in_the_scene_is_as_it_has_to_be(ready: Stage, scene: str) -> None:
    finding = SCENES[scene](ready)

    assert finding.broken(quiet=False) == [], "\n".join(lines(finding))


def test_nothing_is_left_of_a_rehearsal_that_is_ended(tmp_path: Path) -> None:
    command = [script("sluice-bench"), "rehearse", "--scene", "slow-worker"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as rehearsal:
        family = servers_of(rehearsal)
        rehearsal.send_signal(signal.SIGTERM)

        assert rehearsal.wait(60) == 128 + signal.SIGTERM
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert list(tmp_path.iterdir()) == []


def servers_of(rehearsal: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """As soon as a worker computes."""
    while rehearsal.poll() is None:
        family = psutil.Process(rehearsal.pid).children(recursive=True)
        with suppress(psutil.NoSuchProcess):
            if any("sluice_worker.engine_process" in process.cmdline() for process in family):
                return family
        time.sleep(0.05)
    pytest.fail(f"the rehearsal ended with status {rehearsal.returncode}")
