"""How much of the traffic each placement key has lately: what makes a key hot.

Counted are requests, over the present and the previous ten seconds, so a key is hot after a burst as well as
after a long time. Keys without `FEW` requests have no share: of little traffic everything would be a large
part. A key that has more than a fair share gets more candidates (`candidates.py`).

Bounded: of more than `LIMIT` keys in one window, later ones are not counted. A key that has a share worth
speaking of is nearly always among the first. Does not know what a key is.
"""

from __future__ import annotations

WINDOW_S = 10.0
FEW = 32
LIMIT = 8192


class KeyTraffic:
    """Requests by key."""

    def __init__(self, window_s: float = WINDOW_S, limit: int = LIMIT) -> None:
        self._window_s = window_s
        self._limit = limit
        self._begun_at = 0.0
        self._present: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._requests = self._requests_before = 0

    def request(self, now: float) -> None:
        """One more request, with any keys."""
        age_s = now - self._begun_at
        if age_s >= self._window_s:
            lately = age_s < 2 * self._window_s
            self._before = self._present if lately else {}
            self._requests_before = self._requests if lately else 0
            self._present, self._requests = {}, 0
            self._begun_at = now
        self._requests += 1

    def note(self, key: int) -> int:
        """This request has the key. Returns how many had it lately."""
        count = self._present.get(key, 0)
        if count or len(self._present) < self._limit:
            count += 1
            self._present[key] = count
        return count + self._before.get(key, 0)

    def share(self, key: int) -> float:
        """The key's part of all requests, 0 to 1."""
        count = self._present.get(key, 0) + self._before.get(key, 0)
        return count / self.requests if count >= FEW else 0.0

    @property
    def requests(self) -> int:
        """How many there were lately."""
        return self._requests + self._requests_before
