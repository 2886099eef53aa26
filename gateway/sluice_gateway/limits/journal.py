"""Settlements on their way to Redis: summed up by subject, sent in numbered batches, kept until they are
acknowledged.

Invariants: there is at most one unacknowledged batch; it is sent again under its own number, of which Redis
applies the first to arrive, so that nothing counts twice; what comes meanwhile goes into the next one. Sums
make the journal's size follow the number of subjects, not of requests, however long an outage is; the
leases in it are bounded too, since they expire by themselves.

While Redis is away, what a minute-bucket was moved by drains at the bucket's own pace, as it would have in
Redis: after an outage only the last minute counts. Money does not drain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sluice_gateway.limits.scripts import Argument

SubjectKeys = tuple[str, str]
"""Names of a subject's hash and leases."""

_MAX_LEASES = 4096
_BATCH = 128


@dataclass(slots=True)
class _Sum:
    at_us: int
    request_us: int = 0
    token_us: int = 0
    spent: int = -1
    """-1: the subject has no budget."""
    members: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Batch:
    """One script call's worth, numbered from 1 by the process that made it."""

    number: int
    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]
    subjects: int


class Journal:
    """Collects sums and hands out batches."""

    def __init__(self, clock: Callable[[], int], max_subjects: int) -> None:
        """`clock` gives microseconds."""
        self._clock = clock
        self._max_subjects = max_subjects
        self._sums: dict[SubjectKeys, _Sum] = {}
        self._unacknowledged: list[tuple[SubjectKeys, _Sum]] = []
        self._number = 0
        self.draining = False
        """Redis is away: minute-buckets drain here."""

    def __len__(self) -> int:
        return len(self._sums) + len(self._unacknowledged)

    def add(self, keys: SubjectKeys, request_us: int, token_us: int, spent: int, member: str | None) -> bool:
        """Add one settlement for one subject. False when there is no room for another subject."""
        now = self._clock()
        found = self._sums.get(keys)
        if found is None:
            if len(self._sums) >= self._max_subjects:
                return False
            self._sums[keys] = found = _Sum(now)
        elif self.draining:
            _drain(found, now)
        found.request_us += request_us
        found.token_us += token_us
        if spent >= 0:
            found.spent = max(0, found.spent) + spent
        if member is not None:
            found.members.append(member)
            if len(found.members) > _MAX_LEASES:
                del found.members[0]
        return True

    def batch(self) -> Batch | None:
        """What to send now: the unacknowledged batch again, else the next one, else nothing."""
        if not self._unacknowledged and self._sums:
            self._number += 1
            chosen = list(self._sums)[:_BATCH]
            self._unacknowledged = [(name, self._sums.pop(name)) for name in chosen]
        return self._sendable() if self._unacknowledged else None

    def acknowledge(self, batch: Batch) -> None:
        """A batch has been applied, now or before, or was given up."""
        if batch.number == self._number:
            self._unacknowledged = []

    def _sendable(self) -> Batch:
        now = self._clock()
        keys: list[str] = []
        arguments: list[Argument] = [self._number]
        for name, found in self._unacknowledged:
            if self.draining:
                _drain(found, now)
            keys += name
            arguments += [found.request_us, found.token_us, found.spent, len(found.members), *found.members]
        return Batch(self._number, tuple(keys), tuple(arguments), len(self._unacknowledged))


def _drain(found: _Sum, now: int) -> None:
    passed = max(0, now - found.at_us)
    found.at_us = now
    found.request_us = _towards_zero(found.request_us, passed)
    found.token_us = _towards_zero(found.token_us, passed)


def _towards_zero(value: int, by: int) -> int:
    return max(0, value - by) if value > 0 else min(0, value + by)
