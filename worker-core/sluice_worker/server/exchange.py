"""One HTTP request and its answer, on plain ASGI.

`Exchange` reads the body under a limit and sends either one JSON answer or a stream; it knows whether the
answer has begun, which decides how an error can still be told. `client_present` ends the work for a client
that left: uvicorn's `send` returns silently then, so only `receive` tells.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

import msgspec

from sluice_worker.server.errors import ApiError, body_too_large

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

JSON_TYPE = b"application/json"
_PLAIN_ID = re.compile(rb"[!-~]{1,200}")


class ClientLeftError(Exception):
    """The client closed the connection; there is nobody to answer."""


class Exchange:
    """A request in the making and the answer to it."""

    def __init__(self, scope: Message, receive: Receive, send: Send, request_id: str) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.receive = receive
        self.status: int | None = None
        """Of the answer, once it has begun."""
        self._send = send
        given = self.headers.get(b"x-request-id", b"")
        self._request_id = given if _PLAIN_ID.fullmatch(given) else request_id.encode()

    async def read_body(self, limit_bytes: int) -> bytes:
        """The whole body. Raises `ApiError` 413 over the limit, `ClientLeftError` when it never ends."""
        declared = self.headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit_bytes:
            raise _close_after(body_too_large(limit_bytes))
        body = bytearray()
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            body += message.get("body", b"")
            if len(body) > limit_bytes:
                raise _close_after(body_too_large(limit_bytes))
            if not message.get("more_body", False):
                return bytes(body)

    async def answer_json(self, value: object, status: int = 200, headers: Headers = ()) -> None:
        """Send a whole answer; `value` is a Struct."""
        await self.answer(msgspec.json.encode(value), JSON_TYPE, status, headers)

    async def answer_error(self, error: ApiError) -> None:
        """Send a whole error answer."""
        await self.answer(error.body(), JSON_TYPE, error.status, error.headers)

    async def answer(
        self, body: bytes, content_type: bytes, status: int = 200, headers: Headers = ()
    ) -> None:
        """Send a whole answer."""
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, ((b"content-type", content_type), length, *headers))
        await self._send({"type": "http.response.body", "body": body})

    async def start_stream(self, content_type: bytes, headers: Headers) -> None:
        """Begin an answer of unknown length, status 200."""
        await self._start(200, ((b"content-type", content_type), *headers))

    async def send_part(self, data: bytes) -> None:
        """A part of a streamed answer; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self) -> None:
        """The streamed answer is complete."""
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        all_headers = [*headers, (b"x-request-id", self._request_id)]
        await self._send({"type": "http.response.start", "status": status, "headers": all_headers})


class client_present:
    """`async with client_present(receive):` cancels what is inside when the client leaves.

    The block then ends with `ClientLeftError`. Enter it once the body has been read: it consumes `receive`.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._watcher = asyncio.create_task(self._watch())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watcher.cancel()
        if self._left and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientLeftError from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._task.cancel()


def _close_after(error: ApiError) -> ApiError:
    """The rest of the body is not read, so the connection cannot serve another request."""
    error.headers = (*error.headers, (b"connection", b"close"))
    return error
