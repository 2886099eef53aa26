"""What an engine tells of its load with its answers, brought to the router off the requests' path.

A request only leaves its header here. A few milliseconds later the newest of them is read, so that a thousand
answers a second cost as many readings as fifty, and none of them waits.

A report says little: it goes over what the engine's pages said last, as long as they are not old. An old page
is let go, for its other numbers would look as new as the report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from sluice_engines.load_report import LoadReport
from sluice_router.types import EngineLoad

READ_AFTER_S = 0.02
_NOTHING = EngineLoad()


class ToldLoad:
    """One engine's."""

    __slots__ = (
        "_clock",
        "_from_pages",
        "_known_for_s",
        "_newest",
        "_record",
        "_report",
        "_timer",
        "_until_s",
    )

    def __init__(
        self,
        report: LoadReport,
        record: Callable[[EngineLoad], None],
        known_for_s: float,
        clock: Callable[[], float],
    ) -> None:
        """`record` gets a load for the router; pages are old `known_for_s` after they were read."""
        self._report = report
        self._record = record
        self._known_for_s = known_for_s
        self._clock = clock
        self._from_pages = _NOTHING
        self._until_s = 0.0
        self._newest = b""
        self._timer: asyncio.TimerHandle | None = None

    def note_pages(self, load: EngineLoad) -> None:
        """The engine's pages have been read: newer than any report before."""
        self._from_pages, self._until_s = load, self._clock() + self._known_for_s
        self.forget()

    def tell(self, value: bytes) -> None:
        """An answer has come with this report."""
        self._newest = value
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(READ_AFTER_S, self._read)

    def forget(self) -> None:
        """What has not been read yet, will not be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _read(self) -> None:
        self._timer = None
        try:
            told = self._report.read(self._newest)
        except ValueError:
            return  # the pages still tell, and what is wrong with the engine's header is not the client's
        if told != _NOTHING:
            self._record(over(self._from_pages if self._clock() < self._until_s else _NOTHING, told))


def over(known: EngineLoad, told: EngineLoad) -> EngineLoad:
    """`known` with what a report says. A report counts among those that wait also whoever waits for something
    other than room, which `known` does not: it can only say that fewer wait."""
    news = {name: value for name, value in msgspec.structs.asdict(told).items() if value is not None}
    if known.waiting is not None and "waiting" in news:
        news["waiting"] = min(known.waiting, news["waiting"])
    return msgspec.structs.replace(known, **news)
