"""Stored responses in the database, which all processes share.

Invariant: a status of `FINAL` never changes: whoever is second (a run that ends while it is cancelled)
finds that its update does not apply. Every look-up names the tenant, so that nobody finds another's. Raises
whatever the database raises; `service.py` knows what to make of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, literal, select, update

from sluice_gateway.dialects.responses.request import Item
from sluice_gateway.dialects.responses.response_object import FINAL, ResponseObject
from sluice_gateway.responses_api.tables import EVENTS, RESPONSES
from sluice_gateway.store.database import Database

_MAX_TURNS = 10_000
_JSON_OBJECT = msgspec.json.Decoder(dict[str, Any])
_JSON_ITEMS = msgspec.json.Decoder(list[dict[str, Any]])
_PRUNE_ROWS = 500


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One response as it is kept."""

    id: str
    tenant: str
    previous_response_id: str | None
    status: str
    created_at: float
    expires_at: float
    alive_at: float
    streamed: bool
    response: bytes
    """The response object, JSON."""
    input_items: bytes
    """The request's own input items, a JSON array."""

    def fields(self) -> ResponseObject:
        """The response object, at the status that holds."""
        return {**_JSON_OBJECT.decode(self.response), "status": self.status}

    def own_items(self) -> list[Item]:
        """The request's own input items, oldest first."""
        return _JSON_ITEMS.decode(self.input_items)

    def items(self) -> list[Item]:
        """Its turn of the conversation: input, then output."""
        return [*self.own_items(), *self.fields()["output"]]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.response) + len(self.input_items)


class ResponseStore:
    """Reads and writes. Holds nothing itself."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, response_id: str, tenant: str, now: float) -> Stored | None:
        """One response that is not forgotten yet."""
        query = select(RESPONSES).where(
            RESPONSES.c.id == response_id, RESPONSES.c.tenant == tenant, RESPONSES.c.expires_at > now
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return _stored(row) if row is not None else None

    async def chain(self, response_id: str, tenant: str, now: float) -> list[Stored]:
        """A response and those before it, oldest first: as far back as they are there."""
        first = (
            select(
                RESPONSES.c.id.label("id"),
                RESPONSES.c.previous_response_id.label("previous"),
                literal(0).label("depth"),
            )
            .where(RESPONSES.c.id == response_id, RESPONSES.c.tenant == tenant, RESPONSES.c.expires_at > now)
            .cte("turns", recursive=True)
        )
        turns = first.union_all(
            select(RESPONSES.c.id, RESPONSES.c.previous_response_id, first.c.depth + 1)
            .join(first, RESPONSES.c.id == first.c.previous)
            .where(RESPONSES.c.tenant == tenant, first.c.depth < _MAX_TURNS)
        )
        query = select(RESPONSES).join(turns, RESPONSES.c.id == turns.c.id).order_by(turns.c.depth.desc())
        async with self._database.read() as connection:
            return [_stored(row) for row in await connection.execute(query)]

    async def add(self, stored: Stored, ancestors: Sequence[str] = ()) -> None:
        """Keep a response, and those it continues for as long."""
        async with self._database.begin() as connection:
            await connection.execute(insert(RESPONSES).values(**msgspec.structs.asdict(stored)))
            if ancestors:
                await connection.execute(
                    update(RESPONSES)
                    .where(RESPONSES.c.id.in_(ancestors), RESPONSES.c.tenant == stored.tenant)
                    .values(expires_at=stored.expires_at)
                )

    async def conclude(self, response_id: str, response: ResponseObject) -> bool:
        """Set the final object of a response; whether it was not final before."""
        change = (
            update(RESPONSES)
            .where(RESPONSES.c.id == response_id, RESPONSES.c.status.not_in(FINAL))
            .values(status=response["status"], response=msgspec.json.encode(response))
        )
        async with self._database.begin() as connection:
            return bool((await connection.execute(change)).rowcount)

    async def beat(self, response_id: str, status: str, now: float) -> str | None:
        """Say that a run is alive and how far it is; the status that holds, `None` when it was deleted."""
        mine = RESPONSES.c.id == response_id
        async with self._database.begin() as connection:
            found: str | None = await connection.scalar(select(RESPONSES.c.status).where(mine))
            if found is None or found in FINAL:
                return found
            await connection.execute(update(RESPONSES).where(mine).values(alive_at=now, status=status))
        return status

    async def add_events(self, response_id: str, first_sequence: int, events: bytes) -> None:
        """Keep a run of consecutive events."""
        values = {"response_id": response_id, "first_sequence": first_sequence, "events": events}
        async with self._database.begin() as connection:
            await connection.execute(insert(EVENTS).values(**values))

    async def events(self, response_id: str, after: int) -> list[tuple[int, bytes]]:
        """Runs of events with the number of their first, oldest first; the first may begin before `after`."""
        start = (
            select(EVENTS.c.first_sequence)
            .where(EVENTS.c.response_id == response_id, EVENTS.c.first_sequence <= after + 1)
            .order_by(EVENTS.c.first_sequence.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = (
            select(EVENTS.c.first_sequence, EVENTS.c.events)
            .where(EVENTS.c.response_id == response_id, EVENTS.c.first_sequence >= start)
            .order_by(EVENTS.c.first_sequence)
        )
        async with self._database.read() as connection:
            return [(row[0], row[1]) for row in await connection.execute(query)]

    async def delete(self, response_id: str, tenant: str) -> bool:
        """Forget a response; whether there was one."""
        gone = delete(RESPONSES).where(RESPONSES.c.id == response_id, RESPONSES.c.tenant == tenant)
        async with self._database.begin() as connection:
            return bool((await connection.execute(gone)).rowcount)

    async def prune(self, now: float) -> int:
        """Forget responses whose time is over, a bounded number at once; how many."""
        over = select(RESPONSES.c.id).where(RESPONSES.c.expires_at <= now).limit(_PRUNE_ROWS)
        async with self._database.begin() as connection:
            return (await connection.execute(delete(RESPONSES).where(RESPONSES.c.id.in_(over)))).rowcount


def _stored(row: Row[Any]) -> Stored:
    return Stored(**row._mapping)
