"""How late the event loop runs: the one figure that tells a blocked loop from a slow engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL_S = 0.5


async def sample_loop_lag(observe: Callable[[float], None], interval_s: float = INTERVAL_S) -> None:
    """Report, every `interval_s`, by how many seconds a timer was late. Runs until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        observe(max(0.0, loop.time() - due_s))
