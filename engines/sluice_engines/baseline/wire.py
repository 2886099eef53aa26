"""Writing answers over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON, EVENTS, TEXT = b"application/json", b"text/event-stream; charset=utf-8", b"text/plain; version=0.0.4"


async def start(send: Send, status: int, content_type: bytes, length: int | None = None) -> None:
    """The head of an answer."""
    headers = [(b"content-type", content_type)]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_whole(send: Send, status: int, body: bytes, content_type: bytes = JSON) -> None:
    """A complete answer."""
    await start(send, status, content_type, len(body))
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, status: int, message: str, param: str | None, code: str | None) -> None:
    """An error in OpenAI\'s shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    await send_whole(send, status, msgspec.json.encode({"error": error}))
