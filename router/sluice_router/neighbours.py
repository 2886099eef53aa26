"""What other gateways do at the engines that this one uses, told from the engines' readings alone.

A reading says how many requests an engine has; the ledger knows how many of them are this gateway's. Their
quotient over all engines, lately, is this gateway's share. The room that a reading shows is there once, and
every gateway sees it: of what it may be filled with until the next reading each takes its share. That may
be less than a request. Then one is let in by chance, so that over all gateways as much is placed as there is
room for (dithering): with each reading a number is drawn that says how much of the next request has to fit.

Rationed is what is scarce: the fewer engines have room, the more of the traffic comes to those that have,
from everywhere at once. Where all have room, nobody is rationed; where nobody else is, the share is 1.

Does not know engines, requests or the clock.
"""

from __future__ import annotations

ALONE = 0.85
"""Share from which others are taken for a matter of timing: an engine counts a request a little longer than
the gateway does, or less long."""
_KEPT = 0.98
"""What the present sums count for when the next reading is added."""
LEAST = 1.0 / 1024.0


class Neighbours:
    """This gateway's part of all that is in flight. One for a router."""

    __slots__ = ("_own", "_present", "crowding", "share")

    def __init__(self) -> None:
        self._own = 0.0
        self._present = 0.0
        self.share = 1.0
        """From `LEAST` to 1, which stands for having the engines for itself."""
        self.crowding = 0.0
        """Share of the engines that had no room, lately."""

    def note(self, own: int, present: int, *, full: bool) -> None:
        """An engine has `present` requests, of which `own` are this gateway's, and has no room if `full`."""
        self.crowding += (1.0 - _KEPT) * (full - self.crowding)
        if not present:
            return
        self._own = _KEPT * self._own + min(own, present)
        self._present = _KEPT * self._present + present
        share = self._own / self._present
        self.share = 1.0 if share >= ALONE else max(LEAST, share)

    def part(self, room: float) -> float:
        """How much of an engine's room is this gateway's to fill until the next reading.

        Where nothing is full, all come to fill it who would have come anyhow, and nothing is rationed. The
        fewer engines have room, the more of the traffic comes to those that have.
        """
        return self.share * room / max(LEAST, self.crowding)

    @property
    def alone(self) -> bool:
        """Whether nobody else uses the engines."""
        return self.share == 1.0
