"""Responses that are generated while nobody waits, in the process that got the request.

Each run says every second that it is alive and learns whether it was cancelled, here or by another process:
the row in the store is the only thing that processes share. Whatever ends a run, its row becomes final and
its log gets a last event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from sluice_gateway.dialects.responses.event_stream import frame
from sluice_gateway.dialects.responses.response_object import Outcome, error_of
from sluice_gateway.errors import Failure, Problem, internal, problem
from sluice_gateway.responses_api.ask import ANNOUNCED, ResponseAsk
from sluice_gateway.responses_api.event_log import EventLog, LogFull, LogWire
from sluice_gateway.responses_api.store import ResponseStore
from sluice_gateway.store.database import UNAVAILABLE
from sluice_gateway.wire import Wire

_log = logging.getLogger("sluice")

Generate = Callable[[ResponseAsk, Wire], Awaitable[None]]
"""Answers an ask into a wire: the pipeline's part of a run."""

_TOO_LARGE = "The response became larger than the server keeps; ask for less at once."
_STOPPING = "The server stopped before the response was complete; try again."
_CANCELLED = {"type": "error", "code": "cancelled", "message": "The response was cancelled.", "param": None}


class BackgroundRun:
    """One response on its way."""

    def __init__(self, ask: ResponseAsk, max_log_bytes: int) -> None:
        self.ask = ask
        queued = ask.echo.object(Outcome(status="queued"))
        self.queued = msgspec.json.encode(queued)
        """The response object that the client gets at once."""
        self.log = EventLog(max_log_bytes)
        if ask.stream:
            self.log.append(
                frame(kind, {"type": kind, "sequence_number": number, "response": queued})
                for number, kind in enumerate(ANNOUNCED)
            )
        self.is_cancelled = False
        self.has_ended = False
        """Whether there is nothing left to stop."""
        self.task: asyncio.Task[None] | None = None

    @property
    def status(self) -> str:
        """As far as it is."""
        return "in_progress" if self.ask.attempted else "queued"

    def cancel(self) -> None:
        """Stop it; the row is final already."""
        self.is_cancelled = True
        self.stop()

    def stop(self) -> None:
        """End it before its time. Once only: a second time would cut off what it does to end well."""
        if self.task is not None and not self.has_ended:
            self.has_ended = True
            self.task.cancel()


class BackgroundRuns:
    """The runs of this process."""

    def __init__(self, store: ResponseStore, clock: Callable[[], float], beat_s: float) -> None:
        """`clock`: seconds since 1970. `beat_s`: how often a run says that it is alive."""
        self._store = store
        self._clock = clock
        self._beat_s = beat_s
        self._runs: dict[str, BackgroundRun] = {}

    def get(self, response_id: str) -> BackgroundRun | None:
        """The run of a response, if it is one of this process's."""
        return self._runs.get(response_id)

    async def start(self, run: BackgroundRun, generate: Generate) -> None:
        """Have the response generated; returns at once."""
        self._runs[run.ask.id] = run
        run.task = asyncio.create_task(self._supervise(run, generate))
        # A task that is cancelled before its first step would never come to its end.
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        """End all runs; their responses have failed."""
        runs = tuple(self._runs.values())
        for run in runs:
            run.stop()
        await asyncio.gather(*(run.task for run in runs if run.task is not None), return_exceptions=True)

    async def _supervise(self, run: BackgroundRun, generate: Generate) -> None:
        over = asyncio.Event()
        beat = asyncio.create_task(self._beat(run, over))
        found: Problem | None = None
        try:
            found = await _generate(run, generate)
        except asyncio.CancelledError:
            found = problem(Failure.SHUTTING_DOWN, _STOPPING)
        finally:
            run.has_ended = True
            over.set()
            await beat
            await self._conclude(run, found)
            self._runs.pop(run.ask.id, None)

    async def _conclude(self, run: BackgroundRun, found: Problem | None) -> None:
        if run.ask.stream and not run.log.has_end:
            run.log.append_end(_last_event(run, found))
        if not run.is_cancelled:
            await run.ask.conclude(
                found or problem(Failure.UPSTREAM_LOST, "No engine finished the response.")
            )
        await self._flush(run)
        run.log.close()

    async def _beat(self, run: BackgroundRun, over: asyncio.Event) -> None:
        """Until it is over. Not cancelled, so that no look at the store is cut in the middle."""
        while not await _waited(over, self._beat_s):
            try:
                status = await self._store.beat(run.ask.id, run.status, self._clock())
            except UNAVAILABLE as error:
                # The run is worth more than its sign of life; the next beat may get through.
                _log.warning("response %s: no sign of life stored: %s", run.ask.id, type(error).__name__)
                continue
            if status in (None, "cancelled"):
                run.cancel()
                return
            await self._flush(run)

    async def _flush(self, run: BackgroundRun) -> None:
        """Keep the events for other processes, and for later."""
        first, events = run.log.unflushed()
        if not events:
            return
        try:
            await self._store.add_events(run.ask.id, first, events)
        except UNAVAILABLE as error:
            _log.warning("response %s: events not stored: %s", run.ask.id, type(error).__name__)


async def _waited(over: asyncio.Event, limit_s: float) -> bool:
    """Whether it was over before the time was."""
    try:
        async with asyncio.timeout(limit_s):
            return await over.wait()
    except TimeoutError:
        return False


async def _generate(run: BackgroundRun, generate: Generate) -> Problem | None:
    """Run to the end; why it did not get there."""
    wire = LogWire(run.log)
    try:
        await generate(run.ask, wire)
    except LogFull:
        return problem(Failure.UPSTREAM_ERROR, _TOO_LARGE)
    except Exception:
        _log.exception("response %s failed inside the gateway", run.ask.id)
        return internal(run.ask.id)
    return wire.found


def _last_event(run: BackgroundRun, found: Problem | None) -> bytes:
    number = {"sequence_number": len(run.log)}
    if run.is_cancelled:
        return frame("error", {**_CANCELLED, **number})
    found = found or problem(Failure.UPSTREAM_LOST, "No engine finished the response.")
    response = run.ask.ended("failed", error_of(found))
    return frame("response.failed", {"type": "response.failed", **number, "response": response})
