"""Servers as child processes: started on a free port, waited for, their CPU time read, always ended.

CPU time is user + system of the whole process tree, ended children included, from the operating system's
counters (10 ms steps on Linux): it is steadier than latency on a busy machine. `ForeignCpu` tells how much
of the machine somebody else used meanwhile, which is what makes a latency untrustworthy.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

import psutil

_TAIL_LINES = 15
_LOOK_EVERY_S = 0.02
"""Whether a server is ready: small beside what the fastest of them takes to start."""


class ServerFailed(Exception):
    """A child did not become ready; the message ends with its last output."""


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A server running as a child. A context manager: leaving it ends the whole process group."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log_path: Path,
        ready_path: str = "/health",
        ready_within_s: float = 120.0,
        environment: Mapping[str, str] | None = None,
        core: int | None = None,
    ) -> None:
        """`core`: the only one that the child and its threads may run on, where the system can do that."""
        self.command = tuple(command)
        self.url = f"http://127.0.0.1:{port}"
        self._log_path = log_path
        self._ready_url = self.url + ready_path
        self._ready_within_s = ready_within_s
        self._environment = {**os.environ, **(environment or {})}
        self._core = core
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start, and wait until it is ready. Raises `ServerFailed`."""
        with self._log_path.open("wb") as log, pinned(self._core):
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + self._ready_within_s
        while time.monotonic() < give_up:
            if process.poll() is not None:
                raise ServerFailed(
                    f"{self.command[0]} ended with status {process.returncode}:\n{self.tail()}"
                )
            if _answers(self._ready_url):
                return
            time.sleep(_LOOK_EVERY_S)
        raise ServerFailed(f"{self._ready_url} was not ready in {self._ready_within_s:g} s:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines that the child wrote."""
        lines = self._log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def has_said(self, text: str) -> bool:
        """Whether the child wrote this."""
        return text in self._log_path.read_text(errors="replace")

    def cpu_s(self) -> float:
        """User + system CPU seconds of the tree since it started."""
        return tree_cpu_s(self._running().pid)

    def resident_bytes(self) -> int:
        """Resident memory of the tree (shared pages counted once per process)."""
        return sum(process.memory_info().rss for process in _tree(self._running().pid))

    def largest_resident_bytes(self) -> int:
        """Resident memory of the largest process of the tree."""
        return max(process.memory_info().rss for process in _tree(self._running().pid))

    def processes(self) -> list[psutil.Process]:
        """The server's process and its living descendants."""
        return _tree(self._running().pid)

    def peak_resident_bytes(self) -> int:
        """The most resident memory that the largest process of the tree ever had; 0 where unknown."""
        return max(_peak_resident_bytes(process.pid) for process in _tree(self._running().pid))

    def pause(self) -> None:
        """Stop the process group where it stands, so that it takes no CPU; `resume` lets it go on."""
        _signal_group(self._running().pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        _signal_group(self._running().pid, signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerFailed(f"{self.command[0]} is not running")
        return self._process

    def stop(self) -> None:
        """End the process group: politely, then after 10 s by force. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        _signal_group(process.pid, signal.SIGCONT)  # a paused one would not hear
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """This thread and children started meanwhile run on one core only; on any with `None`, or where the
    system cannot do it."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_cores() -> tuple[int, int] | None:
    """One core for a server and one for everything else; `None` where there are no two, or no pinning."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[-1], cores[0]) if len(cores) > 1 else None


def raise_file_limit() -> int:
    """Allow this process and children started later as many open files as the system does; returns that."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS: an unlimited hard limit cannot be asked for
        return soft
    return hard


def script(name: str) -> str:
    """Path of a console script installed beside this interpreter, or its bare name to be found on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def null_server_process(
    folder: Path,
    chunks: int = 1,
    pace_ms: float = 0.0,
    stamps: bool = False,
    core: int | None = None,
    more: Sequence[str] = (),
) -> ServerProcess:
    """The null server as a child on a free port, logging into `folder`; `more` are further options, each with
    a value (`null_server.settings_of`)."""
    port = free_port()
    command = [sys.executable, "-m", "sluice_bench.null_server", str(port)]
    command += ["--chunks", str(chunks), "--pace-ms", str(pace_ms), "--stamps", str(stamps).lower(), *more]
    return ServerProcess(command, port, folder / f"null-{port}.log", core=core)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as response:
            return bool(200 <= response.status < 300)
    except (URLError, OSError):
        return False


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _peak_resident_bytes(pid: int) -> int:
    """Linux's VmHWM."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0


def tree_cpu_s(pid: int) -> float:
    """User + system CPU seconds of a process, its living descendants and its ended children."""
    total = 0.0
    for process in _tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


class ForeignCpu:
    """CPU used by others from construction to `cores()`; time stolen by other machines counts."""

    def __init__(self, own_pid: int) -> None:
        self._own_pid = own_pid
        self._started_s = time.monotonic()
        self._busy_s = _machine_busy_s()
        self._own_s = tree_cpu_s(own_pid)

    def cores(self) -> float:
        """Average number of cores that others kept busy; never negative."""
        busy_s = _machine_busy_s() - self._busy_s
        own_s = tree_cpu_s(self._own_pid) - self._own_s
        return foreign_cores(busy_s, own_s, time.monotonic() - self._started_s)


def foreign_cores(busy_s: float, own_s: float, wall_s: float) -> float:
    """Cores that others kept busy on average: `busy_s` of the whole machine less our own, over `wall_s`."""
    return max(0.0, (busy_s - own_s) / max(1e-9, wall_s))


def _machine_busy_s() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # already in user and nice
    return float(sum(times) - idle - guests)
