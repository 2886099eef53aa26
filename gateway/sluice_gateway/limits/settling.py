"""The outgoing side of the Redis limits: settlements in batches, and a heartbeat that keeps leases alive.

One batch is on its way at a time; what is settled meanwhile makes up the next. So one request's settlement
leaves at once, and a thousand a second leave in a few hundred calls. The heartbeat makes this process one
of the members whose number divides the limits while Redis is away, and renews the leases of long requests;
after an outage it puts back those that Redis has lost.

Invariant: a settlement is in the journal until Redis has applied it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from sluice_gateway.limits.counters import LimiterCounters
from sluice_gateway.limits.journal import Batch, Journal, SubjectKeys
from sluice_gateway.limits.redis_connection import RedisConnection, StoreError, StoreRefused
from sluice_gateway.limits.redis_lease import RedisLease, Settlement
from sluice_gateway.limits.redis_link import RedisLink
from sluice_gateway.limits.scripts import Argument, KeyNames, LimitsScript
from sluice_gateway.limits.types import Spent

LEASE_S = 60
"""After this long without renewal a lease is nobody's."""
BEAT_S = 1.0
MEMBER_S = 5
_RENEW_EVERY = 20
"""Beats between two renewals."""
_RENEW_AT_ONCE = 256


class Settling:
    """Owns the journal and the heartbeat of one process."""

    def __init__(
        self,
        caller: str,
        script: LimitsScript,
        names: KeyNames,
        journal: Journal,
        counters: LimiterCounters,
    ) -> None:
        """`caller` names this process among all that share the limits."""
        self._caller = caller
        self._script = script
        self._names = names
        self._marker = names.marker(caller)
        self._journal = journal
        self._counters = counters
        self._live: dict[str, RedisLease] = {}
        self._link: RedisLink | None = None
        self._flushing = False
        self._spent: list[Spent] = []
        self.processes = 1
        """Members as last known."""

    @property
    def waiting(self) -> int:
        """Subjects with settlements that Redis has not acknowledged."""
        return len(self._journal)

    def attach(self, link: RedisLink) -> None:
        """Send through this link. Once, before anything is settled."""
        self._link = link

    def remember(self, spent: Iterable[Spent]) -> None:
        """Money that Redis has to count at least, on every new connection."""
        self._spent = list(spent)

    def hold(self, lease: RedisLease) -> None:
        """A reservation begins to run; its leases are renewed until it is settled."""
        if any(found.leased for found in lease.subjects):
            self._live[lease.id] = lease

    def settle(self, lease: RedisLease, entries: Iterable[Settlement]) -> None:
        """A reservation is over. Never waits."""
        self._live.pop(lease.id, None)
        for entry in entries:
            if not self._journal.add(*entry):
                self._counters.lost += 1
        self.flush()

    def flush(self) -> None:
        """Send what there is, unless a batch is on its way already."""
        link = self._link
        if self._flushing or link is None or not link.available or not len(self._journal):
            return
        self._flushing = True
        asyncio.get_running_loop().call_soon(self._send, link)

    def pause(self) -> None:
        """Redis is away."""
        self._journal.draining = True

    async def resume(self, connection: RedisConnection) -> None:
        """On a new connection: be a member, put all leases back, replay the journal. Raises `StoreError`."""
        await connection.call(("SCRIPT", "LOAD", self._script.text))
        await self._renew(connection)
        await self._restore(connection)
        while (batch := self._journal.batch()) is not None:
            await connection.call(self._command(batch))
            self._journal.acknowledge(batch)
        self._journal.draining = False

    async def beat(self) -> None:
        """Send heartbeats until cancelled."""
        count = 0
        while True:
            await asyncio.sleep(BEAT_S)
            count += 1
            link = self._link
            if link is None or not link.available:
                continue
            with contextlib.suppress(StoreError):
                await self._renew(link, leases=count % _RENEW_EVERY == 0)
            self.flush()

    async def leave(self) -> None:
        """Send what is left, and be a member no more. Raises `StoreError`."""
        link = self._link
        if link is None or not link.available:
            return
        while (batch := self._journal.batch()) is not None:
            await link.call(self._command(batch))
            self._journal.acknowledge(batch)
        await link.call(("ZREM", self._names.members, self._caller))

    def _command(self, batch: Batch) -> tuple[Argument, ...]:
        return self._script.evalsha("settle", (self._marker, *batch.keys), batch.arguments)

    def _send(self, link: RedisLink, whole: bool = False) -> None:
        batch = self._journal.batch() if link.available else None
        if batch is None:
            self._flushing = False
            return
        command = self._command(batch)
        future = link.call(self._script.eval(command) if whole else command)
        future.add_done_callback(lambda done: self._sent(link, batch, done))

    def _sent(self, link: RedisLink, batch: Batch, done: asyncio.Future[Any]) -> None:
        self._flushing = False
        error = None if done.cancelled() else done.exception()
        if error is None:
            link.note_success()
            self._journal.acknowledge(batch)
            self.flush()
        elif isinstance(error, StoreRefused) and error.word == "NOSCRIPT":
            self._flushing = True
            self._send(link, whole=True)
        elif isinstance(error, StoreError):
            link.note_error(error)

    async def _restore(self, connection: RedisConnection) -> None:
        for start in range(0, len(self._spent), _RENEW_AT_ONCE):
            part = self._spent[start : start + _RENEW_AT_ONCE]
            keys = [self._names.subject(found.kind, found.name)[0] for found in part]
            amounts = [number for found in part for number in (found.day, found.on_day, found.in_month)]
            await connection.call(self._script.evalsha("restore", keys, amounts))

    async def _renew(self, way: RedisConnection | RedisLink, leases: bool = True) -> None:
        running = list(self._live.values()) if leases else []
        for start in range(0, max(1, len(running)), _RENEW_AT_ONCE):
            keys, arguments = _beat(running[start : start + _RENEW_AT_ONCE])
            head = (self._caller, MEMBER_S * 1_000_000, LEASE_S * 1_000_000)
            command = self._script.evalsha("beat", (self._names.members, *keys), (*head, *arguments))
            self.processes = max(1, int(await way.call(command)))


def _beat(leases: list[RedisLease]) -> tuple[list[str], list[Argument]]:
    """Keys and arguments that renew leases, grouped by subject."""
    members: dict[SubjectKeys, list[str]] = {}
    for lease in leases:
        for found in lease.subjects:
            member = found.member(lease.id, lease.worst)
            if member is not None:
                members.setdefault(found.keys, []).append(member)
    keys: list[str] = []
    arguments: list[Argument] = []
    for (subject, running), group in members.items():
        keys += (running, subject)
        arguments += [len(group), *group]
    return keys, arguments
