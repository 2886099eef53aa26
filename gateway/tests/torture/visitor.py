"""A visitor: one connection at a time, kept for the next visit when the last one ended well.

Answers are read by a strict parser, so that whatever is not HTTP is found; what is HTTP is held against what
the visit may expect.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools

from .visits import Visit
from .wild_engine import AS_ASKED

PATIENCE_S = 60.0


class Disappointed(AssertionError):
    """An answer that its visit did not allow for."""


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport
        self.closed = False
        self.broken = False
        self.expect()

    def expect(self, answers: int = 1) -> None:
        """The next answers are those of a new visit."""
        self.missing = answers
        self.received = 0
        self.statuses: list[int] = []
        self.headers: dict[bytes, bytes] = {}
        self.bodies: list[bytearray] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.broken = True
            self.transport.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.statuses.append(status)
            self.bodies.append(bytearray())

    def on_body(self, body: bytes) -> None:
        self.bodies[-1] += body

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self.missing -= 1

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds, or the connection is closed."""
        while not (self.closed or condition()):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def leave(self, ending: str) -> None:
        if self.transport.is_closing():
            return  # the gateway was quicker
        if ending == "half-closed":
            self.transport.write_eof()
            return
        if ending == "RST":
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.transport.abort()
        else:
            self.transport.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Visitor:
    """Pays one visit after the other."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self._address = (address.hostname, address.port)
        self._line: Line | None = None

    async def pay(self, visit: Visit) -> str:
        """How it ended, in a word. Raises `Disappointed`."""
        async with asyncio.timeout(PATIENCE_S):
            line = await self._ready_line()
            line.expect(2 if visit.twice else 1)
            if visit.leaves is not None:
                return await self._leave(line, visit)
            await _send(line, visit)
            await line.until(lambda: line.missing == 0)
            if not line.received and line.closed:
                self._line = None  # it was given up while it was idle, as HTTP allows
                return await self.pay(visit)
        return judge(line, visit)

    def close(self) -> None:
        if self._line is not None:
            self._line.transport.close()

    async def _ready_line(self) -> Line:
        line = self._line
        if line is None or line.closed or line.missing:
            if line is not None and not line.closed:
                line.transport.abort()
            _, line = await asyncio.get_running_loop().create_connection(Line, *self._address)
            self._line = line
        return line

    async def _leave(self, line: Line, visit: Visit) -> str:
        self._line = None
        if visit.leaves == "while sending":
            head, body = encode(visit)
            line.transport.write(head + body[: int(visit.moment * len(body))])
            await asyncio.sleep(0.005 * visit.moment)
        else:
            await _send(line, visit)
        if visit.leaves in ("while waiting", "while connecting"):
            await asyncio.sleep(visit.pause_s * visit.moment)
        elif visit.leaves == "in the answer":
            await line.until(lambda: line.received > 0)
            await asyncio.sleep(visit.pause_s * visit.moment)
        elif visit.leaves == "after the answer":
            await line.until(lambda: line.missing == 0)
        line.leave(visit.ending)
        await line.until(lambda: False)
        return f"left {visit.leaves}"


async def _send(line: Line, visit: Visit) -> None:
    head, body = encode(visit)
    if not visit.split:
        line.transport.write((head + body) * (2 if visit.twice else 1))
        return
    data = (head + body) * (2 if visit.twice else 1)
    third = len(data) // 3
    for piece in (data[:third], data[third : 2 * third], data[2 * third :]):
        line.transport.write(piece)
        await asyncio.sleep(0.001)


def encode(visit: Visit) -> tuple[bytes, bytes]:
    """Head and body as they go on the wire."""
    lines = [f"{visit.method} {visit.target} HTTP/1.1", "host: gateway"]
    lines += [f"{name}: {value}" for name, value in visit.headers]
    body = visit.body
    if visit.chunked:
        lines.append("transfer-encoding: chunked")
        half = len(body) // 2
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]))
        body += b"0\r\n\r\n"
    else:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode(), body


def judge(line: Line, visit: Visit) -> str:
    """How a visit ended for somebody who stayed. Raises `Disappointed`."""
    if line.broken or not line.statuses:
        raise Disappointed(f"no answer to {visit}")
    for status, body in zip(line.statuses, line.bodies, strict=True):
        if status != 200:
            ours = status == 500 and AS_ASKED.encode() not in body
            if ours or status not in visit.statuses or not is_error(bytes(body), visit.path):
                raise Disappointed(f"{status} {bytes(body)!r} for {visit}")
        elif not visit.may_break and (
            200 not in visit.statuses or (visit.expects or "") not in body.decode()
        ):
            raise Disappointed(f"200 {bytes(body)!r} for {visit}")
    if line.missing and not visit.may_break:
        raise Disappointed(f"{line.missing} answers are missing, after {line.statuses}, for {visit}")
    return "whole" if set(line.statuses) == {200} and not visit.may_break else "failed as it was to"


def is_error(body: bytes, path: str) -> bool:
    """Whether a failure has the shape that clients of the path know."""
    document = json.loads(body)
    error = document["error"]
    if path.startswith("/v1/messages"):
        return document.get("type") == "error" and {"type", "message"} <= set(error)
    return set(error) == {"message", "type", "param", "code"} and isinstance(error["message"], str)
