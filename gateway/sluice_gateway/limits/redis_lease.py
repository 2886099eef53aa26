"""A subject and a reservation as Redis knows them, and what settling a reservation means for each subject."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from sluice_gateway.identity import Key
from sluice_gateway.limits.headers import rate_limit_headers
from sluice_gateway.limits.journal import SubjectKeys
from sluice_gateway.limits.money import cost_micro
from sluice_gateway.limits.scripts import KeyNames
from sluice_gateway.limits.subjects import Subject
from sluice_gateway.limits.types import FREE, Lease, Price, RateState
from sluice_gateway.wire import Header
from sluice_router.types import Usage


class BoundSubject(msgspec.Struct, frozen=True):
    """A subject with the names of its keys."""

    subject: Subject
    keys: SubjectKeys

    @property
    def leased(self) -> bool:
        """Whether Redis keeps its running requests one by one."""
        return self.subject.bounds.leased

    def member(self, lease: str, worst: int) -> str | None:
        """A running request in the subject's set of leases; it names the money that it holds."""
        if not self.subject.bounds.leased:
            return None
        return f"{lease}:{worst if self.subject.bounds.has_budget else 0}"


def bound(subject: Subject, names: KeyNames) -> BoundSubject:
    """A subject under a deployment's prefix."""
    return BoundSubject(subject, names.subject(subject.kind, subject.name))


class Plan(msgspec.Struct, frozen=True):
    """What binds the requests of one key."""

    key: Key
    subjects: tuple[BoundSubject, ...]


class RedisLease(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation: in Redis, or while it is away on this process's share."""

    id: str
    subjects: tuple[BoundSubject, ...]
    token_us: list[int]
    """What was reserved of each subject's tokens."""
    worst: int
    price: Price
    state: RateState
    extra: tuple[Header, ...] = ()
    local: Lease | None = None
    """The share's lease: then nothing is reserved in Redis, and settling counts all of the usage there."""

    @property
    def headers(self) -> tuple[Header, ...]:
        """See `Lease`."""
        return (*rate_limit_headers(self.state), *self.extra)


class Settlement(NamedTuple):
    """What one subject's keys change by."""

    keys: SubjectKeys
    request_us: int
    token_us: int
    spent: int
    """-1 without a budget."""
    member: str | None


def settlements(lease: RedisLease, usage: Usage | None) -> Iterator[Settlement]:
    """The differences between what was reserved in Redis and what was used."""
    reserved = lease.local is None
    tokens = 0 if usage is None else usage.prompt_tokens + usage.completion_tokens
    cost = 0 if usage is None or lease.price is FREE else cost_micro(lease.price, usage)
    for found, token_us in zip(lease.subjects, lease.token_us, strict=True):
        bounds = found.subject.bounds
        requests = (usage is not None) - reserved
        yield Settlement(
            found.keys,
            requests * bounds.request_us,
            bounds.token_us(tokens) - (token_us if reserved else 0),
            cost if bounds.has_budget else -1,
            found.member(lease.id, lease.worst),
        )


def abandonment(lease: RedisLease) -> Iterator[Settlement]:
    """Of a reservation that may or may not have been made: end its leases, wherever they are."""
    for found in lease.subjects:
        member = found.member(lease.id, lease.worst)
        if member is not None:
            spent = 0 if found.subject.bounds.has_budget else -1
            yield Settlement(found.keys, 0, 0, spent, member)
