"""The stack without Docker: what `docker compose up` starts, as far as this machine has it, as processes.

Each service starts when those before it are healthy by their own health checks, and ends by SIGTERM within
its grace period. Whatever happens, nothing outlives the block that it runs in.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compose_file import load
from local_services import LocalService, Place, local_services

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("redis", "worker", "gateway", "prometheus")
NEEDED = {
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "prometheus": "prometheus",
    "wget": "wget",
}
"""Program to the Debian package that has it."""
_LAST_LINES = 15


class StackError(Exception):
    """The stack cannot be had, or did not do what it should; the message is for the user."""


@dataclass
class LocalStack:
    """Running services."""

    services: dict[str, LocalService] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def url(self, name: str) -> str:
        """Of a service's first port."""
        return f"http://127.0.0.1:{self.services[name].port}"

    def execute(self, name: str, *words: str) -> str:
        """What a command prints that runs where the service runs: `docker compose exec NAME ...`."""
        service = self.services[name]
        program = shutil.which(words[0], path=service.environment["PATH"]) or words[0]
        done = subprocess.run(
            [program, *words[1:]],
            cwd=service.folder,
            env=service.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StackError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def start(self, service: LocalService) -> None:
        """Start it and wait until its own health check passes. Raises `StackError`."""
        with service.log.open("wb") as log:
            self.processes[service.name] = subprocess.Popen(
                service.command,
                cwd=service.folder,
                env=service.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.services[service.name] = service
        deadline = time.monotonic() + service.patience_s
        while subprocess.run(
            service.health, env=service.environment, capture_output=True, check=False
        ).returncode:
            self._require_running(service)
            if time.monotonic() > deadline:
                raise StackError(
                    f"{service.name} is not healthy after {service.patience_s:g} s:\n{_end_of(service)}"
                )
            time.sleep(service.health_interval_s / 10)
        self._require_running(service)  # something else may listen there

    def _require_running(self, service: LocalService) -> None:
        status = self.processes[service.name].poll()
        if status is not None:
            raise StackError(f"{service.name} ended with {status}:\n{_end_of(service)}")

    def stop(self) -> list[str]:
        """End all of it, last started first, and tell what did not end in good order."""
        complaints = []
        for name, process in reversed(self.processes.items()):
            grace_s = self.services[name].grace_s if name in self.services else 1.0
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(grace_s)
                if status not in (0, -signal.SIGTERM):
                    complaints.append(f"{name} ended with {status}")
            except subprocess.TimeoutExpired:
                complaints.append(f"{name} did not end within {grace_s:g} s")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()
        return complaints


def _end_of(service: LocalService) -> str:
    lines = service.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])


def free_port(published: int | None) -> int:
    """Any port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mapped_port(published: int | None) -> int:
    """The published port itself. Raises `StackError` when it is taken."""
    if published is None:
        return free_port(None)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", published))
        except OSError as error:
            raise StackError(
                f"Port {published} is in use; stop what listens there, or choose another: .env.example names"
                " the variable."
            ) from error
    return published


@contextlib.contextmanager
def running(
    state: Path,
    choose_port: Callable[[int | None], int],
    scrape_interval_s: float | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[LocalStack]:
    """The stack, with its files in `state`; `variables` are Compose's.

    Raises `StackError` and `ComposeError`.
    """
    require_programs()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Place(state, Path(sys.executable).parent, cache, choose_port, scrape_interval_s)
    stack = LocalStack()
    try:
        for service in local_services(
            load(ROOT / "docker-compose.yml", variables or {}), list(SERVICES), place
        ):
            stack.start(service)
        yield stack
    finally:
        complaints = stack.stop()
    if complaints:
        raise StackError(f"The stack did not end well: {'; '.join(complaints)}.")


def require_programs() -> None:
    """Raises `StackError` when a program is missing that no package of ours brings."""
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if missing:
        raise StackError(
            f"These are missing here: {', '.join(missing)}. On Debian: apt-get install {' '.join(missing)}."
        )
