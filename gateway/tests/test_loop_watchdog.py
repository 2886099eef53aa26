"""A blocked event loop is named, with the line that blocks it."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import time
from collections.abc import Iterator

import pytest

from sluice_gateway import logs
from sluice_gateway.loop_lag import sample_loop_lag
from sluice_gateway.loop_watchdog import LoopWatchdog

from .serving import eventually

BEAT_S = 0.005


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(stream, "text")
    yield stream
    logging.getLogger(logs.LOGGER).handlers.clear()


def block_until(condition) -> None:
    """What no coroutine should do."""
    secret = "a prompt"
    deadline = time.monotonic() + 20
    while not condition() and secret:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def blocks(log: io.StringIO) -> int:
    """How many were reported. A stack may show this very line, which does not match itself."""
    return len(re.findall(r"ERROR\s+the event loop", log.getvalue()))


async def test_each_block_is_logged_once_with_its_stack_and_without_values(log: io.StringIO) -> None:
    watchdog = LoopWatchdog(time.monotonic, limit_s=0.05, beat_interval_s=BEAT_S, look_s=0.01)
    watchdog.start()
    beating = asyncio.create_task(sample_loop_lag(lambda _: watchdog.beat(), BEAT_S))
    try:
        for block in (1, 2):
            block_until(lambda block=block: blocks(log) == block)
            await eventually(lambda block=block: log.getvalue().count("runs again") == block)
    finally:
        beating.cancel()
        watchdog.stop()
    assert "in block_until" in log.getvalue()
    assert blocks(log) == 2
    assert "a prompt" not in log.getvalue().replace('secret = "a prompt"', "")


async def test_a_loop_that_runs_is_left_alone(log: io.StringIO) -> None:
    watchdog = LoopWatchdog(time.monotonic, limit_s=5.0, beat_interval_s=BEAT_S, look_s=0.001)
    looks = 0

    def beat(_: float) -> None:
        nonlocal looks
        looks += 1
        watchdog.beat()

    watchdog.start()
    beating = asyncio.create_task(sample_loop_lag(beat, BEAT_S))
    await eventually(lambda: looks > 20)
    beating.cancel()
    watchdog.stop()
    assert log.getvalue() == ""


def test_it_can_be_stopped_without_having_been_started() -> None:
    LoopWatchdog(time.monotonic).stop()
