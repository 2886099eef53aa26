"""What supervisor and workers say to each other: msgpack, each message behind its length in four bytes."""

from __future__ import annotations

import asyncio
import socket
from typing import Generic, TypeVar

import msgspec

from sluice_gateway.settings import Settings
from sluice_gateway.supervisor.samples import Family

_T = TypeVar("_T")
_LENGTH_BYTES = 4


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One of those below."""


# To a worker


class Configure(Message, frozen=True):
    """Put these settings in force. The first message of all, and one for each reload."""

    number: int
    """Of the configuration, counted from 1."""
    settings: Settings
    """Managed engines have an address and nothing to manage: they are the supervisor's."""


class Drain(Message, frozen=True):
    """Stop, with so much patience; said again, stop at once."""

    limit_s: float
    linger: bool
    """Whether to stay when no request is left, refusing new ones, until `Leave`."""


class Leave(Message, frozen=True):
    """No worker has a request any more."""


class Collect(Message, frozen=True):
    """Report the metrics as they are now."""


class EngineNews(Message, frozen=True):
    """A managed engine cannot serve, or may be able to from now on (`None`)."""

    engine: str
    problem: str | None


class Page(Message, frozen=True):
    """Answer to `PageWanted`."""

    number: int
    page: bytes


class Reloaded(Message, frozen=True):
    """Answer to `ReloadWanted`: the configuration's number, or why there is no new one."""

    number: int
    configuration: int
    problem: str | None


# From a worker


class Started(Message, frozen=True):
    """Connections are accepted."""


class Ready(Message, frozen=True):
    """An engine can serve."""

    models: list[str]
    needs_key: bool


class Report(Message, frozen=True):
    """The metrics as they are. Sent once a second, it also says that the event loop runs."""

    families: list[Family]


class Applied(Message, frozen=True):
    """Answer to `Configure`: in force, or why not."""

    number: int
    problem: str | None


class Retired(Message, frozen=True):
    """The last request of an old configuration has ended."""

    number: int


class Drained(Message, frozen=True):
    """No request is left, and none will come."""


class PageWanted(Message, frozen=True):
    """Somebody asked this worker for the metrics of all."""

    number: int


class ReloadWanted(Message, frozen=True):
    """Somebody asked this worker to have the configuration read again."""

    number: int


ToWorker = Configure | Drain | Leave | Collect | EngineNews | Page | Reloaded
FromWorker = Started | Ready | Report | Applied | Retired | Drained | PageWanted | ReloadWanted


def read_one(connection: socket.socket, kind: type[_T]) -> _T:
    """The first message, without an event loop. Raises `EOFError` when there is none."""
    length = int.from_bytes(_read_exactly(connection, _LENGTH_BYTES), "big")
    return msgspec.msgpack.decode(_read_exactly(connection, length), type=kind)


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


class Channel(Generic[_T]):
    """One end of the socket between supervisor and worker; receives `_T`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: msgspec.msgpack.Decoder[_T]
    ) -> None:
        self._reader, self._writer, self._decoder = reader, writer, decoder
        self._encoder = msgspec.msgpack.Encoder()

    @classmethod
    async def open(cls, connection: socket.socket, decoder: msgspec.msgpack.Decoder[_T]) -> Channel[_T]:
        """Take over a connected socket."""
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        return cls(reader, writer, decoder)

    def send(self, message: Message) -> None:
        """Without waiting. What is sent to somebody who is gone is lost."""
        data = self._encoder.encode(message)
        if not self._writer.is_closing():
            self._writer.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    async def receive(self) -> _T | None:
        """The next message; `None` when the other side is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            return self._decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def flush(self) -> None:
        """Return when the other side's kernel has it all, or is gone."""
        try:
            await self._writer.drain()
        except OSError:
            return

    async def aclose(self) -> None:
        """Say no more."""
        await self.flush()
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return
