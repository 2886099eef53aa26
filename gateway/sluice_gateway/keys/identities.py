"""All that one gateway process knows about who may use it, as one object with a start and an end.

Puts together what the other modules of this package are: the file's keys, the store's, signed tokens, the
keyring that requests are checked with, and the service that changes keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sluice_gateway.auth import Keyring
from sluice_gateway.keys.feed import ChangeFeed
from sluice_gateway.keys.refresher import Refresher
from sluice_gateway.keys.service import KeyService
from sluice_gateway.keys.settings import JwtSettings
from sluice_gateway.keys.snapshot import FileKeys, Known, before_the_store
from sluice_gateway.settings import Settings
from sluice_gateway.store.database import Database

if TYPE_CHECKING:
    from sluice_gateway.keys.jwks import SigningKeys
    from sluice_gateway.keys.tokens import Tokens

_START_PATIENCE_S = 3.0
"""How long the start waits for the store, and for the token issuer, before requests come."""


class Identities:
    """`start` before the first request, `aclose` after the last."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        feed: ChangeFeed | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Touches neither disk nor network."""
        file = FileKeys(settings.keys, settings.tenants)
        self._known = before_the_store(file)
        self._signing_keys: SigningKeys | None = None
        tokens = None if settings.jwt is None else self._tokens(settings.jwt, wall_clock)
        self.keyring = Keyring({}, tokens=tokens, wall_clock=wall_clock)
        self.keyring.replace(self._known.snapshot)
        self._refresher = Refresher(database, file, self._replace, takes_tokens=tokens is not None, feed=feed)
        self.service = KeyService(database, file, changed=self._refresher.announce, wall_clock=wall_clock)

    async def start(self) -> None:
        """Read store and issuer, for a few seconds at most, and keep looking at both."""
        await self._refresher.start(_START_PATIENCE_S)
        if self._signing_keys is not None:
            await self._signing_keys.start(_START_PATIENCE_S)

    async def reload(self, settings: Settings) -> None:
        """Take over keys and tenants of a changed file. Store and token issuer stay as they are.

        A key that is no longer in the file stops working with this, also while the store is away.
        """
        file = FileKeys(settings.keys, settings.tenants)
        self.service.use_file(file)
        await self._refresher.use_file(file)

    async def aclose(self) -> None:
        """Stop looking. Known keys stay in force."""
        await self._refresher.aclose()
        if self._signing_keys is not None:
            await self._signing_keys.aclose()

    def _tokens(self, settings: JwtSettings, wall_clock: Callable[[], float]) -> Tokens:
        # Cryptography weighs eight megabytes, and only those who use tokens carry them.
        from sluice_gateway.keys.jwks import SigningKeys
        from sluice_gateway.keys.tokens import Tokens

        self._signing_keys = SigningKeys(settings)
        return Tokens(
            settings,
            self._signing_keys,
            lambda: self._known.tenant_limits,
            lambda: self._known.tenant_weights,
            wall_clock=wall_clock,
        )

    def _replace(self, known: Known) -> None:
        self._known = known
        self.keyring.replace(known.snapshot)
