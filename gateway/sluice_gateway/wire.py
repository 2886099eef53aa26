"""The client's end of one request: where an answer's bytes go, whoever carries them.

`Wire` is what the pipeline writes to. The native HTTP protocol implements it on the socket itself
(`native_wire.py`), `AsgiWire` on an ASGI server's `send`: the slow, obvious twin that tests compare the first
with. Batches, background answers and idempotent requests implement it in memory.

Invariant: `start` once, then any number of `write`, then `finish` once; or `whole` alone. `start` without
`finish` means the answer was cut, and the carrier must show that (by closing the connection). Calls are not
made while an earlier one is still waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any, Protocol

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
Header = tuple[bytes, bytes]
"""Lower-case name, value."""


class Wire(Protocol):
    """Takes one answer. Each call returns `None` when it is done, or something to wait for."""

    def start(self, status: int, headers: list[Header]) -> Awaitable[None] | None:
        """The head; a body follows. May be held back until the body's first piece."""
        ...

    def write(self, data: bytes) -> Awaitable[None] | None:
        """A piece of the body, never empty. To be waited for while the client does not read."""
        ...

    def finish(self, data: bytes = b"") -> Awaitable[None] | None:
        """The last piece of the body."""
        ...

    def whole(self, status: int, headers: list[Header], body: bytes) -> Awaitable[None] | None:
        """A complete answer. `headers` has no `content-length`: the wire adds it."""
        ...


class _Sending:
    """A message that is sent when it is waited for."""

    __slots__ = ("_message", "_send")

    def __init__(self, send: Send, message: Message) -> None:
        self._send = send
        self._message = message

    def __await__(self) -> Generator[Any, None, None]:
        return self._send(self._message).__await__()


class AsgiWire:
    """A `Wire` over an ASGI server. uvicorn's `send` returns silently once the client has gone."""

    __slots__ = ("_send",)

    def __init__(self, send: Send) -> None:
        self._send = send

    def start(self, status: int, headers: list[Header]) -> Awaitable[None]:
        """See `Wire`. No coroutine: whoever is to wait for it may be closed before it began."""
        return _Sending(self._send, {"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """See `Wire`."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """See `Wire`."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        """See `Wire`."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.finish(body)
