"""`sluice-bench experiment backends` with a real llama.cpp server, as a user types it with `--quick`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.llama_cpp import PACKAGE, VERSION, llama_programs

from . import installed

pytestmark = pytest.mark.starts_engines("llamacpp")
runner = CliRunner(env={"COLUMNS": "300"})


@pytest.fixture
def peers(tmp_path: Path) -> Path:
    """Peers of the bench, with the server that is installed for tests where it would build its own."""
    home = tmp_path / "peers" / f"{PACKAGE}-{VERSION}"
    program = llama_programs(home).server
    program.parent.mkdir(parents=True)
    program.symlink_to(str(installed.llama_server()))
    (home / "installed").touch()
    return home.parent


def test_engines_are_chosen_by_header_and_make_as_many_tokens(
    peers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice_bench.calibration.MIN_PROBES", 4)
    arguments = ["experiment", "backends", "--quick", "--bundled-model", str(installed.MODEL_FOLDER)]
    arguments += ["--peers-dir", str(peers), "--models-dir", str(tmp_path / "models")]
    result = runner.invoke(app, [*arguments, "--results", str(tmp_path / "runs"), "--output", str(tmp_path)])

    assert result.exit_code == 0, result.output
    raw = json.loads((tmp_path / "backends.json").read_text())
    assert raw["variants"] == ["worker", "llama-cpp"]
    assert [left["variant"] for left in raw["left_out"]] == ["vllm"]
    assert [(row["misrouted"], row["output_tokens"]) for row in raw["rows"]] == [(0, 8)] * 2 + [(0, 32)] * 2
