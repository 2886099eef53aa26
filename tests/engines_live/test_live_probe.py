"""`sluice engines probe` says what each URL is, and `sluice engines up` that all are ready."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .fleet import Fleet

SLUICE = str(Path(sys.executable).parent / "sluice")


def test_probe_names_the_engine(fleet: Fleet, engine: str) -> None:
    live = fleet.engines[engine]
    ended = subprocess.run(
        [SLUICE, "engines", "probe", live.url, "--json"], capture_output=True, text=True, timeout=60
    )

    assert ended.returncode == 0, ended.stderr
    identity = json.loads(ended.stdout)["identity"]
    assert identity["adapter"] == live.adapter
    assert live.model in identity["models"]
    assert json.loads(ended.stdout)["metrics"], "signals of its load are known"


def test_the_gateway_is_known_for_what_it_is(fleet: Fleet) -> None:
    ended = subprocess.run(
        [SLUICE, "engines", "probe", fleet.url, "--json"], capture_output=True, text=True, timeout=60
    )

    assert json.loads(ended.stdout)["identity"]["engine"] == "sluice"
