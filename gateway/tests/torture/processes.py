"""The commands as they are installed, each a process with its own files, memory and metrics page."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

COMMANDS = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A server process. Everything that it started dies with it."""

    def __init__(
        self, command: list[str], port: int, folder: Path, name: str, *, cwd: Path | None = None
    ) -> None:
        """`folder` gets its log, and is where it runs unless `cwd` says otherwise."""
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / f"{name}.log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=cwd or folder, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._tree = psutil.Process(self._process.pid)

    async def until_ready(self, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        async with httpx.AsyncClient(verify=False) as http:
            while time.monotonic() < deadline:
                assert self._process.poll() is None, self.log()
                try:
                    if (await http.get(f"{self.url}/ready", timeout=5)).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
        raise AssertionError(f"not ready after {within_s} s:\n{self.log()}")

    def log(self) -> str:
        return self._log.read_text()

    def open_files(self) -> int:
        """File descriptors of the process and its children."""
        return sum(process.num_fds() for process in [self._tree, *self._tree.children(recursive=True)])

    def memory_bytes(self) -> int:
        """Resident memory of the process itself."""
        return int(self._tree.memory_info().rss)

    async def metrics(self) -> dict[str, float]:
        """The metrics page, one number by `name{labels}`."""
        async with httpx.AsyncClient(verify=False) as http:
            page = (await http.get(f"{self.url}/metrics", timeout=20)).text
        lines = [line.rpartition(" ") for line in page.splitlines() if line and line[0] != "#"]
        return {name: float(value) for name, _, value in lines}

    def kill(self) -> None:
        """As `kill -9`, children included."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process.poll() is None:
            self.kill()


def start_gateway(folder: Path, config: str) -> Process:
    """`sluice serve` with a configuration file."""
    port = free_port()
    (folder / "sluice.yaml").write_text(config)
    return Process([str(COMMANDS / "sluice"), "serve", "--port", str(port)], port, folder, "gateway")


def start_worker(folder: Path, *options: str) -> Process:
    """`sluice-worker serve` with the bundled model."""
    port = free_port()
    command = [str(COMMANDS / "sluice-worker"), "serve", "--port", str(port), *options]
    return Process(command, port, folder, "worker")


async def settles(read: Any, wanted: float, within_s: float = 30.0) -> None:
    """Wait until a number that is awaited or read is at most `wanted`; say what it was if it never is."""
    deadline = time.monotonic() + within_s
    while True:
        value = read()
        value = await value if asyncio.iscoroutine(value) else value
        if value <= wanted:
            return
        assert time.monotonic() < deadline, f"{value} is still above {wanted}"
        await asyncio.sleep(0.1)
