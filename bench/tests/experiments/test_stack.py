"""What the gateway of a stack is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice_bench.experiments.measurement import shown
from sluice_bench.experiments.stack import Engine, gateway_config, running_stack, worker_engine
from sluice_bench.processes import ServerFailed


def test_every_engine_is_a_backend_and_nothing_is_kept_elsewhere(tmp_path: Path) -> None:
    engines = [worker_engine("small", Path("m"), quant="int8"), worker_engine("plain", Path("m"))]
    urls = {"small": "http://127.0.0.1:1", "plain": "http://127.0.0.1:2"}
    config = json.loads(gateway_config(engines, urls, tmp_path))

    assert [(b["name"], b["url"], b["quant"]) for b in config["backends"]] == [
        ("small", "http://127.0.0.1:1", "int8"),
        ("plain", "http://127.0.0.1:2", "none"),
    ]
    places = (config["store"]["url"], config["ledger"]["journal_folder"], config["files"]["dir"])
    assert all(str(tmp_path) in place for place in places)


def test_an_engine_that_cannot_be_started_is_a_failure_with_its_name(tmp_path: Path) -> None:
    engine = Engine(name="ghost", command=("/nowhere/ghost", "--port", "{port}"))

    with (
        pytest.raises(ServerFailed, match="/nowhere/ghost cannot be started"),
        running_stack([engine], tmp_path),
    ):
        pass


def test_a_command_is_shown_without_folders_and_port() -> None:
    command = ("/a/b/sluice-worker", "serve", "--model", "/c/d", "--port", "{port}", "--kv", "paged")
    assert shown(command) == "sluice-worker serve --model d --kv paged"
