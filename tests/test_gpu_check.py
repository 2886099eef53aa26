"""`ops/gpu-check/check.py` as far as it goes without a GPU: its plan, its order, and what it writes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from repository import ROOT

SCRIPT = ROOT / "ops" / "gpu-check" / "check.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # its dataclass asks for the module by name
    spec.loader.exec_module(module)
    return module


def said(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def test_a_dry_run_says_every_command_and_runs_none() -> None:
    ended = said("--dry-run", "tgi", "gpu")

    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert [line for line in lines if " up " in line] == [
        "docker compose up --detach --wait --wait-timeout 3600 worker",
        "docker compose --profile gpu up --detach --wait --wait-timeout 3600 vllm",
        "docker compose --profile tgi up --detach --wait --wait-timeout 3600 tgi",
    ]
    assert sum("engines_live" in line and "SLUICE_REQUIRE_ENGINES=1" in line for line in lines) == 2
    assert sum("record_pages.py http://127.0.0.1:8003" in line for line in lines) == 1
    assert lines[-1] == "docker compose --profile tgi rm --force --stop tgi"


def test_help_and_a_profile_that_is_not_there() -> None:
    assert "--dry-run" in said("--help").stdout
    ended = said("--dry-run", "tpu")
    assert ended.returncode == 2
    assert "no profile tpu; there are: gpu, quant" in ended.stderr


def test_without_docker_it_says_what_is_missing(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert check.main(["gpu"]) == 2
    assert "install Docker" in capsys.readouterr().out


class Machine:
    """Stands in for the commands; knows what an engine's probe says, and which command fails."""

    def __init__(self, failing: str = "") -> None:
        self.commands: list[str] = []
        self.lists: list[list[dict[str, Any]]] = []
        self._failing = failing

    def bind(self, check: ModuleType) -> Any:
        def run(command: Sequence[str], variables: Mapping[str, str]) -> str:
            words = " ".join(command)
            self.commands.append(words)
            if self._failing and self._failing in words:
                raise check.Failed(f"`{words}` ended with status 1")
            if "SLUICE_LIVE_ENGINES" in variables:
                self.lists.append(json.loads(Path(variables["SLUICE_LIVE_ENGINES"]).read_text()))
            if "probe" not in command:
                return ""
            port = int(words.rsplit(":", 1)[1].split()[0])
            known = {8006: ("worker", "Sluice worker"), 8001: ("vllm", "vLLM"), 8005: ("trt", "TensorRT-LLM")}
            adapter, title = known[port]
            identity = {"adapter": adapter, "title": title, "version": "9.9", "models": [f"{adapter}-model"]}
            return json.dumps({"identity": identity})

        return run


@pytest.fixture
def pages(check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of fixtures in which the script may write."""
    readme = tmp_path / "README.md"
    readme.write_text("| folder | engine | how |\n|---|---|---|\n| `trt` | old | documented |\n\nEnd.\n")
    (tmp_path / "payloads").mkdir()
    (tmp_path / "payloads" / "README.md").write_text(readme.read_text())
    monkeypatch.setattr(check, "PAGES", tmp_path)
    monkeypatch.setattr(check, "PAYLOADS", tmp_path / "payloads")
    monkeypatch.setattr(check, "record_payloads", lambda url, model, folder: None)
    return readme


def profiles(check: ModuleType, *names: str) -> list[Any]:
    return [profile for profile in check.PROFILES if profile.name in names]


def test_each_profile_is_brought_up_known_recorded_tried_and_taken_down(
    check: ModuleType, pages: Path
) -> None:
    machine = Machine()

    assert check.check_all(profiles(check, "trt"), machine.bind(check), {}, keep=False) == []

    order = ["up --detach", "up --detach", "probe", "probe", "record_pages.py", "engines_live", "rm --force"]
    assert len(machine.commands) == len(order)
    assert all(part in command for part, command in zip(order, machine.commands, strict=True))
    worker, trt = machine.lists[0]
    assert (worker["name"], trt["name"], trt["model"]) == ("worker", "trt", "trt-model")
    assert trt["kill"] == ["docker", "compose", "--profile", "trt", "kill", "trt"]
    assert (
        "| `trt` | TensorRT-LLM 9.9, profile `trt` of `docker-compose.yml` | recorded |" in pages.read_text()
    )
    assert "| old |" not in pages.read_text()
    assert pages.read_text().endswith("\nEnd.\n")
    assert (pages.parent / "payloads" / "README.md").read_text() == pages.read_text()


def test_a_new_folder_gets_a_row_below_the_others(check: ModuleType, pages: Path) -> None:
    check.check_all(profiles(check, "gpu"), Machine().bind(check), {}, keep=True)

    assert pages.read_text().splitlines()[3].startswith("| `vllm-gpu` | vLLM 9.9")


def test_what_fails_is_told_and_the_next_profile_is_still_tried(check: ModuleType, pages: Path) -> None:
    machine = Machine(failing="--profile gpu up")

    failures = check.check_all(profiles(check, "gpu", "trt"), machine.bind(check), {}, keep=False)

    assert len(failures) == 1
    assert failures[0].startswith("gpu: `docker compose --profile gpu up")
    assert sum("engines_live" in command for command in machine.commands) == 1
    assert sum("rm --force" in command for command in machine.commands) == 2, "both give the GPU back"


def test_ports_are_those_of_the_environment(check: ModuleType) -> None:
    trt = profiles(check, "trt")[0]

    assert trt.url({"SLUICE_TRT_PORT": "9005"}) == "http://127.0.0.1:9005"
    assert trt.url({}) == "http://127.0.0.1:8005"


def test_its_profiles_are_those_of_compose(check: ModuleType) -> None:
    services = yaml.safe_load((ROOT / "ops" / "compose" / "engines.yaml").read_text())["services"]
    engines = {name: service for name, service in services.items() if not name.startswith("stage-")}

    assert {profile.service for profile in check.PROFILES} == set(engines)
    for profile in check.PROFILES:
        service = engines[profile.service]
        assert service["profiles"] == [profile.name]
        assert f"127.0.0.1:${{{profile.port_variable}:-{profile.port}}}:" in service["ports"][0]
