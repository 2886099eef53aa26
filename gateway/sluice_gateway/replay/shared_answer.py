"""One answer, made once and read by many while it is being made.

The producer writes to it as to any client (`Wire`). Readers join at any time, get what is there already,
then follow live; each gets the same bytes. The producer does not wait for readers until `max_bytes` are kept.
From then on what all readers have is forgotten, nobody can join any more, and the slowest reader sets the
pace: memory stays bounded and no answer is lost for its size.

Invariant: every reader's client sees the same end: a finished answer, or one that is cut at the same place.
When the last reader leaves before the end, `on_deserted` is called, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sluice_gateway.replay.answer import Answer, lasting
from sluice_gateway.wire import Header, Wire

Dress = Callable[[list[Header]], list[Header]]
"""The headers for one reader, from those that the producer gave."""


class _Place:
    """How far one reader is: the number of the piece it needs next."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = 0


class SharedAnswer:
    """The producer's `Wire`, and the readers' source."""

    __slots__ = (
        "_bytes",
        "_ended",
        "_finished",
        "_forgotten",
        "_headers",
        "_is_whole",
        "_max_bytes",
        "_moved",
        "_news",
        "_on_deserted",
        "_pieces",
        "_places",
        "deserted",
        "overflowed",
        "status",
    )

    def __init__(self, max_bytes: int, on_deserted: Callable[[], None]) -> None:
        self._max_bytes = max_bytes
        self._on_deserted = on_deserted
        self.status = 0
        """0 until the answer has started."""
        self.overflowed = False
        """Its beginning may have been forgotten: it can neither be joined nor kept."""
        self.deserted = False
        """All readers left before the end; it will never be whole."""
        self._headers: list[Header] = []
        self._is_whole = False
        self._pieces: list[bytes] = []
        self._forgotten = 0
        self._bytes = 0
        self._finished = False
        self._ended = False
        self._places: set[_Place] = set()
        self._news = asyncio.Event()
        self._moved = asyncio.Event()

    # The producer's side.

    def start(self, status: int, headers: list[Header]) -> None:
        """See `Wire`."""
        self.status, self._headers = status, headers
        self._tell()

    def write(self, data: bytes) -> Awaitable[None] | None:
        """See `Wire`. To be waited for while the readers are too far behind."""
        self._add(data)
        self._tell()
        if self._bytes <= self._max_bytes:
            return None
        self.overflowed = True
        return self._make_room()

    def finish(self, data: bytes = b"") -> None:
        """See `Wire`."""
        if data:
            self._add(data)
        self._finished = True
        self._tell()

    def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        """See `Wire`."""
        self.status, self._headers, self._is_whole = status, headers, True
        self.finish(body)

    def give(self, answer: Answer) -> None:
        """The whole of an answer made elsewhere."""
        self.status, self._headers, self._is_whole = answer.status, list(answer.headers), not answer.streamed
        self.finish(answer.body)

    def end(self) -> None:
        """The producer is through. What is not finished now is cut."""
        self._ended = True
        self._tell()

    def answer(self, made_s: float) -> Answer | None:
        """The complete answer; `None` when it was cut or is too large."""
        if not self._finished or self.overflowed:
            return None
        body = b"".join(self._pieces)
        return Answer(self.status, lasting(self._headers), body, not self._is_whole, made_s)

    # The readers' side.

    @property
    def readers(self) -> int:
        """How many there are now."""
        return len(self._places)

    @property
    def is_live(self) -> bool:
        """It is being made, and somebody reads it."""
        return not (self._finished or self._ended or self.deserted)

    async def follow(self, wire: Wire, dress: Dress) -> bool:
        """Pass the answer on from its first byte to its end.

        False when it was cut; then nothing was written if nothing had been produced. Joining is done before
        the first wait.
        """
        assert not self.overflowed and not self.deserted
        place = _Place()
        self._places.add(place)
        try:
            while not self.status and not self._ended:
                await self._news.wait()
            return await self._pass_on(wire, place, dress) if self.status else False
        finally:
            self._leave(place)

    async def _pass_on(self, wire: Wire, place: _Place, dress: Dress) -> bool:
        if self._is_whole:
            await _done(wire.whole(self.status, dress(self._headers), self._take(place)))
            return True
        await _done(wire.start(self.status, dress(self._headers)))
        while True:
            data = self._take(place)
            if self._finished:
                await _done(wire.finish(data))
                return True
            if data:
                await _done(wire.write(data))
            elif self._ended:
                return False
            else:
                await self._news.wait()

    def _take(self, place: _Place) -> bytes:
        """All that a reader does not have yet."""
        pieces = self._pieces[place.next - self._forgotten :]
        place.next = self._forgotten + len(self._pieces)
        if self.overflowed:
            self._moved.set()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _leave(self, place: _Place) -> None:
        self._places.discard(place)
        self._moved.set()
        if not self._places and not self._finished and not self._ended:
            self.deserted = True
            self._on_deserted()

    def _add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._bytes += len(data)

    async def _make_room(self) -> None:
        while True:
            self._moved.clear()
            self._forget_what_all_have()
            if self._bytes <= self._max_bytes or not self._places:
                return
            await self._moved.wait()

    def _forget_what_all_have(self) -> None:
        count = min((place.next for place in self._places), default=self._forgotten) - self._forgotten
        if count > 0:
            self._bytes -= sum(map(len, self._pieces[:count]))
            del self._pieces[:count]
            self._forgotten += count

    def _tell(self) -> None:
        """Wake all readers: each waits for the event that was there when it looked."""
        news, self._news = self._news, asyncio.Event()
        news.set()


async def _done(waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting
