"""What of a stream has gone to the client, kept so cheaply that every stream can afford it.

Nearly all events of a stream are equal but for their piece of text. Once one of them is known to be one
choice's text and nothing else, whatever begins and ends with the same bytes, and has no quote and no line end
between them, is another: inside a JSON string every quote is escaped, so nothing else fits in there. That is
three comparisons, fewer than looking for everything that an event might hold; and only the text, escaped as
it is, has to be kept. Events that do not fit are kept whole, and read if ever a stream is cut
(`delivered.py`).

What is kept is bounded in bytes: beyond, all of it is dropped, and the stream is not resumed if it is cut.
"""

from __future__ import annotations

from typing import Final

from sluice_gateway.resumption.templates import template

MAX_BYTES: Final = 1 << 20
"""Of one stream. Text takes what it has in UTF-8; some 200,000 tokens."""
_JOINED: Final = 256
"""So many pieces are made one, which takes less memory."""
_PATIENCE: Final = 8
"""Templates in a row that fitted nothing, after which no more are made."""
_NONE: Final = b"\0"


class Transcript:
    """Of one stream, whatever engines it comes from."""

    __slots__ = ("_fits", "_futile", "_head", "_keeps", "_kept_bytes", "_tail", "_texts", "blocks", "whole")

    def __init__(self, keeps: bool = True) -> None:
        """Without `keeps` it only recognises plain events."""
        self._head = _NONE
        """What an event of text begins with; `_NONE` fits nothing."""
        self._tail = _NONE
        self._fits = 0
        """Events that fitted the present template."""
        self._futile = 0
        self._keeps = keeps
        self._kept_bytes = 0
        self._texts: list[bytes] = []
        self.blocks: list[tuple[int, bytes]] = []
        """In order: so many events' text, as it is inside a JSON string; or 0 and a whole event."""
        self.whole = keeps
        """Nothing has been dropped."""

    def take(self, event: bytes) -> bool:
        """Keep an event if it is a piece of text and nothing else, as far as is known; False, and nothing is
        kept, if it may not be."""
        if not event.startswith(self._head) or not event.endswith(self._tail):
            return False
        text = event[len(self._head) : len(event) - len(self._tail)]
        if not text or b'"' in text or b"\n" in text or text.endswith(b"\\"):
            return False
        self._fits += 1
        if self._keeps:
            self._texts.append(text)
            if len(self._texts) >= _JOINED:
                self._join()
        return True

    def note(self, event: bytes) -> None:
        """Keep any other event that the client gets, and learn from it what to look for."""
        if self._futile < _PATIENCE:
            self._learn(event)
        if self._keeps:
            self._join()
            self._keep(0, event)

    def drop(self) -> None:
        """Forget all of it: it is not what the client has got."""
        self._keeps = self.whole = False
        self.blocks.clear()
        self._texts.clear()

    def close(self) -> None:
        """Have everything in `blocks`; more may follow."""
        self._join()

    def _learn(self, event: bytes) -> None:
        found = template(event)
        if found is None:
            return
        self._futile = 0 if self._fits else self._futile + 1
        self._fits = 0
        self._head, self._tail = found

    def _join(self) -> None:
        if self._texts:
            self._keep(len(self._texts), b"".join(self._texts))
            self._texts.clear()

    def _keep(self, events: int, data: bytes) -> None:
        if not self._keeps:
            return
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_BYTES:
            self.drop()
            return
        self.blocks.append((events, data))
