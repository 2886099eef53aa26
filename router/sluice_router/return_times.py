"""When a refused request is to come back: `Retry-After`, made true by keeping room for those who obey.

The endpoints of a lane drain a known amount of work in a second. The first to be refused is told the time at
which that drain will have made room for it; the next one the time after that which its predecessor will need,
and so on: a virtual clock that advances by `work / drain` with every refusal (Zhang, *VirtualClock*, 1990).
So those who obey come back one by one, at the rate at which they can be served, and not all together; the
random share on top is for clients that round to whole seconds.

Being told a time is worth little if newcomers take the room meanwhile. `reserved_s` says how long the drain
is spoken for, and newcomers that have to wait are asked to wait behind it. Nothing is idle for it: an
endpoint with room takes whoever comes. How much it counts follows from how many did come back
(`_kept_share`): where clients give up, nothing is held for them.

A request is known again by being the same: tenant, model and sizes. Times are at most `MOST_S` ahead; who
would have to wait longer is told that, and nothing is kept for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sluice_router.shelf import Lane
from sluice_router.snapshot import ReturnsSnapshot
from sluice_router.types import RequestFacts

LEAST_S, MOST_S = 1.0, 60.0
SPREAD = 0.1
"""Random share, up to this, on top of a time; at most `_SPREAD_S`. Nobody is told to come earlier."""
_SPREAD_S = 1.0
EARLY_S = 0.25
"""Who comes this much too early is let in as well: clocks and rounding."""
GRACE_S = 2.0
"""Who has not come this long after the time will not come."""
REMEMBERED = 65536
_SHARE_WEIGHT = 0.02

Identity = tuple[str, str, int, int, int | None, int]


def identity(facts: RequestFacts) -> Identity:
    """What two sendings of one request have in common."""
    last = facts.prefix[-1] if facts.prefix else 0
    sizes = facts.prompt_tokens_estimate, facts.body_bytes, facts.max_tokens
    return facts.tenant, facts.model, *sizes, last


class _Promise:
    __slots__ = ("at", "lane", "service_s", "until", "who")

    def __init__(self, at: float, until: float, who: Identity, lane: Lane, service_s: float) -> None:
        self.at = at
        self.until = until
        self.who = who
        self.lane = lane
        self.service_s = service_s


class ReturnTimes:
    """The times that were told and are not over."""

    __slots__ = ("_by_identity", "_clocks", "_in_order", "_kept_share", "_promised", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` gives numbers from 0 to 1."""
        self._random = random
        self._clocks: dict[Lane, float] = {}
        self._in_order: deque[_Promise] = deque()
        self._by_identity: dict[Identity, deque[_Promise]] = {}
        self._kept_share = 1.0
        self._promised: dict[tuple[Lane, str | None], list[float]] = {}
        """Number and seconds of service of the open promises, by tenant, and over all of them."""

    def __len__(self) -> int:
        return len(self._in_order)

    def tell(self, facts: RequestFacts, lane: Lane, wait_s: float, service_s: float, now: float) -> float:
        """The seconds that a refused request is to stay away.

        `wait_s`: until there would be room for it if nobody else was told to come back; `service_s`: how
        much of the drain it needs itself, 0 when that is unknown.
        """
        self._forget_the_late(now)
        at = now + max(LEAST_S, wait_s)
        clock = self._clocks.get(lane)
        if clock is not None and clock > now:
            at = max(at, clock + service_s)
        spread_s = min(_SPREAD_S, SPREAD * (at - now)) * self._random()
        if at + spread_s > now + MOST_S:
            return MOST_S
        if service_s > 0.0:
            self._clocks[lane] = at
            self._remember(_Promise(at, at + spread_s + GRACE_S, identity(facts), lane, service_s))
        return at + spread_s - now

    def redeem(self, facts: RequestFacts, now: float) -> bool:
        """Whether the request was told to come back about now. Asking uses that up."""
        self._forget_the_late(now)
        found = self._by_identity.get(identity(facts))
        if not found or found[0].at > now + EARLY_S:
            return False
        promise = found.popleft()
        if not found:
            del self._by_identity[promise.who]
        promise.until = now
        self._count(promise, -1)
        self._kept_share += _SHARE_WEIGHT * (1.0 - self._kept_share)
        return True

    def reserved_s(self, lane: Lane, now: float) -> float:
        """Seconds for which the drain is spoken for by those who will come back."""
        clock = self._clocks.get(lane)
        if clock is None:
            return 0.0
        if clock <= now:
            del self._clocks[lane]
            return 0.0
        self._forget_the_late(now)
        return (clock - now) * self._kept_share

    def promised_s(self, lane: Lane, tenant: str | None = None) -> float:
        """Seconds of the drain that requests of a tenant, or of all, need which were told to come back."""
        found = self._promised.get((lane, tenant))
        return 0.0 if found is None else found[1] * self._kept_share

    def snapshot(self, now: float) -> ReturnsSnapshot:
        """A frozen copy; with those that are late by now, and not forgotten yet."""
        open_ones = [found for (_, tenant), found in self._promised.items() if tenant is None]
        return ReturnsSnapshot(
            expected=sum(int(found[0]) for found in open_ones),
            service_s=sum(found[1] for found in open_ones),
            last_at=max((at for at in self._clocks.values() if at > now), default=None),
            kept_share=self._kept_share,
        )

    def _count(self, promise: _Promise, number: int) -> None:
        for tenant in (None, promise.who[0]):
            key = promise.lane, tenant
            found = self._promised.setdefault(key, [0, 0.0])
            found[0] += number
            found[1] += number * promise.service_s
            if not found[0]:
                del self._promised[key]

    def _remember(self, promise: _Promise) -> None:
        self._count(promise, 1)
        self._in_order.append(promise)
        self._by_identity.setdefault(promise.who, deque()).append(promise)
        if len(self._in_order) > REMEMBERED:
            self._drop(self._in_order.popleft())

    def _forget_the_late(self, now: float) -> None:
        """Lanes differ in their times, so a late one may stand behind one that is not due; it waits there."""
        while self._in_order and self._in_order[0].until < now:
            if self._drop(self._in_order.popleft()):
                self._kept_share -= _SHARE_WEIGHT * self._kept_share

    def _drop(self, promise: _Promise) -> bool:
        """Forget one; whether it was still open."""
        found = self._by_identity.get(promise.who)
        if found is None or promise not in found:
            return False
        found.remove(promise)
        self._count(promise, -1)
        if not found:
            del self._by_identity[promise.who]
        return True
