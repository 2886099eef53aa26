"""Decisions of a running gateway, written down and decided again."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_gateway.cli import app
from sluice_gateway.config import ConfigError
from sluice_gateway.decision_file import DecisionFile
from sluice_gateway.routing_settings import DecisionLogSettings

from .conftest import StartEngine
from .scripted_engine import Call
from .serving import chat, eventually, serving, settings_of

PATH = "/v1/chat/completions"
SECRET = "the-text-of-a-prompt"


async def answer(call: Call) -> None:
    await call.answer(200, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})


async def log_of_a_gateway(start_engine: StartEngine, folder: Path, **changes: object) -> Path:
    """A gateway with two engines serves ten requests and ends."""
    urls = [(await start_engine(answer, "m")).url for _ in range(2)]
    backend = {"name": "b", "adapter": "openai_compatible", "url": urls, "max_in_flight": 1}
    settings = settings_of(backends=[backend], decision_log={"folder": str(folder), **changes})
    async with serving(settings) as served:
        await eventually(lambda: all(r.healthy for r in served.gateway.router.snapshot().replicas))
        for number in range(10):
            body = chat("m") | {"messages": [{"role": "user", "content": f"{SECRET} {number} " * 40}]}
            assert (await served.http.post(PATH, json=body)).status_code == 200
    return the_file(folder)


def the_file(folder: Path) -> Path:
    [file] = folder.glob("decisions-*.jsonl")
    return file


def replay(file: Path):
    return CliRunner().invoke(app, ["replay-decisions", str(file)])


async def test_what_a_gateway_decided_is_decided_again_and_no_prompt_is_kept(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    file = await log_of_a_gateway(start_engine, tmp_path / "log")

    result = replay(file)

    assert result.exit_code == 0
    assert "10 decisions, all as they were." in result.stdout
    assert SECRET.encode() not in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_the_decision_that_is_another_is_shown(start_engine: StartEngine, tmp_path: Path) -> None:
    file = await log_of_a_gateway(start_engine, tmp_path / "log")
    lines = file.read_bytes().splitlines(keepends=True)
    changed = next(i for i, line in enumerate(lines) if b'"line":"decided"' in line)
    decided = msgspec.json.decode(lines[changed]) | {"endpoint": "elsewhere"}
    lines[changed] = msgspec.json.encode(decided) + b"\n"
    file.write_bytes(b"".join(lines))

    result = replay(file)

    assert isinstance(result.exception, ConfigError)
    assert f"line {changed + 1} differs" in str(result.exception)
    assert "logged: " in result.stdout and "elsewhere" in result.stdout


async def test_a_file_that_is_full_ends_and_can_be_replayed(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    file = await log_of_a_gateway(start_engine, tmp_path / "log", max_bytes=8000)

    assert 5000 < file.stat().st_size <= 8000
    assert replay(file).exit_code == 0


def test_the_oldest_files_give_way(tmp_path: Path) -> None:
    settings = DecisionLogSettings(folder=str(tmp_path), files=3)
    files = [DecisionFile(settings) for _ in range(5)]
    for file in files:
        file.close()

    assert len(list(tmp_path.iterdir())) == 3
    assert files[-1].path.exists()


@pytest.mark.parametrize("text", [None, "no log\n"])
def test_what_is_no_log_is_said_in_a_sentence(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "x"
    if text is not None:
        file.write_text(text)

    result = replay(file)

    assert isinstance(result.exception, ConfigError)
    assert str(file) in str(result.exception)


def test_a_folder_that_cannot_be_made_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"decision_log\.folder"):
        DecisionFile(DecisionLogSettings(folder=str(tmp_path / "file" / "log")))
