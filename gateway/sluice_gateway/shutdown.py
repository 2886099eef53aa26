"""The wish to stop: first with patience, and when it comes again, at once."""

from __future__ import annotations

import asyncio


class Shutdown:
    """What signals, or a supervisor, have asked for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.released = asyncio.Event()
        """Set unless this process has to stay, refusing requests, until others have ended theirs too."""
        self.released.set()
        self.drain_s = 0.0
        """How long running requests may go on, once it was asked for."""

    def ask(self, drain_s: float) -> None:
        """Stop, or, when that has been asked for already, stop at once."""
        if self.asked.is_set():
            self.hurried.set()
        else:
            self.drain_s = drain_s
            self.asked.set()
