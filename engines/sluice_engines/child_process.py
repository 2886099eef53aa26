"""One life of a managed engine: its process group, its output and its end.

The engine runs under a warden (`warden.py`), which reports over a socket; nothing here depends on the event
loop's own child watching, so it works on every loop, and a process that inherited the engine's output cannot
delay the news of its death.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sluice_engines import warden
from sluice_engines.log_lines import forward_lines

REAP_S = 2.0
"""How long after its grace period the warden may take, before the group is killed from here."""
GROUP_GONE_S = 1.0
"""How long killed processes may take to disappear before they are no longer waited for."""
LAST_LINES_S = 1.0
"""How long to wait for the end of the output: a process that left the group may hold it open."""


class ChildProcess:
    """A running engine with its warden. Whoever started it must `await end()`."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        reports: asyncio.StreamReader,
        control: asyncio.StreamWriter,
        output: asyncio.Task[None],
        grace_s: float,
    ) -> None:
        """See `start`."""
        self._popen = popen
        self._control = control
        self._output = output
        self._grace_s = grace_s
        self._started = asyncio.Event()
        self._listener = asyncio.get_running_loop().create_task(self._listen(reports))
        self.pid: int | None = None
        """Of the engine's first process, once `started`; `None` if it never was."""
        self.exit_code: int | None = None
        """Once it has ended; negative for a signal, `None` when unknown."""

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None,
        cwd: str | None,
        grace_s: float,
        log: Callable[[str], None],
    ) -> ChildProcess:
        """Start a process group for `argv`; `log` gets its output by the line.

        A program that cannot be run is a line of output and exit code 127. Raises `OSError` when `cwd` is no
        folder, or the machine has no process or descriptor left.
        """
        control, log_fd, popen = _spawn_warden(env, cwd, grace_s)
        output = asyncio.get_running_loop().create_task(forward_lines(log_fd, log))
        reader, writer = await asyncio.open_unix_connection(sock=control)
        writer.write(warden.start_message(argv))
        return cls(popen, reader, writer, output, grace_s)

    @property
    def ended(self) -> bool:
        """Whether the engine, or its warden, is gone."""
        return self._listener.done()

    async def started(self) -> None:
        """Until `pid` is known, or never will be."""
        await self._started.wait()

    async def wait(self) -> None:
        """Until the engine, or its warden, is gone."""
        await asyncio.wait([self._listener])

    async def end(self) -> None:
        """SIGTERM to what is left of the group, SIGKILL after the grace period; then release everything."""
        if not self.ended:
            self._control.write_eof()
            await asyncio.wait([self._listener], timeout=self._grace_s + REAP_S)
        self._kill_group()
        await asyncio.to_thread(self._popen.wait)
        await self._group_gone()
        self._control.close()
        with contextlib.suppress(OSError):
            await self._control.wait_closed()
        await asyncio.wait([self._listener])
        await self._finish_output()

    def _kill_group(self) -> None:
        """Safe because the warden is not reaped yet: its id cannot have become another group's."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    async def _group_gone(self) -> None:
        """Until no member of the group is left, for killed processes need a moment to give back their ports.

        Not for ever: where nobody reaps orphans, the dead stay members.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError, TimeoutError):
            async with asyncio.timeout(GROUP_GONE_S):
                while True:
                    os.killpg(self._popen.pid, 0)
                    await asyncio.sleep(0.005)

    async def _finish_output(self) -> None:
        await asyncio.wait([self._output], timeout=LAST_LINES_S)
        self._output.cancel()
        await asyncio.wait([self._output])

    async def _listen(self, reports: asyncio.StreamReader) -> None:
        """Follow the warden's reports until the engine has ended or the warden is gone."""
        try:
            while line := await reports.readline():
                word, _, number = line.decode().partition(" ")
                if word == "exited":
                    self.exit_code = int(number)
                    return
                self.pid = int(number)
                self._started.set()
        except ConnectionError:
            return
        finally:
            self._started.set()


def _spawn_warden(
    env: Mapping[str, str] | None, cwd: str | None, grace_s: float
) -> tuple[socket.socket, int, subprocess.Popen[bytes]]:
    """A warden in a new session: our end of its control socket, the read end of its output, the process."""
    ours, theirs = socket.socketpair()
    log_reader, log_writer = os.pipe()
    try:
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(warden.__file__)), str(grace_s)],
            stdin=theirs.fileno(),
            stdout=log_writer,
            stderr=log_writer,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        os.close(log_reader)
        raise
    finally:
        theirs.close()
        os.close(log_writer)
    return ours, log_reader, popen
