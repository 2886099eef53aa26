"""Keeps one process's view of the keys up to date, and in force while the store is away.

Every half second it asks the store for one number, and reads everything when the number is another. A change
made in this process, or announced by another over the feed, is looked for at once. What was read stays in
force until it is read anew: a store that cannot be reached changes nothing for known keys, and of others
nobody can say that they are wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

from sluice_gateway.keys import repository
from sluice_gateway.keys.feed import ChangeFeed
from sluice_gateway.keys.snapshot import FileKeys, Known, StoreState, before_the_store, build
from sluice_gateway.store.database import Database

POLL_S = 0.5
_PATIENCE_S = 5.0
"""For one look; a database that hangs is down."""

_log = logging.getLogger("sluice")


class Refresher:
    """One task (two with a feed). `start` and `aclose` bracket its life."""

    def __init__(
        self,
        database: Database,
        file: FileKeys,
        replace: Callable[[Known], None],
        *,
        takes_tokens: bool,
        feed: ChangeFeed | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        """`replace` gets every new view."""
        self._database = database
        self._file = file
        self._replace = replace
        self._takes_tokens = takes_tokens
        self._feed = feed
        self._poll_s = poll_s
        self._version: int | None = None
        self._state: StoreState | None = None
        self._is_down = False
        self._known: Known | None = None
        """All of it, once the store has been read."""
        self._hint = asyncio.Event()
        self._looking = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, patience_s: float) -> None:
        """Look once, for so long at most; then keep looking."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self.look()
        self._tasks.append(asyncio.create_task(self._poll()))
        if self._feed is not None:
            self._tasks.append(asyncio.create_task(self._listen(self._feed)))

    async def look(self) -> None:
        """See what changed. Store errors are logged, once an outage, and not raised."""
        try:
            async with self._looking, asyncio.timeout(_PATIENCE_S):
                await self._database.migrate()
                await self._read()
        except Exception as error:  # whatever is wrong with the store, what is known stays in force
            if not self._is_down:
                text = "the key store cannot be read; known keys go on working until it can: %s"
                _log.error(text, _words(error))
            self._note_whether_down(True)
        else:
            if self._is_down:
                _log.info("the key store can be read again")
            self._note_whether_down(False)

    def _note_whether_down(self, is_down: bool) -> None:
        """Meanwhile others may have made keys: one that is not known here may well be valid."""
        changed, self._is_down = is_down != self._is_down, is_down
        if changed and self._known is not None:
            self._put_in_force(self._known)

    def _put_in_force(self, known: Known) -> None:
        self._known = known
        if self._is_down:
            known = replace(known, snapshot=replace(known.snapshot, is_complete=False))
        self._replace(known)

    async def use_file(self, file: FileKeys) -> None:
        """The configuration file changed. In force at once, with what was last read from the store."""
        async with self._looking:
            self._file = file
            await self._rebuild()

    async def announce(self) -> None:
        """A change was made here: put it in force, and tell the other processes."""
        await self.look()
        if self._feed is not None:
            await self._feed.publish()

    async def aclose(self) -> None:
        """Stop looking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _poll(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._hint.wait()
            self._hint.clear()
            await self.look()

    async def _listen(self, feed: ChangeFeed) -> None:
        async for _ in feed.changes():
            self._hint.set()

    async def _read(self) -> None:
        async with self._database.read() as connection:
            version = await repository.version(connection)
            if version.number == self._version:
                return
            tenants = await repository.tenants(connection)
            secrets = await repository.valid_secrets(connection)
        self._state = StoreState(version.keyed, tenants, secrets)
        await self._rebuild()
        self._version = version.number

    async def _rebuild(self) -> None:
        if self._state is None:
            self._replace(before_the_store(self._file))
            return
        # In a thread: ten thousand keys take a tenth of a second, and requests do not wait for that.
        known = await asyncio.to_thread(build, self._file, self._state, takes_tokens=self._takes_tokens)
        self._put_in_force(known)
        for name in sorted(known.shadowed):
            _log.warning("the key '%s' of the store is not used: the configuration file has one too", name)


def _words(error: Exception) -> str:
    """One line; SQLAlchemy's second one is the statement with its values."""
    return (str(error) or type(error).__name__).splitlines()[0]
