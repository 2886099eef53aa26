"""What signals mean to the process that the user started.

SIGINT    stop; somebody waits at a terminal: `interrupt_drain_s`
SIGTERM   stop; running requests may end: `drain_s`
SIGHUP    with a terminal: it was closed, stop as after SIGINT; without one: read the configuration again

Any of them, once more, stops at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Literal

from sluice_gateway.config import ConfigError
from sluice_gateway.settings import Server

STOPPING = "Stopping; press Ctrl-C again to stop at once."
_log = logging.getLogger("sluice")

Hangup = Literal["stop", "reload", "ignore"]


def meaning_of_hangup(*, has_terminal: bool) -> Hangup:
    """What SIGHUP means to this process.

    With a terminal it says that the terminal was closed. Without one (systemd, a container) nobody could
    close it, and it is the old way to say: read your configuration again. Under `nohup` it is ignored.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return "ignore"
    return "stop" if has_terminal else "reload"


def has_terminal() -> bool:
    """Whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def heed(
    stop: Callable[[float], None], server: Callable[[], Server], reload: Callable[[], Awaitable[int]]
) -> asyncio.Task[None]:
    """Act on signals from now on. `stop` gets the patience that `server` says; cancel the task at the end."""
    loop, wanted = asyncio.get_running_loop(), asyncio.Event()

    def interrupt() -> None:
        stop(server().interrupt_drain_s)

    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, lambda: stop(server().drain_s))
    hangup = meaning_of_hangup(has_terminal=has_terminal())
    if hangup != "ignore":
        loop.add_signal_handler(signal.SIGHUP, interrupt if hangup == "stop" else wanted.set)
    return asyncio.create_task(_reload_when(wanted, reload))


async def _reload_when(wanted: asyncio.Event, reload: Callable[[], Awaitable[int]]) -> None:
    while True:
        await wanted.wait()
        wanted.clear()
        try:
            await reload()
        except ConfigError as error:
            _log.error("the configuration was not reloaded: %s", error)
        except Exception:
            _log.exception("the configuration was not reloaded")
