"""Lives and deaths of supervised engines: real processes, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from sluice_engines.managed import READY_POLL_S, ManagedProcess, ProcessEvent, ProcessSpec, ProcessState

from .simple_transport import SimpleTransport

ENGINE = """
import http.server, os, pathlib, signal, subprocess, sys

port, folder, *flags = sys.argv[1:]
ready = pathlib.Path(folder) / "ready"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(3)
        self.send_response(200 if ready.exists() else 503)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass

if "polite" in flags:
    def leave(number, frame):
        print("goodbye", flush=True)
        os._exit(0)
    signal.signal(signal.SIGTERM, leave)
if "stubborn" in flags:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "family" in flags:
    print("child", subprocess.Popen(["sh", "-c", "trap '' TERM; exec sleep 1000"]).pid, flush=True)
print("serving as", os.getpid(), flush=True)
print("a warning", file=sys.stderr, flush=True)
http.server.HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


class Lab:
    """A folder, a port, and what a supervised engine did."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.argv = (sys.executable, "-c", ENGINE, str(port), str(folder))
        self.events: list[ProcessEvent] = []
        self.lines: list[str] = []
        self.now = 0.0
        self.delays: list[float] = []
        self._changed = asyncio.Event()

    def note_event(self, event: ProcessEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def note_line(self, line: str) -> None:
        self.lines.append(line)
        self._changed.set()

    def make_ready(self) -> None:
        (self.folder / "ready").touch()

    async def sleep(self, seconds: float) -> None:
        """Real for the readiness poll; a restart delay is only noted."""
        if seconds != READY_POLL_S:
            self.delays.append(seconds)
        await asyncio.sleep(min(seconds, READY_POLL_S))

    @asynccontextmanager
    async def managed(self, *flags: str, **spec: object) -> AsyncIterator[ManagedProcess]:
        defaults = {"name": "lab", "argv": self.argv + flags, "base_url": self.url, "ready_path": "/ready"}
        process = ManagedProcess(
            ProcessSpec(**defaults | spec),
            transport=SimpleTransport(),
            on_event=self.note_event,
            log=self.note_line,
            clock=lambda: self.now,
            sleep=self.sleep,
            random=lambda: 1.0,
        )
        process.start()
        try:
            yield process
        finally:
            await process.stop()

    def states(self) -> list[str]:
        return [str(event.state) for event in self.events]

    def of(self, state: ProcessState) -> list[ProcessEvent]:
        return [event for event in self.events if event.state is state]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_ready(self, times: int = 1) -> ProcessEvent:
        await self.until(lambda: len(self.of(ProcessState.READY)) >= times)
        return self.of(ProcessState.READY)[-1]

    async def until_died(self, times: int = 1) -> ProcessEvent:
        await self.until(lambda: len(self.of(ProcessState.DIED)) >= times)
        return self.of(ProcessState.DIED)[times - 1]

    async def line_number(self, beginning: str) -> int:
        """The number at the end of the output line that begins so."""
        await self.until(lambda: any(line.startswith(beginning) for line in self.lines))
        return int(next(line for line in self.lines if line.startswith(beginning)).split()[-1])

    async def ask_to_die(self) -> None:
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.HTTPError):
                await client.get(f"{self.url}/die")


@pytest.fixture
def lab(tmp_path: Path, unused_tcp_port: int) -> Lab:
    return Lab(tmp_path, unused_tcp_port)


def gone(pid: int) -> bool:
    """Whether a process has ended. A zombie has; who reaps orphans is the machine's business."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Starting


async def test_an_engine_is_ready_when_its_url_says_so_and_not_before(lab):
    async with lab.managed():
        await lab.until(lambda: any("serving" in line for line in lab.lines))
        await asyncio.sleep(0.2)
        assert lab.states() == ["starting"]

        lab.make_ready()
        await lab.until_ready()

    assert lab.states() == ["starting", "ready", "stopped"]
    assert lab.events[0].pid == await lab.line_number("[lab] serving as")


async def test_output_and_errors_are_logged_with_the_engines_name(lab):
    async with lab.managed():
        await lab.until(lambda: "[lab] a warning" in lab.lines)

    assert any(line.startswith("[lab] serving as") for line in lab.lines)


async def test_a_program_that_cannot_be_run_is_a_death_with_a_reason(lab):
    async with lab.managed(argv=("/no/such/engine",)):
        death = await lab.until_died()

    assert death.exit_code == 127
    assert "[lab] cannot run /no/such/engine: No such file or directory" in lab.lines


async def test_a_missing_folder_is_a_death_with_a_reason(lab):
    async with lab.managed(cwd="/no/such/folder"):
        await lab.until_died()

    assert "/no/such/folder" in lab.lines[0]


async def test_an_engine_that_does_not_become_ready_is_killed_and_started_again(lab):
    async with lab.managed("stubborn", ready_timeout_s=10.0, stop_grace_s=0.2):
        first = await lab.line_number("[lab] serving as")
        lab.now = 11.0

        await lab.until(lambda: lab.states().count("starting") == 2)

    assert "[lab] not ready after 10 s; ending it" in lab.lines
    assert gone(first)


# Dying


async def test_an_engine_that_ends_is_started_again(lab):
    lab.make_ready()
    async with lab.managed():
        first = await lab.until_ready()

        await lab.ask_to_die()
        second = await lab.until_ready(times=2)

    assert lab.states()[:5] == ["starting", "ready", "died", "starting", "ready"]
    assert lab.of(ProcessState.DIED)[0].exit_code == 3
    assert second.pid != first.pid


async def test_an_engine_that_is_killed_is_started_again_and_its_family_is_not_left_behind(lab):
    lab.make_ready()
    async with lab.managed("family"):
        first = await lab.until_ready()
        child = await lab.line_number("[lab] child")

        os.kill(first.pid, signal.SIGKILL)
        death = await lab.until_died()

        assert death.exit_code == -signal.SIGKILL
        assert gone(child)
        await lab.until_ready(times=2)


async def test_an_engine_does_not_outlive_its_warden(lab):
    lab.make_ready()
    async with lab.managed():
        engine = (await lab.until_ready()).pid
        warden = psutil.Process(engine).parent()
        assert any("warden.py" in argument for argument in warden.cmdline())

        warden.kill()
        death = await lab.until_died()

        assert death.exit_code is None
        assert gone(engine)
        await lab.until_ready(times=2)


async def test_restarts_are_delayed_twice_as_long_each_time_up_to_a_limit(lab):
    async with lab.managed(argv=(sys.executable, "-c", ""), restart_base_s=1.0, restart_max_s=5.0):
        await lab.until_died(times=5)

    assert lab.delays[:5] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert [event.restart_in_s for event in lab.of(ProcessState.DIED)][:5] == lab.delays[:5]


async def test_an_engine_that_was_stable_has_recovered(lab):
    lab.make_ready()
    async with lab.managed(restart_base_s=1.0, stable_after_s=60.0):
        for life, served_s in enumerate([10.0, 10.0, 60.0, 10.0], start=1):
            await lab.until_ready(times=life)
            lab.now += served_s
            await lab.ask_to_die()
            await lab.until_died(times=life)

    assert lab.delays[:4] == [1.0, 2.0, 1.0, 2.0]


def test_half_of_each_delay_is_left_to_chance():
    spec = ProcessSpec(
        name="lab", argv=("engine",), base_url="http://127.0.0.1:1", ready_path="/", restart_base_s=1.0
    )

    def delay(chance: float) -> float:
        process = ManagedProcess(
            spec,
            transport=SimpleTransport(),
            on_event=lambda _event: None,
            log=lambda _line: None,
            clock=time.monotonic,
            sleep=asyncio.sleep,
            random=lambda: chance,
        )
        return process._restart_delay_s(1)

    assert [delay(0.0), delay(0.5)] == [0.5, 0.75]


# Stopping


async def test_stop_ends_the_engine_and_all_it_started(lab):
    lab.make_ready()
    async with lab.managed("family") as process:
        engine = (await lab.until_ready()).pid
        family = [engine, await lab.line_number("[lab] child"), psutil.Process(engine).ppid()]

        await process.stop()

        assert all(gone(pid) for pid in family)
    assert lab.states() == ["starting", "ready", "stopped"]


async def test_stop_lets_an_engine_end_in_its_own_way(lab):
    lab.make_ready()
    async with lab.managed("polite") as process:
        await lab.until_ready()

        await process.stop()

    assert lab.lines[-1] == "[lab] goodbye"


async def test_stop_kills_an_engine_that_ignores_sigterm(lab):
    lab.make_ready()
    async with lab.managed("stubborn", stop_grace_s=0.2) as process:
        engine = (await lab.until_ready()).pid

        await process.stop()

        assert gone(engine)


async def test_stop_ends_the_wait_for_a_restart(lab):
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds if seconds == READY_POLL_S else 3600)

    lab.sleep = sleep
    async with lab.managed(argv=(sys.executable, "-c", "")) as process:
        await lab.until_died()

        async with asyncio.timeout(10):
            await process.stop()

    assert lab.states() == ["starting", "died", "stopped"]


async def test_stop_may_come_before_the_start_has_finished_and_twice(lab):
    async with lab.managed() as process:
        await process.stop()
        await process.stop()

        with pytest.raises(RuntimeError, match="already supervised"):
            process.start()


async def test_starting_and_stopping_leaks_no_descriptors(lab):
    lab.make_ready()

    async def once(times: int) -> int:
        async with lab.managed():
            await lab.until_ready(times=times)
        return psutil.Process().num_fds()

    before = await once(1)

    assert [await once(times) for times in (2, 3, 4)] == [before] * 3


PARENT = """
import asyncio, random, sys, time
from simple_transport import SimpleTransport
from sluice_engines.managed import ManagedProcess, ProcessSpec

async def main():
    ManagedProcess(
        ProcessSpec(name="lab", argv=tuple(sys.argv[3:]), base_url=sys.argv[2], ready_path="/ready"),
        transport=SimpleTransport(),
        on_event=lambda event: print(event.state.value, event.pid, flush=True),
        log=lambda line: print(line, flush=True),
        clock=time.monotonic, sleep=asyncio.sleep, random=random.random,
    ).start()
    await asyncio.sleep(3600)

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_engine_outlives_a_gateway_that_is_killed(lab, loop):
    lab.make_ready()
    command = [sys.executable, "-c", PARENT, loop, lab.url, *lab.argv, "family"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as gateway:
        said: dict[str, int] = {}
        while "ready" not in said:
            *words, number = gateway.stdout.readline().split()
            said[words[-1]] = int(number) if number.isdigit() else 0
        family = [said["ready"], said["child"], psutil.Process(said["ready"]).ppid()]

        gateway.kill()
        gateway.wait()

        deadline = time.monotonic() + 30
        while not all(gone(pid) for pid in family) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [gone(pid) for pid in family] == [True, True, True]
