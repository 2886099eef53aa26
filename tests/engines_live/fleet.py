"""One gateway in front of real engines, and what a test may ask of them.

On this machine the gateway starts the engines itself, on the bundled model. Elsewhere the file that
`SLUICE_LIVE_ENGINES` names lists engines that run already (`ops/gpu-check/` writes it), one JSON object each:
`name`, `adapter`, `url` and `model`, and optionally `kill` and `start`, the commands that do it.

Tests ask for the model `live`, an alias for what each engine calls its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from running_stack import Stack, start

from . import installed

ALIAS = "live"
ENGINES_FILE = "SLUICE_LIVE_ENGINES"
READY_WITHIN_S = 180.0
PATIENCE_S = 180.0
"""How long a test may wait for what has to come. Never a measure of speed."""


@dataclass(frozen=True)
class LiveEngine:
    """One engine behind the gateway."""

    name: str
    adapter: str
    url: str
    model: str
    kill: Sequence[str] = ()
    start: Sequence[str] = ()


@dataclass(frozen=True)
class Fleet:
    """The gateway and its engines, by name."""

    gateway: Stack
    engines: dict[str, LiveEngine]

    @property
    def url(self) -> str:
        """The gateway's."""
        return self.gateway.url

    def view(self, name: str) -> dict[str, Any]:
        """A backend as `/admin/v1/engines` shows it, with its only replica's fields."""
        listed = httpx.get(f"{self.url}/admin/v1/engines", timeout=10).json()["data"]
        found = next(backend for backend in listed if backend["backend"] == name)
        replica: dict[str, Any] = found["replicas"][0]
        return found | replica

    def load(self, name: str) -> dict[str, Any]:
        """What the engine tells of itself, as the gateway shows it; empty while nothing is known."""
        return self.view(name)["load"] or {}

    def can(self, name: str, capability: str) -> bool:
        """Whether the engine's adapter says so: a flag, or a kind of request."""
        capabilities = self.view(name)["capabilities"]
        return bool(capabilities.get(capability)) or capability in capabilities["endpoints"]

    def able(self, capability: str) -> list[str]:
        """The engines that can."""
        return [name for name in self.engines if self.can(name, capability)]

    def wait_until_ready(self, *names: str) -> None:
        """Until the gateway sends requests to these engines, by default to all."""
        wanted = names or tuple(self.engines)
        eventually(
            lambda: all(self.view(name)["state"] == "ready" for name in wanted),
            READY_WITHIN_S,
            lambda: "\n".join(
                [*(f"{n}: {self.view(n)['state']}, {self.view(n)['problem']}" for n in wanted), self.log()]
            ),
        )

    def log(self) -> str:
        """The end of what the gateway and its engines wrote."""
        return "\n".join(self.gateway.log.read_text(errors="replace").splitlines()[-40:])

    def kill(self, name: str) -> None:
        """SIGKILL for the engine, all of its processes."""
        engine = self.engines[name]
        if engine.kill:
            subprocess.run(engine.kill, check=True, capture_output=True)
            return
        for process in self._processes(engine):
            process.kill()

    def restart(self, name: str) -> None:
        """See that a killed engine comes back: what the gateway manages does so by itself."""
        command = self.engines[name].start
        if command:
            subprocess.run(command, check=True, capture_output=True)
        self.wait_until_ready(name)

    def _processes(self, engine: LiveEngine) -> list[psutil.Process]:
        """The child that has the engine's port on its command line, and all below it; not its warden."""
        port = engine.url.rsplit(":", 1)[1]
        family = psutil.Process(self.gateway.process.pid).children(recursive=True)
        heads = [child for child in family if port in _words(child)]
        assert heads, f"no process of {engine.name} is below the gateway"
        return [process for head in heads for process in (head, *head.children(recursive=True))]


def running_fleet(folder: Path) -> Fleet:
    """Start the gateway, with the engines that are on this machine or listed, and wait for all of them."""
    listed = os.environ.get(ENGINES_FILE)
    if listed:
        engines = {e["name"]: LiveEngine(**e) for e in json.loads(Path(listed).read_text(encoding="utf-8"))}
        backends = [{"name": e.name, "adapter": e.adapter, "url": e.url} for e in engines.values()]
    else:
        names = [name for name in ("worker", "vllm", "llamacpp") if installed.missing(name) is None]
        backends = [installed.backend(name, folder) for name in names]
        engines = {
            b["name"]: LiveEngine(b["name"], b["adapter"], b["url"], installed.MODEL) for b in backends
        }
    config = folder / "sluice.yaml"
    config.write_text(yaml.safe_dump(_settings(backends, engines, folder)), encoding="utf-8")
    command = [str(Path(sys.executable).parent / "sluice"), "serve", "--config", str(config)]
    return Fleet(start(command, folder, PATH=installed.search_path()), engines)


def _settings(backends: list[dict[str, Any]], engines: dict[str, LiveEngine], folder: Path) -> dict[str, Any]:
    """Nobody is refused because engines that share few cores are slow: what is tried here is what becomes of
    the requests that are taken."""
    return {
        "backends": backends,
        "aliases": {ALIAS: [{"model": e.model, "backend": e.name} for e in engines.values()]},
        "store": {"url": f"sqlite:///{folder}/sluice.db"},
        "ledger": {"journal_folder": str(folder / "ledger")},
        "files": {"dir": str(folder / "files")},
        "timeouts": {"first_token_s": 300, "idle_s": 300},
        "admission": {"default_ttft_s": 300},
        "queue": {"timeout_s": 300},
        "logs": {"format": "json"},
    }


def eventually(
    condition: Callable[[], bool], within_s: float = PATIENCE_S, explain: Callable[[], str] = lambda: ""
) -> None:
    """Return once `condition` holds; fail the test if it never does."""
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"the condition never became true\n{explain()}")


def _words(process: psutil.Process) -> list[str]:
    try:
        words = process.cmdline()
    except psutil.Error:
        return []
    return [] if any(word.endswith("warden.py") for word in words) else words
