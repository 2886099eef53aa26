"""Work on a thread outlives nobody who waits for it."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from sluice_gateway.threads import in_thread

from .serving import eventually

NAME: ContextVar[str] = ContextVar("name", default="nobody")


async def test_it_gives_the_result_and_the_error() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


async def test_it_runs_with_the_callers_context_elsewhere() -> None:
    NAME.set("somebody")
    assert await in_thread(NAME.get) == "somebody"
    assert await in_thread(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_who_is_cancelled_waits_for_the_thread_however_often(times: int) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(20)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await eventually(begun.is_set)
    for _ in range(times):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_the_end_of_a_loop_waits_for_the_thread_too() -> None:
    begun, may_end, closed = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(20)

    async def caller() -> None:
        try:
            await in_thread(work)
        finally:
            assert may_end.is_set(), "the thread was still at work"
            closed.set()

    async def main() -> None:
        asyncio.create_task(caller())  # noqa: RUF006  (the loop's end is to find it)
        await eventually(begun.is_set)
        threading.Timer(0.05, may_end.set).start()

    asyncio.run(main())
    assert closed.is_set()
