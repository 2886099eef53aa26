"""Says where the event loop hangs, while it hangs.

A thread that looks four times a second when the loop last ran. Once a block has lasted longer than `limit_s`,
the stack of the loop's thread is logged, a single time for each block: lines of code, never their values. A
thread that was itself not run (the process was stopped, the machine slept) blames nobody. The loop's part is
one assignment, made by the lag sampler's timer (`loop_lag.py`).
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable

from sluice_gateway.loop_lag import INTERVAL_S

LIMIT_S = 1.0
_LOOK_S = 0.25
_log = logging.getLogger("sluice")


class LoopWatchdog:
    """Watches the thread that calls `start`."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        limit_s: float = LIMIT_S,
        beat_interval_s: float = INTERVAL_S,
        look_s: float = _LOOK_S,
    ) -> None:
        """`clock`: monotonic seconds. `beat` will be called every `beat_interval_s`."""
        self._clock = clock
        self._patience_s = limit_s + beat_interval_s
        self._look_s = look_s
        self._beat_s = 0.0
        self._watched = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sluice-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch. The calling thread is the loop's."""
        self._watched = threading.get_ident()
        self.beat()
        self._thread.start()

    def beat(self) -> None:
        """The loop runs."""
        self._beat_s = self._clock()

    def stop(self) -> None:
        """Stop watching. Idempotent; also without `start`."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        reported = False
        looked_s = self._clock()
        while not self._stopped.wait(self._look_s):
            now = self._clock()
            slept = now - looked_s > 2 * self._look_s + 0.5
            looked_s = now
            blocked = now - self._beat_s > self._patience_s
            if blocked and not reported and not slept:
                _log.error(
                    "the event loop has been blocked for %.1f s:\n%s", now - self._beat_s, self._stack()
                )
            elif reported and not blocked:
                _log.warning("the event loop runs again")
            reported = blocked and (reported or not slept)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return "" if frame is None else "".join(traceback.format_stack(frame))
