"""One engine's load, read again and again.

Asks for the pages that the adapter names, and keeps what need not be asked for each time: pages that hardly
change, and that a page is not there. A page that cannot be had costs only what it would have said; what went
wrong is a sentence in the reading. How often to read, and what a load means, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sluice_engines.adapter import EngineAdapter, LoadPage
from sluice_engines.page import PageRequest
from sluice_engines.transport import DeadlineExceeded, Transport, UpstreamError
from sluice_router.types import EngineLoad

_NOT_THERE = frozenset({404, 405, 501})
_LOOK_AGAIN_S = 30.0
"""For a page that is not there: an engine does not get one while it runs."""


class LoadReading(msgspec.Struct, frozen=True, kw_only=True):
    """What was read."""

    load: EngineLoad | None = None
    """`None` when nothing could be read."""
    problem: str | None = None
    """What could not be read and why, as one sentence without its full stop."""


class LoadReader:
    """Reads one engine."""

    def __init__(
        self,
        transport: Transport,
        adapter: EngineAdapter,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 2.0,
        clock: Callable[[], float],
    ) -> None:
        """`timeout_s` holds for each page; `clock` gives monotonic seconds."""
        self._adapter = adapter
        self._transport = transport
        self._timeout_s = timeout_s
        self._clock = clock
        self._pages = [
            _Page(page, PageRequest(base_url, page.path, api_key, timeout_s=timeout_s))
            for page in adapter.load_pages
        ]

    @property
    def has_pages(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._pages)

    def forget(self) -> None:
        """The engine may be another one now: ask for everything again."""
        for page in self._pages:
            page.due_s = 0.0

    async def read(self) -> LoadReading:
        """Read it now. Never raises for what the engine does."""
        bodies: dict[str, bytes] = {}
        problems: list[str] = []
        now_s = self._clock()
        for page in self._pages:
            if page.due_s <= now_s:
                await self._fetch(page, now_s)
            if page.body is not None:
                bodies[page.known.path] = page.body
            if page.problem is not None:
                problems.append(page.problem)
        load = None
        try:
            load = self._adapter.parse_load(bodies) if bodies else None
        except ValueError as error:
            problems.append(f"{' or '.join(bodies)} cannot be read: {error}")
        except Exception as error:  # an adapter of somebody else may fail in any way; the engine is well
            what = f"{type(error).__name__}: {error}"
            problems.append(f"adapter '{self._adapter.name}' fails at {' or '.join(bodies)}: {what}")
        return LoadReading(load=load, problem="; ".join(problems) or None)

    async def _fetch(self, page: _Page, now_s: float) -> None:
        path = page.known.path
        page.body, page.due_s = None, 0.0
        try:
            answer = await page.request.send(self._transport)
        except DeadlineExceeded:
            page.problem = f"{path} did not answer within {self._timeout_s:g} s"
            return
        except (UpstreamError, ValueError) as error:
            page.problem = f"{path}: {error}"
            return
        if answer.is_success:
            page.body, page.problem, page.due_s = answer.body, None, now_s + page.known.every_s
            return
        page.problem = f"{path} answered {answer.status}"
        if answer.status in _NOT_THERE:
            page.due_s = now_s + _LOOK_AGAIN_S
            if page.known.missing:
                page.problem += f" ({page.known.missing})"


class _Page:
    """A page, with what is known of it."""

    __slots__ = ("body", "due_s", "known", "problem", "request")

    def __init__(self, known: LoadPage, request: PageRequest) -> None:
        self.known = known
        self.request = request
        self.body: bytes | None = None
        self.problem: str | None = None
        self.due_s = 0.0
        """When to ask for it next; what is before now is due."""
