"""`sluice serve --workers N` as it is installed, with a client that counts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from ..limits.redis_server import free_port

SLUICE = str(Path(sys.executable).parent / "sluice")
CHAT = "/v1/chat/completions"
_PATIENCE_S = 15.0


class Gateway:
    """The processes, in a session of their own and so without a terminal."""

    def __init__(self, folder: Path, config: str, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.configure(config)
        self._log = folder / "log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [SLUICE, "serve", "--port", str(self.port), *options],
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def configure(self, config: str) -> None:
        (self.folder / "sluice.yaml").write_text(config)

    def log(self) -> str:
        return self._log.read_text()

    def workers(self) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(self.process.pid).children():
            try:
                if "sluice_gateway.supervisor.worker" in child.cmdline() and child.status() != "zombie":
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                found = condition()
            except httpx.TransportError:
                found = None
            if found:
                return found
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def until_serving(self, workers: int) -> None:
        self.until(lambda: self.metric("workers") == workers and httpx.get(f"{self.url}/ready").is_success)

    def post(self, text: str = "one two", **headers: str) -> httpx.Response:
        """On a connection of its own."""
        body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
        return httpx.post(f"{self.url}{CHAT}", json=body, headers=headers, timeout=30)

    def page(self) -> str:
        return httpx.get(f"{self.url}/metrics", timeout=30).text

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all series with these labels."""
        return total(self.page(), name, **labels)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def stop(self) -> int:
        """Whatever happened, nothing is left of it."""
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for process in family:
                if process.is_running():
                    process.kill()
        return self.process.wait(10)


def total(page: str, name: str, **labels: str) -> float:
    pairs = [f'{key}="{value}"' for key, value in labels.items()]
    pattern = rf"^sluice_gateway_{name}(?:\{{(.*)\}})? (\S+)$"
    return sum(
        float(value)
        for found, value in re.findall(pattern, page, re.MULTILINE)
        if all(pair in found for pair in pairs)
    )
