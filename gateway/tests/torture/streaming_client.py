"""A client that can leave at any byte: raw sockets, no library in between that would tidy up."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

from ..serving import PATIENCE_S


class Answer:
    """What came back, as far as it came."""

    def __init__(self, wire: bytes) -> None:
        head, _, body = wire.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ", 2)[1]) if head else 0
        chunked = b"transfer-encoding: chunked" in head.lower()
        self.body, self.ended = _dechunked(body) if chunked else (body, True)

    @property
    def events(self) -> list[str]:
        """Payloads of the `data:` events."""
        blocks = self.body.decode().split("\n\n")
        return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(event) for event in self.events if event != "[DONE]"]

    @property
    def text(self) -> str:
        """Content of the first choice."""
        choices = [choice for piece in self.objects for choice in piece.get("choices", [])]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [piece["error"] for piece in self.objects if "error" in piece]

    @property
    def done(self) -> bool:
        """The stream ended as it should: `[DONE]` last, and the body's own end after it."""
        return bool(self.events) and self.events[-1] == "[DONE]" and self.ended


def _dechunked(body: bytes) -> tuple[bytes, bool]:
    content = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return content, True
        content, body = content + rest[:length], rest[length + 2 :]
    return content, False


class Client:
    """One connection, one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = bytearray()

    @classmethod
    async def ask(cls, url: str, fields: dict[str, Any], path: str = "/v1/chat/completions") -> Client:
        """Connect and send a request."""
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        body = json.dumps(fields).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        return cls(reader, writer)

    async def read_to_the_end(self) -> Answer:
        async with asyncio.timeout(PATIENCE_S * 3):
            while data := await self._reader.read(65536):
                self.received += data
        self._writer.close()
        return Answer(bytes(self.received))

    async def read_some(self, size: int) -> None:
        """Read until that many bytes have come, or the end."""
        async with asyncio.timeout(PATIENCE_S * 3):
            while len(self.received) < size and (data := await self._reader.read(4096)):
                self.received += data

    def leave(self, *, politely: bool = False) -> None:
        """Hang up: with a FIN, or with the RST that unread data cause."""
        if politely:
            self._writer.close()
        else:
            self._writer.transport.abort()
