"""Work that waits for a disk, on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function on a thread.

    A thread cannot be stopped: whoever is cancelled meanwhile, be it twice, waits for its end, so that what
    it works on may be taken away afterwards.
    """
    call = partial(copy_context().run, function, *args, **kwargs)
    # Not `asyncio.to_thread`: that is a task, which the end of a loop cancels while its thread goes on.
    work = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # seen: nobody is there to handle it
        raise
