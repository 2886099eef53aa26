"""Limits kept in this process: all there is without Redis, and one process's share while Redis is away.

Nothing here waits. A request costs a few microseconds, about one when nothing bounds it. A subject that has
nothing in use is forgotten once there are many: memory follows the subjects that are active, not those ever
seen. What was spent is forgotten with the process,
unless the next one is told (`restore`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.limits.bounds import WINDOW_US, Bounds
from sluice_gateway.limits.buckets import FOREVER_US, Bucket, Dimension, Refusal, reserve
from sluice_gateway.limits.counters import LimiterCounters
from sluice_gateway.limits.headers import rate_limit_headers
from sluice_gateway.limits.money import cost_micro, worst_case_micro
from sluice_gateway.limits.refusals import gateway_full, never_fits, refused
from sluice_gateway.limits.settings import Limits
from sluice_gateway.limits.subjects import EVERY_FIELD, Keep, Policy, Subject
from sluice_gateway.limits.types import FREE, NO_RATES, Demand, Lease, Level, Price, RateState, Spent
from sluice_gateway.wire import Header
from sluice_router.types import Usage

_SWEEP_FROM = 1024
Asks = list[tuple[Bucket, int]]


class FreeLease:
    """The lease of a request that nothing bounds."""

    headers: tuple[Header, ...] = ()
    state = NO_RATES


class MemoryLease:
    """What a request took."""

    __slots__ = ("_clock", "asks", "id", "price")

    def __init__(self, clock: Callable[[], int], lease: int, asks: Asks, price: Price) -> None:
        self._clock = clock
        self.id = lease
        self.asks = asks
        self.price = price

    @property
    def state(self) -> RateState:
        """The limits as they stand now."""
        return rates(self._clock(), self.asks)

    @property
    def headers(self) -> tuple[Header, ...]:
        """See `Lease`."""
        return rate_limit_headers(rates(self._clock(), self.asks))


class _Plan(NamedTuple):
    """What binds the requests of one key."""

    key: Key
    subjects: tuple[Subject, ...]
    buckets: tuple[Bucket, ...]


class MemoryLimiter:
    """See `Limiter`."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], int],
        *,
        keep: Keep = EVERY_FIELD,
        share: int = 1,
        counters: LimiterCounters | None = None,
    ) -> None:
        """`clock` gives microseconds since 1970. `keep` and `share`: see `Policy`."""
        self.counters = counters or LimiterCounters("memory")
        self._limits = limits
        self._clock = clock
        self._keep = keep
        self._running = 0
        self._free = FreeLease()
        self._next_id = 0
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._sweep_at = _SWEEP_FROM
        self.resize(share)

    def resize(self, share: int) -> None:
        """Enforce one process's part of the limits, of so many processes."""
        self._share = share
        self._policy = Policy(self._limits, self._keep, share)
        self._plans: dict[str, _Plan] = {}
        self._models = {
            name: (subject, self._bucket(subject)) for name, subject in self._policy.models.items()
        }

    def reload(self, limits: Limits, keep: Keep = EVERY_FIELD) -> None:
        """From now on these limits hold; what was used counts on."""
        self._limits, self._keep = limits, keep
        self.resize(self._share)

    def restore(self, spent: Iterable[Spent]) -> None:
        """Count what was spent before this process began. Before the first reservation."""
        now = self._clock()
        for found in spent:
            name = (found.kind, found.name)
            bucket = self._buckets.get(name)
            if bucket is None:
                self._buckets[name] = bucket = Bucket(Bounds())
            bucket.restore(now, found.day, found.on_day, found.in_month)

    @property
    def in_use(self) -> int:
        """Leases that are out."""
        return self._running

    @property
    def subjects(self) -> int:
        """Subjects that are remembered."""
        return len(self._buckets)

    async def reserve(self, key: Key, demand: Demand) -> Lease | Problem:
        """See `Limiter`. Never waits."""
        if self._running >= self._limits.max_concurrent:
            self.counters.count_refusal("gateway", Dimension.CONCURRENT)
            return gateway_full(self._running)
        return self.take(key, demand)

    def take(self, key: Key, demand: Demand) -> Lease | Problem:
        """Reserve without asking whether the process is full."""
        plan = self._plans.get(key.id)
        if plan is None or (plan.key is not key and plan.key != key):
            plan = self._plan(key)
        buckets = plan.buckets
        if self._models and demand.model in self._models:
            buckets = (*buckets, self._models[demand.model][1])
        if not buckets:
            self._running += 1
            return self._free
        return self._take(plan, buckets, demand)

    def settle(self, lease: Lease, usage: Usage | None) -> None:
        """See `Limiter`."""
        self._running -= 1
        if not isinstance(lease, MemoryLease):
            return
        now, number = self._clock(), lease.id
        if usage is None:
            for bucket, token_us in lease.asks:
                bucket.settle(now, -bucket.request_us, -token_us, number, 0)
            return
        tokens = usage.prompt_tokens + usage.completion_tokens
        spent = 0 if lease.price is FREE else cost_micro(lease.price, usage)
        for bucket, token_us in lease.asks:
            bucket.settle(now, 0, int(tokens * bucket.us_per_token) - token_us, number, spent)

    async def start(self) -> None:
        """See `Limiter`."""

    async def aclose(self) -> None:
        """See `Limiter`."""

    def _take(self, plan: _Plan, buckets: tuple[Bucket, ...], demand: Demand) -> Lease | Problem:
        output, price = demand.max_tokens, demand.price
        if output is None:
            output = self._limits.default_output_tokens
        tokens = demand.prompt_tokens + output
        worst = 0 if price is FREE else worst_case_micro(price, demand.prompt_tokens, output)
        asks: Asks = []
        suspicious = False
        for bucket in buckets:
            token_us = int(tokens * bucket.us_per_token)
            asks.append((bucket, token_us))
            if token_us > WINDOW_US or (worst and bucket.budgeted):
                suspicious = True
        if suspicious:
            found = never_fits(self._subjects(plan, demand), demand, worst)
            if found is not None:
                return found
            asks = [(bucket, min(token_us, WINDOW_US)) for bucket, token_us in asks]
        now = self._clock()
        self._next_id = lease = self._next_id + 1
        refusal = reserve(now, asks, worst, lease, FOREVER_US)
        if refusal is not None:
            return self._refused(self._subjects(plan, demand), refusal, rates(now, asks))
        self._running += 1
        return MemoryLease(self._clock, lease, asks, price)

    def _refused(self, subjects: tuple[Subject, ...], refusal: Refusal, state: RateState) -> Problem:
        subject = subjects[refusal.subject]
        self.counters.count_refusal(subject.kind, refusal.dimension)
        return refused(subject, refusal.dimension, refusal.wait_us, state)

    def _subjects(self, plan: _Plan, demand: Demand) -> tuple[Subject, ...]:
        found = self._models.get(demand.model)
        return plan.subjects if found is None else (*plan.subjects, found[0])

    def _plan(self, key: Key) -> _Plan:
        if max(len(self._plans), len(self._buckets)) >= self._sweep_at:
            self._sweep()
        subjects = self._policy.of(key)
        plan = _Plan(key, subjects, tuple(self._bucket(subject) for subject in subjects))
        self._plans[key.id] = plan
        return plan

    def _bucket(self, subject: Subject) -> Bucket:
        name = (subject.kind, subject.name)
        bucket = self._buckets.get(name)
        if bucket is None:
            self._buckets[name] = bucket = Bucket(subject.bounds)
        else:
            bucket.bind(subject.bounds)
        return bucket

    def _sweep(self) -> None:
        """Forget who has nothing in use. At twice what is left it is time again: a constant cost each."""
        now = self._clock()
        bound_models = {("model", name) for name in self._models}
        self._buckets = {
            name: bucket
            for name, bucket in self._buckets.items()
            if name in bound_models or not bucket.idle(now)
        }
        self._plans = {}
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._buckets))


def rates(now: int, asks: Asks) -> RateState:
    """What the buckets have left, the tightest of each kind. Written out, since every answer shows it."""
    requests = tokens = None
    fewest_requests = fewest_tokens = 0
    for bucket, _ in asks:
        bounds = bucket.bounds
        limit = bounds.requests
        if limit is not None:
            used_us = bucket.request_tat - now if bucket.request_tat > now else 0
            left = (WINDOW_US - used_us) * limit // WINDOW_US
            if requests is None or left < fewest_requests:
                requests, fewest_requests = (limit, used_us), left
        limit = bounds.tokens
        if limit is not None:
            used_us = bucket.token_tat - now if bucket.token_tat > now else 0
            left = (WINDOW_US - used_us) * limit // WINDOW_US
            if tokens is None or left < fewest_tokens:
                tokens, fewest_tokens = (limit, used_us), left
    return RateState(
        at_us=now,
        requests=None if requests is None else Level(requests[0], max(0, fewest_requests), requests[1]),
        tokens=None if tokens is None else Level(tokens[0], max(0, fewest_tokens), tokens[1]),
    )
