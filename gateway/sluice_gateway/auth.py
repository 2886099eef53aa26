"""Who is asking: API keys, kept as SHA-256 digests in an immutable snapshot.

The secret itself is never stored, logged or compared: its digest is looked up in a dict. Digests of
high-entropy secrets leak nothing through timing, so the look-up needs no constant-time comparison. Nothing
here waits.

Which keys there are, `keys` knows: from the configuration file and from the store, it makes a new snapshot on
every change and puts it in the place of the old one. While the store has not been read since the start, a key
that is not in the file may well be valid: that is a 503, not a 401.

With no key anywhere, and none ever in the store, the gateway is open, on loopback only: a request that came
in through any other address is refused, whoever started the server on it. So is one that came under a public
host name: a web page can have its own name resolve to 127.0.0.1 (DNS rebinding) and would then be let in by
the user's browser. An IP address cannot be rebound, nor can a name that public DNS does not hand out.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key, Scopes

_LOOPBACK = ("127.", "::1", "::ffff:127.")
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".home.arpa")
"""Names that public DNS never has an address for: RFC 6761, 6762, 8375, and ICANN's `.internal`."""


OPEN = Key(id="open", scopes=Scopes(admin=True))
"""The holder of every request in open mode."""

_NO_KEY = problem(
    Failure.INVALID_API_KEY,
    "You did not provide an API key. Send it as 'Authorization: Bearer KEY' or in 'x-api-key'.",
)
_WRONG_KEY = problem(
    Failure.INVALID_API_KEY,
    "Incorrect API key provided. Check it, or ask whoever runs this gateway for one.",
)
_EXPIRED = problem(
    Failure.INVALID_API_KEY,
    "This API key has expired, or was replaced by a newer one. Ask whoever runs this gateway for that.",
)
_NOT_READ_YET = problem(
    Failure.STORE_UNAVAILABLE,
    "The gateway cannot read its keys at the moment, so it cannot tell whether this one is valid. Try again.",
)
_REMOTE = problem(
    Failure.REMOTE_NOT_ALLOWED,
    "This gateway has no API keys and therefore answers on loopback only. Make one with `sluice keys create`"
    " to use it from other machines.",
)
_PUBLIC_NAME = problem(
    Failure.REMOTE_NOT_ALLOWED,
    "This gateway has no API keys and therefore does not answer under a public host name. Use localhost or"
    " 127.0.0.1, or make a key with `sluice keys create`.",
)


def digest(secret: str) -> str:
    """SHA-256 of a secret, lower-case hexadecimal: what the configuration holds."""
    return sha256(secret.encode()).hexdigest()


def new_secret() -> str:
    """A fresh API key with 192 bits of randomness."""
    return "sk-sluice-" + secrets.token_urlsafe(24)


def is_loopback(address: str) -> bool:
    """Whether an IP address, or the name `localhost`, is reachable from this machine only."""
    return address.startswith(_LOOPBACK) or address == "localhost"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys at one moment."""

    keys: Mapping[bytes, Key]
    """By the secret's SHA-256."""
    is_open: bool = False
    """Whether requests need no key."""
    is_complete: bool = True
    """Whether the store has been read: a key that is not here does not exist."""


class TokenVerifier(Protocol):
    """What knows bearer credentials that are not keys: signed tokens (`keys.tokens`)."""

    def verify(self, token: bytes, digest: bytes) -> Key | Problem | None:
        """The token's holder, why it is refused, or `None` when it is no such token. Does not wait."""
        ...

    def forget(self) -> None:
        """Let nothing stand that follows from an older snapshot."""
        ...


class Keyring:
    """Holds the snapshot of the moment."""

    def __init__(
        self,
        keys: Mapping[str, Key],
        *,
        tokens: TokenVerifier | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`keys`: by the secret's SHA-256 in hexadecimal. Empty, and no `tokens`, means open mode."""
        known = {bytes.fromhex(hexdigest): key for hexdigest, key in keys.items()}
        self._snapshot = Snapshot(known, is_open=not known and tokens is None)
        self._tokens = tokens
        self._wall_clock = wall_clock

    @property
    def snapshot(self) -> Snapshot:
        """All keys as they are now."""
        return self._snapshot

    @property
    def is_open(self) -> bool:
        """Whether requests need no key."""
        return self._snapshot.is_open

    def replace(self, snapshot: Snapshot) -> None:
        """From now on these are the keys."""
        self._snapshot = snapshot
        if self._tokens is not None:
            self._tokens.forget()

    def authenticate(
        self, headers: Mapping[bytes, bytes], server: tuple[str, int | None] | None
    ) -> Key | Problem:
        """The key of a request with these (lower-case) headers that came in at the address `server`.

        Both headers may be there, as some clients send both: one valid key is enough.
        """
        snapshot = self._snapshot
        if snapshot.is_open:
            return _open(headers, server)
        refusal: Problem | None = None
        for secret in _presented(headers):
            digest = sha256(secret).digest()
            key: Key | Problem | None = snapshot.keys.get(digest)
            if key is None and self._tokens is not None:
                key = self._tokens.verify(secret, digest)
            if isinstance(key, Key):
                if key.expires_at is None or key.expires_at > self._wall_clock():
                    return key
                key = _EXPIRED
            refusal = key or refusal or (_WRONG_KEY if snapshot.is_complete else _NOT_READ_YET)
        if refusal is not None:
            return refusal
        return _NO_KEY if snapshot.is_complete or snapshot.keys else _NOT_READ_YET


def _open(headers: Mapping[bytes, bytes], server: tuple[str, int | None] | None) -> Key | Problem:
    if not _is_local(server):
        return _REMOTE
    return _PUBLIC_NAME if _is_public(headers.get(b"host", b"")) else OPEN


def _is_public(host: bytes) -> bool:
    """Whether a `Host` header holds a name that anybody may have registered."""
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        return False
    name = name.partition(":")[0].rstrip(".")
    return "." in name and not name.endswith(_PRIVATE_NAMES) and not _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def _presented(headers: Mapping[bytes, bytes]) -> Iterable[bytes]:
    """Secrets in the request's headers."""
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, secret = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and secret.strip():
            yield secret.strip()
    api_key = headers.get(b"x-api-key")
    if api_key:
        yield api_key


def _is_local(server: tuple[str, int | None] | None) -> bool:
    """Whether the socket that a request came in on is loopback or a Unix socket (no port)."""
    return server is None or server[1] is None or is_loopback(server[0])
