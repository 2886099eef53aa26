"""Starting and stopping the whole stack as a user does, for tests that drive it from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
SLUICE = str(Path(sys.executable).parent / "sluice")
READY_WITHIN_S = 120.0
STOPPED_WITHIN_S = 10.0


@dataclass(frozen=True)
class Stack:
    """A running `sluice serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def worker_process(self, role: str) -> psutil.Process:
        """One of the managed worker's processes: its `warden`, its HTTP `server` or its `engine`."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        found = [process for process in family if _role(process.cmdline()) == role]
        assert len(found) == 1, f"{len(found)} processes are the worker's {role}"
        return found[0]

    def metric(self, name: str) -> float:
        """Sum of a metric's samples over all labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        values = [ln.rsplit(" ", 1)[1] for ln in lines if ln.split("{")[0].split(" ")[0] == name]
        assert values, f"{name} is not on /metrics"
        return sum(float(value) for value in values)


def _role(command: list[str]) -> str:
    marks = {"warden.py": "warden", "sluice_worker.engine_process": "engine", "serve": "server"}
    return next((role for mark, role in marks.items() if any(w.endswith(mark) for w in command)), "other")


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Block until `/ready` answers 200; fail with the log when the process ends or time runs out."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"it ended with {process.returncode}:\n{log.read_text()}"
        try:
            if httpx.get(f"{url}/ready", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready after {READY_WITHIN_S:g} s:\n{log.read_text()}")


def _outside_make() -> dict[str, str]:
    """This environment without what a `make test ARGS=...` around the tests would hand on to `make run`."""
    made = {"ARGS", "TESTS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    return {name: value for name, value in os.environ.items() if name not in made}


def start(command: list[str], directory: Path, **environment: str) -> Stack:
    """Start `command` in a session of its own and wait until the gateway is ready."""
    port = free_port()
    log = directory / "stack.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**_outside_make(), "SLUICE_PORT": str(port), **environment},
            start_new_session=True,
        )
    stack = Stack(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_until_ready(stack.url, process, log)
    except AssertionError:
        if process.poll() is None:
            interrupt(stack)
        raise
    return stack


def serve(configuration: str, directory: Path, engines: int) -> Stack:
    """`sluice serve` with a `sluice.yaml` of its own, once as many engines can serve; fail with the log
    when they cannot in time. A gateway alone is ready with the first of them."""
    path = directory / "sluice.yaml"
    path.write_text(configuration, encoding="utf-8")
    stack = start([SLUICE, "serve", "--config", str(path)], directory)
    deadline = time.monotonic() + READY_WITHIN_S
    while stack.metric("sluice_gateway_endpoint_healthy") < engines:
        if time.monotonic() > deadline:
            interrupt(stack)
            log_text = stack.log.read_text()
            raise AssertionError(f"not {engines} engines after {READY_WITHIN_S:g} s:\n{log_text}")
        time.sleep(0.1)
    return stack


def interrupt(stack: Stack) -> list[psutil.Process]:
    """Press Ctrl-C, wait for the end, and return the processes that outlived it."""
    family = [*psutil.Process(stack.process.pid).children(recursive=True)]
    os.killpg(stack.process.pid, signal.SIGINT)
    try:
        stack.process.wait(STOPPED_WITHIN_S)
    finally:
        _, alive = psutil.wait_procs(family, timeout=0.5)
        for process in alive:
            process.kill()
        if stack.process.poll() is None:
            stack.process.kill()
            stack.process.wait()
    return alive
