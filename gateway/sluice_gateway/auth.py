"""Who is asking: API keys, kept as SHA-256 digests in an immutable snapshot.

The secret itself is never stored, logged or compared: its digest is looked up in a dict. Digests of
high-entropy secrets leak nothing through timing, so the look-up needs no constant-time comparison. Nothing
here waits.

With no key configured the gateway is open, on loopback only: a request that came in through any other
address is refused, whoever started the server on it. So is one that came under a public host name: a web
page can have its own name resolve to 127.0.0.1 (DNS rebinding) and would then be let in by the user's
browser. An IP address cannot be rebound, nor can a name that public DNS does not hand out.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from hashlib import sha256

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key

_LOOPBACK = ("127.", "::1", "::ffff:127.")
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".home.arpa")
"""Names that public DNS never has an address for: RFC 6761, 6762, 8375, and ICANN's `.internal`."""


OPEN = Key(id="open")
"""The holder of every request in open mode."""

_NO_KEY = problem(
    Failure.INVALID_API_KEY,
    "You did not provide an API key. Send it as 'Authorization: Bearer KEY' or in 'x-api-key'.",
)
_WRONG_KEY = problem(
    Failure.INVALID_API_KEY,
    "Incorrect API key provided. Check it, or ask whoever runs this gateway for one.",
)
_REMOTE = problem(
    Failure.REMOTE_NOT_ALLOWED,
    "This gateway has no API keys configured and therefore answers on loopback only. Configure 'keys' to"
    " use it"
    " from other machines; `sluice keys new` makes one.",
)
_PUBLIC_NAME = problem(
    Failure.REMOTE_NOT_ALLOWED,
    "This gateway has no API keys configured and therefore does not answer under a public host name. Use"
    " localhost or 127.0.0.1, or configure 'keys'; `sluice keys new` makes one.",
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


class Keyring:
    """An immutable snapshot of all keys. Replaced as a whole, never changed."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        """`keys`: by the secret's SHA-256 in hexadecimal. Empty means open mode."""
        self._keys = {bytes.fromhex(hexdigest): key for hexdigest, key in keys.items()}

    @property
    def is_open(self) -> bool:
        """Whether requests need no key."""
        return not self._keys

    def authenticate(
        self, headers: Mapping[bytes, bytes], server: tuple[str, int | None] | None
    ) -> Key | Problem:
        """The key of a request with these (lower-case) headers that came in at the address `server`.

        Both headers may be there, as some clients send both: one valid key is enough.
        """
        if not self._keys:
            return _open(headers, server)
        presented = [*_presented(headers)]
        for secret in presented:
            key = self._keys.get(sha256(secret).digest())
            if key is not None:
                return key
        return _WRONG_KEY if presented else _NO_KEY


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
