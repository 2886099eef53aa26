"""The database as one object: its engine, its schema at the newest revision, and transactions.

Nothing that a request waits for happens here: callers keep snapshots and buffers, and go on working while the
database cannot be reached. Tables are declared where they are used, on `schema.METADATA`; how they came to be
is told by `migrations/versions`, one file per change, which a test compares with the declarations.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_BUSY_MS = 5000


class StoreError(Exception):
    """The database cannot be used; the message is for the user."""


class Database:
    """Opened lazily: making one touches neither disk nor network."""

    def __init__(self, url: str) -> None:
        """`url`: `sqlite:///path`, `sqlite:////absolute/path` or `postgresql://user:password@host/name`.

        Raises `StoreError` when it is not such a URL, or its driver is not installed.
        """
        self.is_sqlite = url.startswith("sqlite")
        self._engine = _create_engine(url)
        if self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", _configure_sqlite)

    async def migrate(self) -> None:
        """Bring the schema to the newest revision, making the file and its folder if need be. Idempotent.

        Raises `StoreError` in one sentence when the database cannot be opened or is from a newer version.
        """
        path = self._engine.url.database
        try:
            if self.is_sqlite and path and path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            async with self._engine.begin() as connection:
                await connection.run_sync(_upgrade)
        except Exception as error:
            name = self._engine.url.render_as_string(hide_password=True)
            raise StoreError(f"Cannot open the database {name}: {_first_line(error)}.") from error

    def begin(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction: committed at the block's end, rolled back when it raises."""
        return self._engine.begin()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _create_engine(url: str) -> AsyncEngine:
    scheme, _, rest = url.partition("://")
    try:
        parsed = make_url(f"{_DRIVERS.get(scheme, scheme)}://{rest}")
        return create_async_engine(parsed, pool_pre_ping=not url.startswith("sqlite"))
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(
            f"The database URL cannot be used ({_first_line(error)}); write sqlite:///path or"
            " postgresql://user:password@host/name (which needs sluice-gateway[postgres])."
        ) from error


def _configure_sqlite(connection: object, _record: object) -> None:
    """Readers do not wait for the writer, a second process waits instead of failing, references hold."""
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _upgrade(connection: Connection) -> None:
    # Alembic takes a while to import, and only the start needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
