"""Files of tenants: what exists, whose it is, and until when.

Invariant: a row is made after its content is complete on disk, and removed before it. So whoever finds a row
finds the content, and content without a row belongs to nobody and is swept. A tenant never learns of another
one's files: they do not exist for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from sqlalchemy import ColumnElement, Row, and_, delete, insert, or_, select

from sluice_gateway.files.settings import FilesSettings
from sluice_gateway.files.storage import Content, Storage, Writer
from sluice_gateway.files.tables import FILES, StoredFile
from sluice_gateway.store.database import Database
from sluice_gateway.store.transaction import Transaction
from sluice_gateway.threads import in_thread

_log = logging.getLogger("sluice")
_SWEEP_S = 3600.0
_DAY_S = 86_400
_AT_ONCE = 500
_ID = re.compile(r"file-[0-9a-f]{24}")
"""Whatever else a client writes in its place must not reach the database, which cannot read all of it."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file besides its content."""

    tenant: str
    key_id: str
    filename: str
    purpose: str
    lifetime_s: int | None = None
    """`None`: what the settings say."""


class FilePage(msgspec.Struct, frozen=True):
    """A part of a list."""

    files: Sequence[StoredFile]
    has_more: bool


class FileService:
    """All files. `start` before the first use, `aclose` after the last."""

    def __init__(self, settings: FilesSettings, database: Database, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` gives seconds since 1970."""
        self.max_bytes = settings.max_bytes
        self.folder = Path(settings.dir)
        self._lifetime_s = None if settings.ttl_days is None else int(settings.ttl_days * _DAY_S)
        self._database = database
        self._storage = Storage(self.folder)
        self._wall_clock = wall_clock
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to remove what has expired or been left over."""
        self._sweeper = asyncio.create_task(self._sweep_for_ever())

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper

    def begin(self) -> tuple[str, Writer]:
        """The id of a new file, and where to write its content."""
        file_id = f"file-{os.urandom(12).hex()}"
        return file_id, self._storage.writer(file_id)

    def path(self, file: StoredFile) -> Path:
        """Where its content is."""
        return self._storage.path(file.id)

    def describe(self, file_id: str, content: Content, origin: Origin) -> StoredFile:
        """A file whose content has just been committed."""
        now = self._wall_clock()
        lifetime_s = self._lifetime_s if origin.lifetime_s is None else origin.lifetime_s
        return StoredFile(
            id=file_id,
            tenant=origin.tenant,
            key_id=origin.key_id,
            filename=origin.filename,
            purpose=origin.purpose,
            bytes=content.bytes,
            sha256=content.sha256,
            created_us=int(now * 1_000_000),
            expires_at=None if lifetime_s is None else int(now) + lifetime_s,
        )

    async def add(self, file: StoredFile, connection: Transaction | None = None) -> None:
        """Have a file exist; as a part of the transaction on `connection` if there is one."""
        row = msgspec.structs.asdict(file)
        if connection is not None:
            await connection.execute(insert(FILES).values(row))
            return
        async with self._database.begin() as own:
            await own.execute(insert(FILES).values(row))

    async def get(self, file_id: str, tenant: str) -> StoredFile | None:
        """One of a tenant's files."""
        if not _ID.fullmatch(file_id):
            return None
        async with self._database.read() as connection:
            row = (await connection.execute(select(FILES).where(self._is(file_id, tenant)))).first()
        return None if row is None else _file(row)

    async def page(
        self, tenant: str, *, purpose: str | None, after: StoredFile | None, limit: int, newest_first: bool
    ) -> FilePage:
        """A tenant's files in the order of their making, from the one that follows `after`."""
        wanted = [FILES.c.tenant == tenant, self._is_alive()]
        if purpose is not None:
            wanted.append(FILES.c.purpose == purpose)
        made, name = FILES.c.created_us, FILES.c.id
        if after is not None:
            at, beyond = after.created_us, name < after.id if newest_first else name > after.id
            wanted.append(or_(made < at if newest_first else made > at, and_(made == at, beyond)))
        order = (made.desc(), name.desc()) if newest_first else (made, name)
        query = select(FILES).where(*wanted).order_by(*order).limit(limit + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return FilePage([_file(row) for row in rows[:limit]], len(rows) > limit)

    async def delete(self, file_id: str, tenant: str) -> bool:
        """Remove one of a tenant's files; false when it has none of that id."""
        if not _ID.fullmatch(file_id):
            return False
        async with self._database.begin() as connection:
            gone = (await connection.execute(delete(FILES).where(self._is(file_id, tenant)))).rowcount
        if gone:
            await in_thread(self._storage.remove, file_id)
        return bool(gone)

    async def sweep(self) -> None:
        """Remove expired files, and content that no row knows."""
        await self._database.migrate()
        now = self._wall_clock()
        async with self._database.begin() as connection:
            query = select(FILES.c.id).where(FILES.c.expires_at <= now)
            expired = [*await connection.scalars(query)]
            await connection.execute(delete(FILES).where(FILES.c.expires_at <= now))
        for file_id in expired:
            await in_thread(self._storage.remove, file_id)
        old = [path.name for path in await in_thread(self._storage.leftovers, now)]
        for start in range(0, len(old), _AT_ONCE):
            await self._sweep_leftovers(old[start : start + _AT_ONCE])

    async def _sweep_leftovers(self, names: list[str]) -> None:
        async with self._database.read() as connection:
            known = {*await connection.scalars(select(FILES.c.id).where(FILES.c.id.in_(names)))}
        for name in names:
            if name not in known:
                await in_thread(self._storage.remove, name)

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                await self.sweep()
            except Exception as error:
                _log.warning("files could not be swept: %s", error)
            await asyncio.sleep(_SWEEP_S)

    def _is(self, file_id: str, tenant: str) -> ColumnElement[bool]:
        return and_(FILES.c.id == file_id, FILES.c.tenant == tenant, self._is_alive())

    def _is_alive(self) -> ColumnElement[bool]:
        return or_(FILES.c.expires_at.is_(None), FILES.c.expires_at > self._wall_clock())


def _file(row: Row[tuple[object, ...]]) -> StoredFile:
    return StoredFile(**row._mapping)
