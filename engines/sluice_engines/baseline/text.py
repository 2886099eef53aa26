"""From one row's tokens to its text, piece by piece: whole characters only, and never a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sluice_engines.stop_strings import first_stop, held_back

_BROKEN = "\ufffd"


class RowText:
    """The text of one answer."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        """`decode` turns token ids into text, without special tokens."""
        self._decode = decode
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._from = 0
        """The first token that is decoded again, so that the ones behind it get their spaces."""
        self._read = 0
        """Tokens whose text is in `_text`."""
        self._text = ""
        self._sent = 0
        self.stopped = False
        """A stop string was met: nothing follows."""

    def feed(self, token: int) -> str:
        """What one more token adds."""
        self._ids.append(token)
        said = self._new_text()
        if said.endswith(_BROKEN):
            return ""
        self._accept(said)
        return self._give(len(self._text) - held_back(self._text[self._sent :], self._stops))

    def flush(self) -> str:
        """What was held back, when no token follows."""
        self._accept(self._new_text())
        return self._give(len(self._text))

    def _new_text(self) -> str:
        before = self._decode(self._ids[self._from : self._read])
        return self._decode(self._ids[self._from :])[len(before) :]

    def _accept(self, said: str) -> None:
        self._text += said
        self._from, self._read = self._read, len(self._ids)

    def _give(self, end: int) -> str:
        if self.stopped:
            return ""
        cut = first_stop(self._text[self._sent :], self._stops)
        if cut is not None:
            self.stopped, end = True, self._sent + cut
        given, self._sent = self._text[self._sent : end], end
        return given
