"""Ids of requests: the client's own, if it is short and plain, otherwise a new one."""

from __future__ import annotations

import re
from collections.abc import Callable

_HEADER = b"x-request-id"
_VALID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_BYTES = 12
_AT_ONCE = 256


class RequestIds:
    """Makes ids. Randomness is fetched for many at a time: asking the system costs more than the id."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._pool = ""
        self._at = 0

    def of(self, headers: dict[bytes, bytes]) -> str:
        """The id of a request with these headers."""
        given = headers.get(_HEADER)
        if given is not None and _VALID.fullmatch(given):
            return given.decode("ascii")
        return self.new()

    def new(self) -> str:
        """An id that no other request has."""
        at = self._at
        if at == len(self._pool):
            self._pool, at = self._random_bytes(_BYTES * _AT_ONCE).hex(), 0
        self._at = end = at + 2 * _BYTES
        return "req_" + self._pool[at:end]
