"""The router's promises to three tenants, kept by a real gateway before two real workers, one of them slowed.

Each scene is one that `sluice-bench rehearse` plays; what had to be so is counts, order and shares as the
clients measured them, never how long anything took. Scenes are played in their order: the last one kills a
worker.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running_stack import ROOT

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

    assert finding.broken() == [], "\n".join(lines(finding))
