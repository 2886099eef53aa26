"""Waiting for an instant: never too short, for instants that are over not at all."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from sluice_bench.due_timer import DueTimer, KernelTimer, PollingTimer, due_timer

MS = 1_000_000


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


KINDS = [PollingTimer, *([KernelTimer] if sys.platform == "linux" else [])]


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_is_woken_too_early(kind: type) -> None:
    timer: DueTimer = kind(time.perf_counter_ns)
    for ahead in (0, 1, 300_000, 2 * MS, 7 * MS, -5 * MS):
        due = time.perf_counter_ns() + ahead
        await timer.until(due)
        assert time.perf_counter_ns() >= due
    timer.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_instant_that_is_over_takes_no_turn_of_the_loop(kind: type) -> None:
    timer: DueTimer = kind(time.perf_counter_ns)
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await timer.until(time.perf_counter_ns() - 1)
    await timer.until(0)
    assert turns == []
    timer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")
async def test_others_run_while_the_kernel_counts() -> None:
    timer = due_timer(time.perf_counter_ns)
    assert isinstance(timer, KernelTimer)
    turns = 0

    async def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    task = asyncio.create_task(work())
    await timer.until(time.perf_counter_ns() + 20 * MS)
    task.cancel()
    timer.close()
    assert turns > 1


@pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")
async def test_a_timer_can_be_set_again_after_a_wait_was_cancelled() -> None:
    timer = KernelTimer(time.perf_counter_ns)
    waiting = asyncio.create_task(timer.until(time.perf_counter_ns() + 3600 * 1000 * MS))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(timer.until(time.perf_counter_ns() + MS), 30)
    timer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")
async def test_a_closed_timer_holds_no_descriptor() -> None:
    before = descriptors()
    timer = KernelTimer(time.perf_counter_ns)
    assert descriptors() == before + 1
    timer.close()
    timer.close()
    assert descriptors() == before


async def test_another_clock_than_the_kernels_is_polled() -> None:
    assert isinstance(due_timer(lambda: 0), PollingTimer)
