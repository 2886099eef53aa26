"""`docs/gateway.md`: its tables are the code's, its examples work, in their order."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from sluice_gateway import config
from sluice_gateway.gateway_page import filled

from .serving import PATIENCE_S, serving

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "gateway.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_tables_are_what_the_code_says() -> None:
    assert filled(PAGE) == PAGE, "run: python -m sluice_gateway.gateway_page docs/gateway.md"


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_is_valid(text: str) -> None:
    assert config.parse("gateway.md", text, {}).backends


async def test_every_command_works(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text(blocks("yaml")[0])
    values = {
        **yaml.safe_load(blocks("yaml")[0]),
        "store": {"url": f"sqlite:///{tmp_path}/sluice.db"},
        "files": {"dir": str(tmp_path / "files")},
        "ledger": {"journal_folder": str(tmp_path / "journal")},
    }
    settings = config.parse("gateway.md", yaml.safe_dump(values), {})
    environment = {
        **os.environ,
        "SLUICE_KEY": "alice",
        "SLUICE_STORE_URL": f"sqlite:///{tmp_path}/sluice.db",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    async with serving(settings) as served:
        for block in blocks("sh"):
            script = "set -eu -o pipefail\n" + block.replace("http://127.0.0.1:8000", served.url)
            printed = await _run(script, tmp_path, environment)
            assert printed.strip(), block


async def _run(script: str, folder: Path, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=folder, env=environment, stdout=-1, stderr=-1
    )
    async with asyncio.timeout(PATIENCE_S):
        printed, complaint = await process.communicate()
    assert process.returncode == 0, (script, printed, complaint)
    return printed.decode()
