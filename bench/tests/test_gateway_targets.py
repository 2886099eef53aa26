"""How the targets of the gateway bench are set up, and what becomes of those that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice_bench import peer_packages
from sluice_bench.gateway_targets import DIRECT, LITELLM_PROXY, FleetPlan, gateway_config, running_fleet
from sluice_bench.peer_packages import (
    LITELLM,
    PeerPackage,
    heavy_distributions,
    installed_programs,
    installed_script,
)


def test_the_gateway_gets_one_backend_and_a_hashed_key() -> None:
    config = json.loads(gateway_config("http://127.0.0.1:9000", 8123, Path("/data")))
    assert config["server"] == {"host": "127.0.0.1", "port": 8123}
    assert [backend["url"] for backend in config["backends"]] == ["http://127.0.0.1:9000"]
    assert len(config["keys"][0]["sha256"]) == 64
    assert "sk-" not in json.dumps(config)


def test_the_gateway_checks_limits_that_the_load_never_reaches() -> None:
    limits = json.loads(gateway_config("http://127.0.0.1:9000", 8123, Path("/data")))["limits"]
    assert limits["per_key"]["concurrent"] > 5000


def test_a_peer_that_is_not_there_is_named_with_its_reason(tmp_path: Path) -> None:
    plan = FleetPlan(targets=(DIRECT, LITELLM_PROXY))
    with running_fleet(plan, tmp_path, {LITELLM_PROXY: "no network"}, lambda step: None) as fleet:
        assert [target.name for target in fleet.targets] == [DIRECT]
        assert [(gone.target, gone.reason) for gone in fleet.missing] == [(LITELLM_PROXY, "no network")]


def test_a_peer_that_does_not_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "litellm"
    program.write_text("#!/bin/sh\necho no such model\nexit 3\n")
    program.chmod(0o755)
    plan = FleetPlan(targets=(LITELLM_PROXY,))
    with running_fleet(plan, tmp_path, {LITELLM_PROXY: program}, lambda step: None) as fleet:
        assert fleet.targets == []
        assert "no such model" in fleet.missing[0].reason


def test_an_installed_peer_is_not_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(peer_packages, "_install", lambda package, home: (calls.append("x"), home.mkdir()))
    first = installed_script(LITELLM, tmp_path)
    assert installed_script(LITELLM, tmp_path) == first
    assert first.name == "litellm" and LITELLM.version in str(first)
    assert calls == ["x"]


def test_a_peer_that_cannot_be_installed_leaves_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    package = PeerPackage(name="nothing", version="0", script="nothing")
    programs = installed_programs({"nothing": package}, tmp_path / "file", lambda step: None)
    assert isinstance(programs["nothing"], str) and "cannot be made" in programs["nothing"]


def test_packages_that_drag_in_torch_are_recognised() -> None:
    names = ["torch", "nvidia-cublas-cu12", "aiohttp", "fastapi"]
    report = {"install": [{"metadata": {"name": name}} for name in names]}
    assert heavy_distributions("a warning\n" + json.dumps(report)) == ["nvidia-cublas-cu12", "torch"]
