"""What batches need of the gateway: to have one request answered, and to know a key by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from sluice_gateway.identity import Key
from sluice_gateway.routes import Kind


class CollectedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    status: int
    headers: Mapping[bytes, bytes] = {}
    """Lower-case names."""
    body: bytes = b""


class Runner(Protocol):
    """The way of a request through the gateway, without a socket."""

    async def __call__(
        self, kind: Kind, path: str, body: bytes, key: Key, *, request_id: str, priority: str
    ) -> CollectedAnswer:
        """The answer, whatever its status. Cancelling it frees all that the request holds."""
        ...


FindKey = Callable[[str], Key | None]
"""A key by its id, as it is now; `None` once it has been revoked or has expired. Raises `StoreError` while
that is not known."""
