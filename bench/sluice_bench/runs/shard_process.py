"""One client process of several: `python -m sluice_bench.runs.shard_process`, started by `shards.py`.

It ends when its standard input does, so that it never outlives the run that it belongs to.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import BinaryIO

from sluice_bench.load_run import frozen_gc, new_event_loop
from sluice_bench.runs.live import LiveCounts
from sluice_bench.runs.shard import RawShard, ShardTask, carry_out, read_shard
from sluice_bench.runs.shard_messages import (
    LENGTH_BYTES,
    Assignment,
    Finished,
    FromShard,
    Progress,
    Ready,
    Records,
    Refused,
    StartAt,
    TimeIs,
    ToShard,
    WhatTimeIsIt,
    frame,
    to_shard,
)


class Inbox:
    """Messages of the run, read by a thread that waits for them outside of the event loop."""

    def __init__(self, source: BinaryIO, loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._loop = loop
        self._messages: asyncio.Queue[ToShard] = asyncio.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    async def next(self) -> ToShard:
        """The next one."""
        return await self._messages.get()

    def _read(self) -> None:
        while len(length := self._source.read(LENGTH_BYTES)) == LENGTH_BYTES:
            message = to_shard(self._source.read(int.from_bytes(length, "little")))
            self._loop.call_soon_threadsafe(self._messages.put_nowait, message)
        os._exit(1)  # the run is gone, and with it whoever would read what is found


class Outbox:
    """Messages to the run."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def send(self, message: FromShard) -> None:
        """At once."""
        self._sink.write(frame(message))
        self._sink.flush()


async def _work(source: BinaryIO, outbox: Outbox) -> None:
    inbox = Inbox(source, asyncio.get_running_loop())
    first = await inbox.next()
    if not isinstance(first, Assignment):
        raise ValueError(f"the first message must be an assignment, not {type(first).__name__}")
    try:
        raw = await _load(first.task, inbox, outbox)
    except OSError as error:
        outbox.send(Refused(str(error)))
        return
    outbox.send(Finished())
    await inbox.next()
    outbox.send(Records(read_shard(first.task, raw)))


async def _load(task: ShardTask, inbox: Inbox, outbox: Outbox) -> RawShard:
    async def begin() -> int:
        outbox.send(Ready())
        while not isinstance(message := await inbox.next(), StartAt):
            if isinstance(message, WhatTimeIsIt):
                outbox.send(TimeIs(time.perf_counter_ns()))
        return message.at_ns

    def report(counts: LiveCounts) -> None:
        outbox.send(Progress(counts))

    return await carry_out(task, begin, report)


def main() -> None:
    """Entry point."""
    outbox = Outbox(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    sys.stdout = sys.stderr  # whatever else is written must not come between the messages
    with frozen_gc(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_work(sys.stdin.buffer, outbox))


if __name__ == "__main__":
    main()
