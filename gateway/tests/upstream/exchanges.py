"""Short forms for tests: requests, whole exchanges, and the framings that HTTP/1.1 allows."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from sluice_engines.transport import Deadlines, Transport, UpstreamRequest, UpstreamResponse

from .scripted_server import PATIENCE_S

RELAXED = Deadlines()


class Answer(NamedTuple):
    """A response read to its end."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def post(url: str, body: bytes = b"{}", path: str = "/v1/chat/completions") -> UpstreamRequest:
    headers = ((b"content-type", b"application/json"),)
    return UpstreamRequest(base_url=url, path=path, headers=headers, body=body)


def get(url: str, path: str = "/health", method: str = "GET") -> UpstreamRequest:
    return UpstreamRequest(base_url=url, path=path, method=method)


async def read_all(response: UpstreamResponse) -> bytes:
    return b"".join([chunk async for chunk in response])


async def exchange(transport: Transport, request: UpstreamRequest, deadlines: Deadlines = RELAXED) -> Answer:
    """Send, read to the end, and fail the test if that hangs."""
    async with asyncio.timeout(PATIENCE_S):
        response = await transport.send(request, deadlines)
        return Answer(response.status, response.headers, await read_all(response))


class Framing(NamedTuple):
    """One way to put a response on the wire."""

    name: str
    wire: bytes
    status: int
    body: bytes
    method: str = "POST"
    closes: bool = False
    """The end of the connection is the end of the body."""
    reusable: bool = True
    """The client may keep the connection."""


FRAMINGS = [
    Framing("content-length", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    Framing("empty", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
    Framing(
        "chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        200,
        b"hello",
    ),
    Framing(
        "chunk extensions and trailers",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"
        b"5;a=b\r\nhello\r\n0\r\nX-Sum: 12\r\nX-Other: 3\r\n\r\n",
        200,
        b"hello",
    ),
    Framing(
        "until close",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\ndata: b\n\n",
        200,
        b"data: a\n\ndata: b\n\n",
        closes=True,
        reusable=False,
    ),
    Framing(
        "connection: close",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        closes=True,
        reusable=False,
    ),
    Framing(
        "HTTP/1.0",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        closes=True,
        reusable=False,
    ),
    Framing("no content", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    Framing("not modified", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
    Framing(
        "HEAD",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        200,
        b"",
        method="HEAD",
        reusable=False,
    ),
    Framing(
        "interim responses",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
        201,
        b"ok",
    ),
    Framing("no reason phrase", b"HTTP/1.1 429 \r\nContent-Length: 2\r\n\r\nno", 429, b"no"),
    Framing("error", b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno", 500, b"no"),
]
"""Valid responses, one for each rule of message framing."""
