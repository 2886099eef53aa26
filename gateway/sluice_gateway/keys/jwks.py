"""The public keys of a token issuer: fetched and refreshed in the background, looked up without waiting.

A key that is not known makes the next look happen soon, though not more often than every few seconds, whoever
sends tokens. While the issuer cannot be reached the keys that are known stay in force. Keys for shared-secret
signatures are never taken up. Sources: RFC 7517; OpenID Connect Discovery 1.0, section 4.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from sluice_gateway.keys.settings import JwtSettings

_TIMEOUT_S = 5.0
_SOON_S = 5.0
_MAX_BYTES = 1_048_576
_DISCOVERY = "/.well-known/openid-configuration"

_log = logging.getLogger("sluice")


@dataclass(frozen=True)
class SigningKey:
    """One of the issuer's public keys."""

    material: Any
    algorithm: str | None
    """The only algorithm it is for; `None` when the issuer does not say."""


class SigningKeys:
    """By key id. `start` and `aclose` bracket the life of its task."""

    def __init__(
        self, settings: JwtSettings, *, soon_s: float = _SOON_S, client: httpx.AsyncClient | None = None
    ) -> None:
        """`soon_s`: the least time between two looks."""
        self._settings = settings
        self._soon_s = soon_s
        self._client = client or httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False)
        self._keys: Mapping[str, SigningKey] = {}
        self._wanted = asyncio.Event()
        self._is_down = False
        self._task: asyncio.Task[None] | None = None
        self.is_loaded = False
        """Whether the issuer's keys were seen at all."""

    def get(self, key_id: str) -> SigningKey | None:
        """The key with this id. One that is not there is looked for soon."""
        found = self._keys.get(key_id)
        if found is None:
            self._wanted.set()
        return found

    async def start(self, patience_s: float) -> None:
        """Look once, for so long at most; then keep looking."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self.look()
        self._task = asyncio.create_task(self._refresh())

    async def look(self) -> None:
        """Fetch the keys. Failure is logged, once an outage, and not raised."""
        try:
            keys = await self._fetch()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            if not self._is_down:
                _log.error("the token issuer's keys cannot be read: %s", error or type(error).__name__)
            self._is_down = True
        else:
            if self._is_down:
                _log.info("the token issuer's keys can be read again")
            self._is_down, self.is_loaded, self._keys = False, True, keys

    async def aclose(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._soon_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.refresh_s if self.is_loaded else self._soon_s):
                    await self._wanted.wait()
            self._wanted.clear()
            await self.look()

    async def _fetch(self) -> dict[str, SigningKey]:
        url = self._settings.jwks_url or await self._discover()
        found = (await self._json(url)).get("keys")
        if not isinstance(found, list):
            raise ValueError(f"{url} has no list of keys")
        return {jwk["kid"]: key for jwk in found if (key := _public_key(jwk)) is not None}

    async def _discover(self) -> str:
        """Where the keys are, in the issuer's own words."""
        issuer = self._settings.issuer
        said = await self._json(issuer.rstrip("/") + _DISCOVERY)
        if said.get("issuer") != issuer:
            raise ValueError(f"the issuer calls itself '{said.get('issuer')}', not '{issuer}'")
        url = said.get("jwks_uri")
        if not isinstance(url, str):
            raise ValueError("the issuer's openid-configuration has no jwks_uri")
        return url

    async def _json(self, url: str) -> dict[str, Any]:
        answer = await self._client.get(url)
        answer.raise_for_status()
        if len(answer.content) > _MAX_BYTES:
            raise ValueError(f"{url} is too large")
        value = answer.json()
        if not isinstance(value, dict):
            raise ValueError(f"{url} is not a JSON object")
        return value


def _public_key(jwk: Any) -> SigningKey | None:
    """A key that signatures can be checked with; `None` for one of another kind, or for another use."""
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str):
        return None
    if jwk.get("kty") not in ("RSA", "EC", "OKP") or jwk.get("use", "sig") != "sig":
        return None
    try:
        return SigningKey(PyJWK(jwk).key, jwk.get("alg"))
    except (PyJWTError, ValueError, TypeError):
        return None
