"""Limits that all processes share, kept in Redis: one script call a request, on Redis' own clock.

A reservation waits for Redis, but never longer than its time limit; while Redis cannot be asked nobody
waits, and `degraded.py` decides. Settlements never wait (`settling.py`).

Invariant: whatever happens to a reservation, nothing of it stays taken. A refused one took nothing; one
that was cancelled while it waited is given back when its answer comes; of one whose outcome is unknown the
leases are ended, and what it may have taken of a minute is gone with the minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.limits.bounds import WINDOW_US
from sluice_gateway.limits.buckets import Dimension
from sluice_gateway.limits.counters import LimiterCounters
from sluice_gateway.limits.degraded import DegradedMode, header
from sluice_gateway.limits.headers import level, tighter
from sluice_gateway.limits.journal import Journal
from sluice_gateway.limits.memory import FreeLease
from sluice_gateway.limits.money import worst_case_micro
from sluice_gateway.limits.redis_address import RedisAddress
from sluice_gateway.limits.redis_connection import StoreError, StoreLost, StoreRefused
from sluice_gateway.limits.redis_lease import (
    BoundSubject,
    Plan,
    RedisLease,
    abandonment,
    bound,
    settlements,
)
from sluice_gateway.limits.redis_link import RedisLink
from sluice_gateway.limits.refusals import gateway_full, never_fits, refused
from sluice_gateway.limits.scripts import Argument, KeyNames, LimitsScript
from sluice_gateway.limits.settings import Limits
from sluice_gateway.limits.settling import LEASE_S, Settling
from sluice_gateway.limits.subjects import Policy
from sluice_gateway.limits.types import FREE, NO_RATES, Demand, Lease, RateState, Spent
from sluice_router.types import Usage

_MAX_SUBJECTS = 65_536
_MAX_PLANS = 65_536
_LAST_WORDS_S = 1.0
_FIRST_TRY_S = 1.0


class RedisLimiter:
    """See `Limiter`. Made inside a running event loop."""

    def __init__(
        self,
        limits: Limits,
        address: RedisAddress,
        clock: Callable[[], int],
        *,
        timeout_s: float,
        prefix: str,
        random: Callable[[], float],
    ) -> None:
        """`clock` gives microseconds since 1970, for when Redis' own cannot be had; `random` gives [0, 1)."""
        self.counters = LimiterCounters("degraded")
        self._names = names = KeyNames(prefix)
        self._adopt(limits)
        self._free = FreeLease()
        self._running = 0
        self._caller = os.urandom(6).hex()
        self._next_id = 0
        self._script = LimitsScript()
        journal = Journal(clock, _MAX_SUBJECTS)
        self._settling = Settling(self._caller, self._script, names, journal, self.counters)
        self._degraded = DegradedMode(limits, clock, self.counters)
        self._link = RedisLink(
            address, timeout_s, self._settling.resume, self._settling.pause, self.counters, random
        )
        self._settling.attach(self._link)
        self._beats: asyncio.Task[None] | None = None

    def _adopt(self, limits: Limits) -> None:
        self._limits = limits
        self._policy = Policy(limits)
        self._models = {name: bound(subject, self._names) for name, subject in self._policy.models.items()}
        self._plans: dict[str, Plan] = {}

    def reload(self, limits: Limits) -> None:
        """From now on these limits hold; what was used counts on."""
        self._adopt(limits)
        self._degraded.reload(limits)

    @property
    def in_use(self) -> int:
        """Leases that are out."""
        return self._running

    @property
    def unsettled(self) -> int:
        """Subjects with settlements that Redis does not know of yet."""
        return self._settling.waiting

    async def start(self) -> None:
        """See `Limiter`. Goes on without Redis when it does not answer."""
        self._settling.pause()
        self._beats = asyncio.create_task(self._settling.beat())
        await self._link.start(_FIRST_TRY_S)

    async def aclose(self) -> None:
        """See `Limiter`. Bounded, whatever Redis does."""
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._settling.leave()
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
        await self._link.aclose()

    def restore(self, spent: Iterable[Spent]) -> None:
        """Before `start`: have Redis count at least this, whenever it comes back, maybe empty."""
        self._settling.remember(spent)

    async def reserve(self, key: Key, demand: Demand) -> Lease | Problem:
        """See `Limiter`."""
        if self._running >= self._limits.max_concurrent:
            self.counters.count_refusal("gateway", Dimension.CONCURRENT)
            return gateway_full(self._running)
        self._running += 1
        admitted = False
        try:
            found = await self._reserve(key, demand)
            admitted = not isinstance(found, Problem)
            return found
        finally:
            if not admitted:
                self._running -= 1

    def settle(self, lease: Lease, usage: Usage | None) -> None:
        """See `Limiter`."""
        self._running -= 1
        if not isinstance(lease, RedisLease):
            return
        if lease.local is not None:
            self._degraded.settle(lease.local, usage)
        self._settling.settle(lease, settlements(lease, usage))

    async def _reserve(self, key: Key, demand: Demand) -> Lease | Problem:
        subjects = self._subjects(key, demand.model)
        if not subjects:
            return self._free
        wanted = self._wanted(subjects, demand)
        if isinstance(wanted, Problem):
            return wanted
        if self._link.available:
            try:
                reply = await self._ask(wanted)
            except StoreError as error:
                self._give_up(wanted, error)
            else:
                return self._answer(wanted, reply)
        return self._without_redis(key, demand, wanted)

    def _subjects(self, key: Key, model: str) -> tuple[BoundSubject, ...]:
        plan = self._plans.get(key.id)
        if plan is None or (plan.key is not key and plan.key != key):
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            subjects = tuple(bound(subject, self._names) for subject in self._policy.of(key))
            self._plans[key.id] = plan = Plan(key, subjects)
        found = self._models.get(model) if self._models else None
        return plan.subjects if found is None else (*plan.subjects, found)

    def _wanted(self, subjects: tuple[BoundSubject, ...], demand: Demand) -> RedisLease | Problem:
        """The reservation to ask for, or the refusal of one that can never be had."""
        output, price = demand.max_tokens, demand.price
        if output is None:
            output = self._limits.default_output_tokens
        tokens = demand.prompt_tokens + output
        worst = 0 if price is FREE else worst_case_micro(price, demand.prompt_tokens, output)
        token_us = [found.subject.bounds.token_us(tokens) for found in subjects]
        if worst or max(token_us) > WINDOW_US:
            problem = never_fits((found.subject for found in subjects), demand, worst)
            if problem is not None:
                return problem
            token_us = [min(moved_by, WINDOW_US) for moved_by in token_us]
        self._next_id += 1
        return RedisLease(
            id=f"{self._caller}:{self._next_id}",
            subjects=subjects,
            token_us=token_us,
            worst=worst,
            price=price,
            state=NO_RATES,
        )

    async def _ask(self, wanted: RedisLease) -> list[int]:
        """Raises `StoreError`. Cancelled, it gives back what the answer says was taken."""
        keys: list[str] = []
        arguments: list[Argument] = [wanted.id, LEASE_S * 1_000_000, wanted.worst]
        for found, token_us in zip(wanted.subjects, wanted.token_us, strict=True):
            keys += found.keys
            bounds = found.subject.bounds
            arguments += (bounds.request_us, token_us, bounds.concurrent, bounds.day_cap, bounds.month_cap)
        command = self._script.evalsha("reserve", keys, arguments)
        try:
            reply = await self._send(wanted, command)
        except StoreRefused as error:
            if error.word != "NOSCRIPT":
                raise
            reply = await self._send(wanted, self._script.eval(command))
        self._link.note_success()
        return reply

    async def _send(self, wanted: RedisLease, command: tuple[Argument, ...]) -> list[int]:
        future = self._link.call(command, partial(self._orphaned, wanted))
        try:
            reply: list[int] = await future
        except asyncio.CancelledError:
            if not future.cancelled():  # the answer came in the same turn of the loop
                self._orphaned(wanted, future.exception() or future.result())
            raise
        return reply

    def _answer(self, wanted: RedisLease, reply: Sequence[int]) -> Lease | Problem:
        allowed, now, index, dimension, wait_us = reply[:5]
        state = _rates(now, wanted.subjects, reply[5:])
        if not allowed:
            subject = wanted.subjects[index].subject
            self.counters.count_refusal(subject.kind, Dimension(dimension))
            return refused(subject, Dimension(dimension), wait_us, state)
        lease = RedisLease(
            id=wanted.id,
            subjects=wanted.subjects,
            token_us=wanted.token_us,
            worst=wanted.worst,
            price=wanted.price,
            state=state,
        )
        self._settling.hold(lease)
        return lease

    def _give_up(self, wanted: RedisLease, error: StoreError) -> None:
        """No answer: it may have been taken, or will be when a frozen Redis wakes up."""
        self._link.note_error(error)
        if isinstance(error, StoreLost):
            self._settling.settle(wanted, abandonment(wanted))

    def _orphaned(self, wanted: RedisLease, answer: Any) -> None:
        """The request was cancelled while it waited for this answer."""
        if isinstance(answer, StoreError):
            self._give_up(wanted, answer)
        elif answer[0]:
            self._settling.settle(wanted, settlements(wanted, None))

    def _without_redis(self, key: Key, demand: Demand, wanted: RedisLease) -> Lease | Problem:
        subjects = tuple(found.subject for found in wanted.subjects)
        found = self._degraded.take(key, demand, subjects, self._settling.processes)
        if isinstance(found, Problem):
            return found
        local, mode = found
        lease = RedisLease(
            id=wanted.id + "d",
            subjects=wanted.subjects,
            token_us=wanted.token_us,
            worst=wanted.worst,
            price=wanted.price,
            state=local.state,
            extra=(header(mode),),
            local=local,
        )
        self._settling.hold(lease)
        return lease


def _rates(now: int, subjects: Sequence[BoundSubject], used_us: Sequence[int]) -> RateState:
    """What is left, from the script's answer, the tightest of each kind."""
    requests = tokens = None
    for index, found in enumerate(subjects):
        bounds = found.subject.bounds
        if bounds.requests is not None:
            requests = tighter(requests, level(bounds.requests, used_us[2 * index]))
        if bounds.tokens is not None:
            tokens = tighter(tokens, level(bounds.tokens, used_us[2 * index + 1]))
    return RateState(at_us=now, requests=requests, tokens=tokens)
