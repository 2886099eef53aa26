"""The database as one object: its engine, its schema at the newest revision, and transactions.

Nothing that a request waits for happens here: callers keep snapshots and buffers, and go on working while the
database cannot be reached. Tables are declared where they are used, on `schema.METADATA`. A new database is
made from the declarations at once; an older one walks through `migrations/versions`, one file per change. A
test holds the two ends against each other.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import greenlet_spawn

from sluice_gateway.store.schema import declare_all, newest_revision
from sluice_gateway.store.transaction import Arrivals, Transaction, transaction

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_BUSY_MS = 5000
_CACHE_KB = 256
"""SQLite's own cache, for each connection; behind it is the operating system's, which all of them share."""
_LOCKED_PAUSE_S = 0.02
_CONNECT_S = 5
"""Until PostgreSQL has accepted a connection, or one of the pool is free."""
_ANSWER_S = 30
"""For one statement. PostgreSQL that has died without a word answers nothing at all."""
_SETTLE_S = 1.0
"""At the end. Opening SQLite's file takes milliseconds, and nobody waits for a dead server."""
_MIGRATION_LOCK = 7_583_020_114
"""Any number that nobody else takes: PostgreSQL's advisory locks are told apart by it."""
_READS = "sluice_reads"


class StoreError(Exception):
    """The database cannot be used; the message is for the user."""


UNAVAILABLE = (StoreError, SQLAlchemyError, OSError, TimeoutError)
"""What using a database raises when it is down, full, locked or gone."""


class Database:
    """Opened lazily: making one touches neither disk nor network."""

    def __init__(self, url: str) -> None:
        """`url`: `sqlite:///path`, `sqlite:////absolute/path` or `postgresql://user:password@host/name`.

        Raises `StoreError` when it is not such a URL, or its driver is not installed.
        """
        self.is_sqlite = url.startswith("sqlite")
        self._engine = _create_engine(url)
        self._reader = self._engine.execution_options(**{_READS: True})
        self._is_migrated = False
        self._migrating = asyncio.Lock()
        self._arrivals = Arrivals()
        if self.is_sqlite:
            event.listen(self._engine, "connect", _configure_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    @property
    def name(self) -> str:
        """Where the database is, without its password."""
        return self._engine.url.render_as_string(hide_password=True)

    async def migrate(self) -> None:
        """Bring the schema to the newest revision, making the file and its folder if need be.

        Idempotent, safe in several processes at once, and free after the first success. Raises `StoreError`
        in one sentence when the database cannot be opened or is from a newer version.
        """
        async with self._migrating:
            if not self._is_migrated:
                await self._migrate()
                self._is_migrated = True

    async def _migrate(self) -> None:
        path = self._engine.url.database
        try:
            if self.is_sqlite and path and path != ":memory:":
                Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._bring_up_to_date()
        except Exception as error:
            raise StoreError(f"Cannot open the database {self.name}: {_first_line(error)}.") from error

    async def _bring_up_to_date(self) -> None:
        """Gateways that make one SQLite file together meet a lock that SQLite itself does not wait for: the
        switch to write-ahead logging."""
        patient_until = time.monotonic() + _BUSY_MS / 1000
        while True:
            try:
                async with self.begin() as connection:
                    if not self.is_sqlite:
                        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                    return await connection.run_sync(_bring_up_to_date)
            except OperationalError as error:
                if "database is locked" not in str(error) or time.monotonic() > patient_until:
                    raise
            await asyncio.sleep(_LOCKED_PAUSE_S)

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that writes: committed at the block's end, rolled back when it raises.

        In SQLite it is the only one from its start, so what it has read stays true until it writes.
        """
        return transaction(self._engine, self._arrivals)

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that only reads: it waits for no writer."""
        return transaction(self._reader, self._arrivals)

    async def aclose(self) -> None:
        """Close every connection, those too that are being opened and that nobody waits for any more."""
        await self._arrivals.settle(_SETTLE_S)
        await greenlet_spawn(self._engine.dispose)


def _create_engine(url: str) -> Engine:
    scheme, _, rest = url.partition("://")
    options: dict[str, Any] = {
        "pool_pre_ping": True,
        "pool_timeout": _CONNECT_S,
        "connect_args": {"timeout": _CONNECT_S, "command_timeout": _ANSWER_S},
    }
    if url.startswith("sqlite"):
        options = {"poolclass": AsyncAdaptedQueuePool}
        if rest in ("", "/", "/:memory:"):
            options |= {"pool_size": 1, "max_overflow": 0}  # the connection is the database
    try:
        parsed = make_url(f"{_DRIVERS.get(scheme, scheme)}://{rest}")
        return create_engine(parsed, **options)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        raise StoreError(
            f"The database URL cannot be used ({_first_line(error)}); write sqlite:///path or"
            " postgresql://user:password@host/name (which needs sluice-gateway[postgres])."
        ) from error


def _configure_sqlite(connection: Any, _record: object) -> None:
    """Readers do not wait for the writer, a second process waits instead of failing, references hold."""
    connection.isolation_level = None  # the driver starts no transactions of its own: `_begin_sqlite` does
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA cache_size=-{_CACHE_KB}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that reads first and writes later could find another's write in between, and fail."""
    reads = connection.get_execution_options().get(_READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _bring_up_to_date(connection: Connection) -> None:
    newest = newest_revision()
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        if connection.scalar(text("SELECT version_num FROM alembic_version")) != newest:
            _upgrade(connection)
    elif not tables:
        declare_all().create_all(connection)
        connection.execute(
            text(
                "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
                " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
            )
        )
        connection.execute(text("INSERT INTO alembic_version VALUES (:newest)"), {"newest": newest})
    else:
        raise StoreError("it holds tables of something else; name a database of its own")


def _upgrade(connection: Connection) -> None:
    # Alembic takes a while to import and ten megabytes, and most starts do not need it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
