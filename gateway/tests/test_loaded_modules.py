"""What a process that serves keeps in memory: only what serving needs.

Each of these packages weighs megabytes, and one careless import at the top of a module brings it back.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .limits.redis_server import free_port
from .serving import ECHO, chat, serving, settings_of

SLUICE = str(Path(sys.executable).parent / "sluice")
NOT_NEEDED = frozenset(
    {
        *("fastapi", "starlette", "pydantic", "anyio", "multipart"),  # the control plane
        *("typer", "rich", "pygments"),  # the command line
        *("sqlalchemy.orm", "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql", "alembic"),
        *("httpx", "jwt", "cryptography", "redis", "opentelemetry"),  # for those who configure them
    }
)
CONFIG = """
backends: [{name: echo, adapter: echo}]
keys: [{id: me, sha256: ffb1731249d293d586e1515f6fa41d2da846aa23a032c198043d192f18f2caf5}]
limits: {per_key: {requests_per_min: 1000, tokens_per_min: 1000000, concurrent: 10}}
prices: {models: {echo: {input: 1.0, output: 2.0}}}
"""
KEY = {"authorization": "Bearer sk-of-a-test"}
_IMPORTED = re.compile(r"import time: +\d+ \| +\d+ \| *(\S+)")
_PYTHON_STARTED = "import time: self [us]"


class Gateway:
    """`sluice serve`, which writes down every module as it is imported."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        (folder / "sluice.yaml").write_text(CONFIG)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [SLUICE, "serve", "--port", str(port)],
                cwd=folder,
                env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=KEY, timeout=30)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self._log.read_text()
            try:
                if self.http.get("/ready").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        raise AssertionError(self._log.read_text())

    def loaded(self) -> set[str]:
        """By the Python that serves: the one that read the command line has made way for it."""
        return set(_IMPORTED.findall(self._log.read_text().rpartition(_PYTHON_STARTED)[2]))


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    started = Gateway(tmp_path)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.http.close()
        started.process.send_signal(signal.SIGTERM)
        try:
            started.process.wait(10)
        finally:
            started.process.kill()


def test_serving_the_data_plane_loads_no_control_plane(gateway: Gateway) -> None:
    for body in (chat("echo"), chat("echo", stream=True)):
        assert gateway.http.post("/v1/chat/completions", json=body).is_success
    for path in ("/health", "/ready", "/metrics", "/v1/models", "/v1/models/echo"):
        assert gateway.http.get(path).is_success
    assert gateway.loaded() & NOT_NEEDED == set()

    assert gateway.http.get("/openapi.json").is_success
    assert "fastapi" in gateway.loaded()


@pytest.mark.parametrize("module", ["sluice_gateway.supervisor.worker", "sluice_gateway.supervisor.__main__"])
def test_the_processes_of_several_workers_are_as_lean(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(said.stdout.split()) & NOT_NEEDED == set()


async def test_whoever_asks_the_control_plane_first_gets_an_answer() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        answers = await asyncio.gather(*(served.http.get("/openapi.json") for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
