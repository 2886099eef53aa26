"""Reads answers while a load lasts, in a process of its own that gives way to all others.

A thread would not do: when it is put off the core while it holds the interpreter's lock, the client waits for
it. The two processes talk over a socket pair, which the client's event loop serves without blocking: it sends
an exchange (its length, then pickled) and gets the figure's seconds (a double, NaN for none) back.
"""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sluice_bench.answers import read_answer
from sluice_bench.connection import Exchange
from sluice_bench.records import RequestRecord
from sluice_bench.runs.latency_figure import LatencyFigure

_LENGTH = struct.Struct("<I")
_SECONDS = struct.Struct("<d")
_PATIENCE_S = 60.0
"""For the process to be up."""


class AnswerReader:
    """The client's end; made by `answer_reader`."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    async def seconds(self, exchange: Exchange) -> float | None:
        """The figure of an exchange that has ended. Raises `OSError` when the process is gone."""
        loop, payload = asyncio.get_running_loop(), pickle.dumps(exchange)
        await loop.sock_sendall(self._channel, _LENGTH.pack(len(payload)) + payload)
        answer = b""
        while len(answer) < _SECONDS.size:
            more = await loop.sock_recv(self._channel, _SECONDS.size - len(answer))
            if not more:
                raise ConnectionError("the process that reads answers has ended")
            answer += more
        (found,) = _SECONDS.unpack(answer)
        return None if math.isnan(found) else float(found)


@contextmanager
def answer_reader(figure: LatencyFigure) -> Iterator[AnswerReader]:
    """A process that reads `figure`, up before the block begins. Raises `OSError` when it does not start."""
    ours, its_own = socket.socketpair()
    command = [sys.executable, "-m", __name__, figure.name, str(its_own.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[its_own.fileno()], start_new_session=True) as process:
        its_own.close()
        try:
            ours.settimeout(_PATIENCE_S)
            if not ours.recv(_SECONDS.size):
                raise ConnectionError("the process that reads answers did not start")
            ours.setblocking(False)
            yield AnswerReader(ours)
        finally:
            process.kill()


def figure_of(figure: LatencyFigure, record: RequestRecord) -> float | None:
    """Seconds; `None` of a request to warm up."""
    return figure.of(record) if record.phase == "measured" else None


def _serve(figure: LatencyFigure, channel: socket.socket) -> None:
    channel.sendall(_SECONDS.pack(0.0))
    if hasattr(os, "nice"):
        os.nice(19)
    with channel.makefile("rb") as requests:
        while head := requests.read(_LENGTH.size):
            exchange = pickle.loads(requests.read(_LENGTH.unpack(head)[0]))
            found = figure_of(figure, read_answer(exchange))
            channel.sendall(_SECONDS.pack(math.nan if found is None else found))


if __name__ == "__main__":
    _serve(LatencyFigure.parse(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
