"""The Responses API behind its paths: opening requests, keeping their responses, giving them back.

The store is never needed for an answer that does not refer to it: while it is down, new responses are served
and lost to later look-ups, and requests that continue a stored one get 503. Nothing here knows of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from sluice_gateway.dialects.responses.problems import Unacceptable
from sluice_gateway.dialects.responses.request import CreateRequest, parse
from sluice_gateway.dialects.responses.response_object import FINAL, Echo, Identity, ResponseObject, error_of
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key
from sluice_gateway.responses_api.ask import ResponseAsk
from sluice_gateway.responses_api.background import BackgroundRun, BackgroundRuns, Generate
from sluice_gateway.responses_api.conversation import Conversations
from sluice_gateway.responses_api.event_reader import EventReader
from sluice_gateway.responses_api.settings import ResponsesSettings
from sluice_gateway.responses_api.store import ResponseStore, Stored
from sluice_gateway.store.database import UNAVAILABLE, Database

_log = logging.getLogger("sluice")

_T = TypeVar("_T")
_ID_BYTES = 24
_DAY_S = 86_400.0
_STORE_TIMEOUT_S = 5.0
_PRUNE_S = 3600.0
BEAT_S = 1.0
LOST_AFTER_S = 30.0
"""A background run that has not said for this long that it is alive has died with its process."""

_DOWN = problem(Failure.STORE_UNAVAILABLE, "Stored responses cannot be reached right now; try again shortly.")
_TOO_LARGE = problem(
    Failure.UPSTREAM_ERROR, "The response became larger than the server keeps; ask for less at once."
)
_LOST = problem(Failure.UPSTREAM_LOST, "The server stopped before the response was complete; try again.")


class ResponsesService:
    """One for the whole gateway. `start` before the first request, `aclose` after the last."""

    def __init__(
        self,
        database: Database,
        settings: ResponsesSettings,
        *,
        clock: Callable[[], float],
        randomness: Callable[[int], bytes],
        beat_s: float = BEAT_S,
    ) -> None:
        """`clock` gives seconds since 1970, `randomness` that many random bytes. `beat_s`: how often
        background runs look at the store."""
        self._settings = settings
        self._clock = clock
        self._randomness = randomness
        self._store = ResponseStore(database)
        self._conversations = Conversations(self._store, clock)
        self._runs = BackgroundRuns(self._store, clock, beat_s)
        self._reader = EventReader(self._store, beat_s)
        self._pruning: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to forget responses whose time is over. The database has to be migrated by then."""
        self._pruning = asyncio.create_task(self._prune())

    async def aclose(self) -> None:
        """End background responses. Idempotent."""
        if self._pruning is not None:
            self._pruning.cancel()
        await self._runs.aclose()

    async def open(self, body: bytes, key: Key) -> ResponseAsk | Problem:
        """A request, ready to be attempted, or why it cannot be."""
        request = parse(body)
        if isinstance(request, Problem):
            return request
        if not self._settings.store:
            if request.previous_response_id is not None or request.background:
                return _not_kept("previous_response_id" if request.previous_response_id else "background")
            request = msgspec.structs.replace(request, store=False)
        identity = self._identity(request)
        try:
            turn = await self._bounded(self._conversations.turn(body, request, identity, key.tenant))
        except Unacceptable as error:
            return error.found
        if isinstance(turn, Problem):
            return turn
        return ResponseAsk(turn, Echo(request, identity), self._keep, self._clock)

    async def begin(self, ask: ResponseAsk, generate: Generate) -> BackgroundRun | Problem:
        """Start a background response. Its client gets `queued`, or follows `log`."""
        run = BackgroundRun(ask, self._settings.max_stored_bytes)
        stored = self._stored(ask, "queued", run.queued)
        if stored.size > self._settings.max_stored_bytes:
            return problem(Failure.BODY_TOO_LARGE, "The input is larger than the server keeps.")
        added = await self._bounded(self._store.add(stored, ask.turn.ancestors))
        if isinstance(added, Problem):
            return added
        await self._runs.start(run, generate)
        return run

    async def retrieve(self, response_id: str, key: Key) -> ResponseObject | Problem:
        """A stored response as it is now."""
        stored = await self._get(response_id, key.tenant)
        return stored if isinstance(stored, Problem) else self._shown(stored)

    async def follow(self, response_id: str, key: Key, after: int) -> AsyncIterator[bytes] | Problem:
        """The events of a background response with numbers above `after`, as they come."""
        stored = await self._get(response_id, key.tenant)
        if isinstance(stored, Problem):
            return stored
        if not stored.streamed:
            text = "Only responses created with 'background' and 'stream' can be streamed later."
            return problem(Failure.INVALID_REQUEST, text, param="stream")
        run = self._runs.get(response_id)
        if run is not None:
            return run.log.follow(after)
        return self._reader.follow(response_id, after, lambda: self._get(response_id, key.tenant))

    async def delete(self, response_id: str, key: Key) -> dict[str, Any] | Problem:
        """Forget a response."""
        deleted = await self._bounded(self._store.delete(response_id, key.tenant))
        if isinstance(deleted, Problem):
            return deleted
        if not deleted:
            return _not_found(response_id)
        run = self._runs.get(response_id)
        if run is not None:
            run.cancel()
        return {"id": response_id, "object": "response", "deleted": True}

    async def cancel(self, response_id: str, key: Key) -> ResponseObject | Problem:
        """Stop a background response, wherever it runs; one that has ended stays as it is."""
        stored = await self._get(response_id, key.tenant)
        if isinstance(stored, Problem):
            return stored
        response = self._shown(stored)
        if not response["background"]:
            text = "Only background responses can be cancelled; to cancel another, close its connection."
            return problem(Failure.INVALID_REQUEST, text)
        if stored.status in FINAL:
            return response
        run = self._runs.get(response_id)
        ended = run.ask.ended("cancelled") if run is not None else {**response, "status": "cancelled"}
        applied = await self._bounded(self._store.conclude(response_id, ended))
        if isinstance(applied, Problem):
            return applied
        if run is not None and applied:
            run.cancel()
        return ended if applied else await self.retrieve(response_id, key)

    async def input_items(
        self, response_id: str, key: Key, *, limit: int, newest_first: bool, after: str | None
    ) -> dict[str, Any] | Problem:
        """A page of a response's own input items, from the one behind `after` on."""
        stored = await self._get(response_id, key.tenant)
        if isinstance(stored, Problem):
            return stored
        items = stored.own_items()
        if newest_first:
            items.reverse()
        if after is not None:
            places = [place for place, item in enumerate(items) if item["id"] == after]
            if not places:
                return problem(Failure.INVALID_REQUEST, f"There is no item '{after}'.", param="after")
            items = items[places[0] + 1 :]
        page = items[:limit]
        return {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else "",
            "last_id": page[-1]["id"] if page else "",
            "has_more": len(items) > limit,
        }

    def _identity(self, request: CreateRequest) -> Identity:
        own = len(request.input) if isinstance(request.input, list) else 1
        return Identity(
            id=f"resp_{self._randomness(_ID_BYTES).hex()}", created_at=int(self._clock()), first_item=own
        )

    async def _keep(self, ask: ResponseAsk, response: ResponseObject) -> None:
        """Store a finished response, if it is to be stored. Whatever happens here, its client gets it."""
        if not ask.turn.request.store:
            return
        try:
            await self._add(ask, response)
        except Exception:
            _log.exception("response %s is not kept", ask.id)

    async def _add(self, ask: ResponseAsk, response: ResponseObject) -> None:
        stored = self._stored(ask, response["status"], msgspec.json.encode(response))
        if stored.size > self._settings.max_stored_bytes:
            _log.warning("response %s is not kept: it is larger than responses.max_stored_bytes", ask.id)
            if not ask.background:
                return
            response = {**response, "status": "failed", "error": error_of(_TOO_LARGE), "output": []}
        if ask.background:
            kept: Any = await self._bounded(self._store.conclude(ask.id, response))
        else:
            kept = await self._bounded(self._store.add(stored, ask.turn.ancestors))
        if isinstance(kept, Problem):
            _log.warning("response %s is not kept: the store cannot be reached", ask.id)

    def _stored(self, ask: ResponseAsk, status: str, response: bytes) -> Stored:
        now = self._clock()
        return Stored(
            id=ask.id,
            tenant=ask.turn.tenant,
            previous_response_id=ask.turn.request.previous_response_id,
            status=status,
            created_at=ask.echo.identity.created_at,
            expires_at=now + self._settings.ttl_days * _DAY_S,
            alive_at=now,
            streamed=ask.background and ask.stream,
            response=response,
            input_items=msgspec.json.encode(ask.turn.own_items),
        )

    async def _get(self, response_id: str, tenant: str) -> Stored | Problem:
        now = self._clock()
        stored = await self._bounded(self._store.get(response_id, tenant, now))
        if stored is None:
            return _not_found(response_id)
        if isinstance(stored, Problem) or stored.status in FINAL:
            return stored
        if stored.alive_at > now - LOST_AFTER_S or self._runs.get(response_id) is not None:
            return stored
        return await self._bury(stored)

    async def _bury(self, stored: Stored) -> Stored | Problem:
        """Say of a run whose process has died that it failed."""
        response = {**stored.fields(), "status": "failed", "error": error_of(_LOST)}
        applied = await self._bounded(self._store.conclude(stored.id, response))
        if isinstance(applied, Problem):
            return applied
        encoded = msgspec.json.encode(response)
        return msgspec.structs.replace(stored, status="failed", response=encoded)

    def _shown(self, stored: Stored) -> ResponseObject:
        response = stored.fields()
        run = self._runs.get(stored.id)
        if run is not None and stored.status not in FINAL:
            response["status"] = run.status
        return response

    async def _bounded(self, work: Awaitable[_T]) -> _T | Problem:
        """What the store says, in time; 503 when it does not. Refusals of the request go through.

        Whoever asked may leave: the store is not interrupted in the middle of its work.
        """
        task = asyncio.ensure_future(work)
        task.add_done_callback(_look_at)
        try:
            async with asyncio.timeout(_STORE_TIMEOUT_S):
                return await asyncio.shield(task)
        except UNAVAILABLE as error:
            _log.warning("stored responses cannot be reached: %s", type(error).__name__)
            return _DOWN

    async def _prune(self) -> None:
        while True:
            forgotten = await self._bounded(self._store.prune(self._clock()))
            if isinstance(forgotten, Problem) or not forgotten:
                await asyncio.sleep(_PRUNE_S)


def _look_at(task: asyncio.Future[Any]) -> None:
    """Whoever waited for it may have left: an exception is nobody's then."""
    if not task.cancelled():
        task.exception()


def _not_found(response_id: str) -> Problem:
    return problem(Failure.NOT_FOUND, f"Response with id '{response_id}' not found.")


def _not_kept(param: str) -> Problem:
    text = f"'{param}' needs stored responses, which are switched off here (responses.store)."
    return problem(Failure.UNSUPPORTED, text, param=param)
