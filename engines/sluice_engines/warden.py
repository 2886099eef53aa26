"""The small process between the gateway and a managed engine: no engine outlives its gateway.

Run as a script, by its path, with a socket to the gateway as standard input. The gateway sends the engine's
argument list (`start_message`); the warden starts it and reports on the same socket, a line each:

    started PID
    exited CODE     negative when a signal ended it

When the gateway shuts its side, on purpose or by dying in whatever way, the warden sends SIGTERM to its
process group, and SIGKILL after the grace period. (A parent-death signal, `prctl(PR_SET_PDEATHSIG)`, would
reach only the engine's first process, exists only on Linux, and fires when the *thread* that forked ends.)

The gateway makes the warden the leader of a new session, so the group is the warden, the engine and all that
the engine starts. The warden ignores SIGTERM: it stays until the engine has ended and takes what is left of
the group with it. It imports next to nothing, for it starts with `python -I -S` in some ten milliseconds and
stays as long as the engine.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Sequence

GATEWAY_FD = 0
CANNOT_RUN = 127
"""Exit status of an engine that could not be started, as in a shell."""


def start_message(argv: Sequence[str]) -> bytes:
    """What the gateway sends first: the length in bytes, a line feed, and the arguments joined by NUL."""
    payload = b"\0".join(os.fsencode(argument) for argument in argv)
    return b"%d\n" % len(payload) + payload


def read_start_message(fd: int) -> list[str]:
    """The engine's argument list. Raises `EOFError` when the gateway is gone before it is complete."""
    head = b""
    while b"\n" not in head:
        head += _receive(fd)
    size, _, payload = head.partition(b"\n")
    while len(payload) < int(size):
        payload += _receive(fd)
    return [os.fsdecode(argument) for argument in payload.split(b"\0")]


def _receive(fd: int) -> bytes:
    data = os.read(fd, 65536)
    if not data:
        raise EOFError
    return data


def start_engine(argv: Sequence[str]) -> int:
    """Fork and execute; the engine's process id. This process has one thread, so forking is safe."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for ignored in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):  # the latter two by Python itself
            signal.signal(ignored, signal.SIG_DFL)
        os.execvp(argv[0], list(argv))
    except OSError as error:
        os.write(2, f"cannot run {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(CANNOT_RUN)


def wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends, without a race between looking and sleeping."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    return reader


def watch(engine_pid: int, child_died: int, grace_s: float) -> int:
    """Wait for the engine to end; end it when the gateway is gone. Its exit code, negative for a signal.

    Does not return when the engine outlives the grace period: the SIGKILL ends this process too.
    """
    waiting_for, deadline_s = [GATEWAY_FD, child_died], None
    while True:
        readable, _, _ = select.select(waiting_for, [], [], deadline_s)
        if child_died in readable:
            os.read(child_died, 4096)
        pid, status = os.waitpid(engine_pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if GATEWAY_FD in readable and not os.read(GATEWAY_FD, 4096):
            os.killpg(0, signal.SIGTERM)
            waiting_for, deadline_s = [child_died], grace_s
        elif not readable:
            os.killpg(0, signal.SIGKILL)


def serve(grace_s: float) -> None:
    """Start one engine, report on it until it has ended, and wait for the gateway to have heard.

    Raises `EOFError` or `OSError` when the gateway went away meanwhile.
    """
    child_died = wake_on_child()
    engine_pid = start_engine(read_start_message(GATEWAY_FD))
    os.write(GATEWAY_FD, b"started %d\n" % engine_pid)
    code = watch(engine_pid, child_died, grace_s)
    os.write(GATEWAY_FD, b"exited %d\n" % code)
    while os.read(GATEWAY_FD, 4096):
        continue


def main(grace_s: float) -> None:
    """Be the warden of one engine. Does not return: the end takes the whole group with it, itself too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.set_inheritable(GATEWAY_FD, False)
    try:
        serve(grace_s)
    finally:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(float(sys.argv[1]))
