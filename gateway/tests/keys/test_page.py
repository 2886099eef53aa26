"""`docs/keys.md`: every command in it works, in its order, on a gateway that runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluice_gateway import cli, config
from sluice_gateway.keys import bootstrap

from ..serving import ECHO, Served, eventually, serving, settings_of

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "keys.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


async def test_every_command_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("SLUICE_STORE_URL", store)
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    admin_key = ""
    settings = settings_of(backends=[ECHO], store={"url": store})
    monkeypatch.setenv(bootstrap.VARIABLE, str(tmp_path / "first.key"))
    await asyncio.to_thread(bootstrap.prepare, settings, os.environ)
    async with serving(settings) as served:
        for line in lines:
            if line.startswith("sluice "):
                printed = await asyncio.to_thread(run, line)
                if "--admin" in line:
                    admin_key = next(word for word in printed.split() if word.startswith("sk-sluice-"))
            else:
                await until_known(served, admin_key)
                assert json.loads(await curl(line, served, admin_key)), line
    assert len(lines) > 15


def run(line: str) -> str:
    result = CliRunner().invoke(cli.app, shlex.split(line)[1:])
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result.stdout


async def until_known(served: Served, secret: str) -> None:
    """The page promises a second for what a command changed; fourteen commands may take less."""
    digest = sha256(secret.encode()).digest()
    await eventually(lambda: digest in served.gateway.keyring.snapshot.keys)


async def curl(line: str, served: Served, admin_key: str) -> bytes:
    """Run it against the gateway of the test; an error status fails it."""
    assert line.startswith("curl -s ")
    command = line.replace("http://127.0.0.1:8000", served.url).replace("curl -s", "curl -s --fail-with-body")
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "ADMIN_KEY": admin_key}
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, (line, printed)
    return printed


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_example_of_the_configuration_is_valid(text: str) -> None:
    settings = config.parse("keys.md", text, {})
    assert settings.keys or settings.jwt


def test_it_names_every_refusal_of_a_scope() -> None:
    for code in ("model", "backend", "quant", "endpoint", "admin"):
        assert f"`{code}_not_allowed`" in PAGE
