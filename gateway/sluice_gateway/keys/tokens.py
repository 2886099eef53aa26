"""Signed tokens (JWT) as bearer credentials: from a token to the same identity that a key has.

Checked once, then remembered by digest until the token's end, in a table of bounded size that forgets what
was not used for longest. Nothing here waits: signing keys come from `jwks`, which fetches them in the
background.
Only signatures by a private key are accepted, and a token must name its key, its end, its issuer and its
audience. Sources: RFC 7519, RFC 8725 (best current practices), RFC 9068 for the scope claim.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import jwt
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import EVERYTHING, NO_LIMITS, Key, LimitValues, Scopes
from sluice_gateway.keys.jwks import SigningKey, SigningKeys
from sluice_gateway.keys.scopes import union
from sluice_gateway.keys.settings import JwtSettings
from sluice_gateway.keys.snapshot import DEFAULT_TENANT

_REMEMBERED = 10_000
_LONGEST = 16_384
_LONGEST_SUBJECT = 200
_LONGEST_TENANT = 64
_REQUIRED = ["exp", "iss", "aud", "sub"]


class Tokens:
    """Knows the tokens of one issuer."""

    def __init__(
        self,
        settings: JwtSettings,
        signing_keys: SigningKeys,
        tenant_limits: Callable[[], Mapping[str, LimitValues]],
        tenant_weights: Callable[[], Mapping[str, float]] = dict,
        *,
        wall_clock: Callable[[], float] = time.time,
        remembered: int = _REMEMBERED,
    ) -> None:
        """`tenant_limits`, `tenant_weights`: those of the moment, by tenant."""
        self._settings = settings
        self._signing_keys = signing_keys
        self._tenant_limits = tenant_limits
        self._tenant_weights = tenant_weights
        self._wall_clock = wall_clock
        self._remembered = remembered
        self._known: OrderedDict[bytes, Key] = OrderedDict()
        self._grants = {grant.scope: grant.scopes() for grant in settings.grants}

    def verify(self, token: bytes, digest: bytes) -> Key | Problem | None:
        """See `auth.TokenVerifier`."""
        known = self._known.get(digest)
        if known is not None and known.expires_at is not None and known.expires_at > self._wall_clock():
            self._known.move_to_end(digest)
            return known
        if token.count(b".") != 2 or len(token) > _LONGEST:
            return None
        found = self._check(token)
        if isinstance(found, Key):
            self._known[digest] = found
            if len(self._known) > self._remembered:
                self._known.popitem(last=False)
        return found

    def forget(self) -> None:
        """See `auth.TokenVerifier`: tenants may have other limits now."""
        self._known.clear()

    def _check(self, token: bytes) -> Key | Problem | None:
        try:
            header = jwt.get_unverified_header(token)
        except PyJWTError:
            return None
        key_id, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in self._settings.algorithms:
            accepted = ", ".join(self._settings.algorithms)
            return _refuse(f"its signature algorithm is not one of {accepted}")
        if not isinstance(key_id, str):
            return _refuse("it does not name the key it was signed with (kid)")
        signing_key = self._signing_keys.get(key_id)
        if signing_key is None:
            return self._unknown_key()
        if signing_key.algorithm not in (None, algorithm):
            return _refuse(f"its key is for {signing_key.algorithm} only")
        try:
            return self._identity(self._claims(token, signing_key, algorithm))
        except ExpiredSignatureError:
            return _refuse("it has expired")
        except (PyJWTError, ValueError, TypeError, OverflowError) as error:
            return _refuse(f"{error}".rstrip(".").lower())

    def _claims(self, token: bytes, signing_key: SigningKey, algorithm: str) -> dict[str, Any]:
        """What a valid token says. Raises `PyJWTError`."""
        settings = self._settings
        claims: dict[str, Any] = jwt.decode(
            token,
            signing_key.material,
            algorithms=[algorithm],
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway_s,
            options={"require": _REQUIRED},
        )
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Key | Problem:
        if not _is_name(claims["sub"], _LONGEST_SUBJECT):
            return _refuse(f"its subject (sub) is not a plain name of up to {_LONGEST_SUBJECT} characters")
        tenant = self._tenant(claims)
        if tenant is None:
            return _refuse(f"it has no tenant in its claim '{self._settings.tenant_claim}'")
        scopes = self._scopes(claims)
        if scopes is None:
            return _refuse(f"none of its scopes (claim '{self._settings.scope_claim}') allows anything here")
        return Key(
            id=f"jwt:{claims['sub']}",
            tenant=tenant,
            scopes=scopes,
            limits=self._settings.limits.values(),
            tenant_limits=self._tenant_limits().get(tenant, NO_LIMITS),
            tenant_weight=self._tenant_weights().get(tenant, 1.0),
            expires_at=float(claims["exp"]) + self._settings.leeway_s,
        )

    def _tenant(self, claims: Mapping[str, Any]) -> str | None:
        if self._settings.tenant_claim is None:
            return DEFAULT_TENANT
        said = claims.get(self._settings.tenant_claim)
        return said if _is_name(said, _LONGEST_TENANT) else None

    def _scopes(self, claims: Mapping[str, Any]) -> Scopes | None:
        if not self._grants:
            return EVERYTHING
        said = claims.get(self._settings.scope_claim, ())
        names = said.split() if isinstance(said, str) else said if isinstance(said, list) else ()
        granted = [self._grants[name] for name in names if isinstance(name, str) and name in self._grants]
        return union(granted) if granted else None

    def _unknown_key(self) -> Problem:
        if not self._signing_keys.is_loaded:
            text = "The gateway cannot read its token issuer's keys at the moment. Try again."
            return problem(Failure.STORE_UNAVAILABLE, text)
        return _refuse("it was signed with a key that its issuer did not publish; if it is new, try again")


def _is_name(value: object, longest: int) -> TypeGuard[str]:
    """Whether a claim can stand in logs and in limits' names."""
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _refuse(why: str) -> Problem:
    return problem(Failure.INVALID_API_KEY, f"The token is not accepted: {why}.")
