"""What one endpoint has been given and not finished, in tokens; and what the engine itself says of that.

Every placed request has a `Lease`: the prompt tokens it has to compute, the output it is expected to make,
its work. Invariant: every sum is exactly the sum over the leases that are open; all are whole numbers, so
giving back refunds to the last token, whatever the order. Prompt tokens count as queued until the first token
came; for answers that are not streamed, where nobody sees it, until it was due.

There are two views, and each signal has one writer. The ledger knows at once what this gateway sent, but
neither other gateways nor shared prefixes; the engine knows both, but late. A reading is therefore kept with
what was taken and given back since, and the larger view holds. Of a prefix that many requests share the
engine holds one copy: when the prompts in the ledger differ from what it says by more than `DRIFT` for
`DRIFTS` readings running, they are rescaled to it; never above what was counted, and never the output that is
still to come. What a reading lacks is unknown, not zero: it then bounds nothing, and the ledger alone is
asked. So does a reading that is older than `ttl_s`.

Does not know time but by the numbers passed in (seconds), nor which request a lease belongs to.
"""

from __future__ import annotations

from heapq import heappop, heappush

from sluice_router.types import EngineLoad

DRIFT = 0.15
DRIFTS = 3
DRIFT_EVERY_S = 0.2
"""Readings that come faster, for instance with every answer, count as one."""
NOTICEABLE = 0.05
"""Share of the KV cache that computed prompts have to fill before its drift says anything."""
LEAST_SHARE = 0.05
"""Of the counted prompt tokens, however much of them the engine shares."""
_MEAN_WEIGHT = 0.1
SPEED_EVERY_S = 0.5
"""Seconds of readings by which it is told how fast the engine is: its counters grow by whole prompts."""
_SPEED_WEIGHT = 0.2


class Lease:
    """What one placed request holds of an endpoint."""

    __slots__ = (
        "ahead_tokens",
        "batch",
        "first_token_at",
        "new_tokens",
        "open",
        "output_tokens",
        "placed_at",
        "queued",
        "work",
    )

    def __init__(self, new_tokens: int, output_tokens: int, work: int, placed_at: float) -> None:
        self.new_tokens = new_tokens
        """Prompt tokens to compute: those that no cached prefix covers."""
        self.output_tokens = output_tokens
        """Expected."""
        self.work = work
        self.placed_at = placed_at
        self.ahead_tokens = 0
        """Prompt tokens that were queued before its own when it was placed."""
        self.batch = 0
        """Requests that were on the endpoint when it was placed."""
        self.first_token_at: float | None = None
        self.open = True
        self.queued = True
        """Its prompt is not computed yet."""


class WorkLedger:
    """The leases of one endpoint, and its last reading."""

    __slots__ = (
        "_base",
        "_base_at",
        "_base_queued",
        "_changed_kv",
        "_changed_queued",
        "_changed_running",
        "_drifts",
        "_due",
        "_inflow",
        "_judged_at",
        "_load",
        "_load_at",
        "_mean_new",
        "_open",
        "_others_tokens",
        "_output_tokens",
        "_placed_since",
        "_prompt_tokens",
        "_queued_leases",
        "_queued_output",
        "_queued_tokens",
        "_said_kv",
        "_said_present",
        "_said_queued",
        "_said_uncached",
        "_said_waiting",
        "_taken",
        "_ttl_s",
        "alone",
        "hit_share",
        "leases",
        "placed_tokens",
        "prefill_tokens_per_s",
        "shared",
        "work",
    )

    def __init__(self, ttl_s: float) -> None:
        """`ttl_s`: age at which a reading stops counting."""
        self._ttl_s = ttl_s
        self.leases = 0
        """Open ones."""
        self.work = 0
        """Theirs, added up."""
        self.shared = 1.0
        """Share of the counted prompt tokens that the engine really holds."""
        self._prompt_tokens = 0
        self._output_tokens = 0
        self._queued_tokens = 0
        self._queued_output = 0
        self._queued_leases = 0
        self._mean_new = 0.0
        self._open: dict[Lease, None] = {}
        """The open leases, in the order in which they were taken."""
        self._due: list[tuple[float, int, Lease]] = []
        self._taken = 0
        self._load: EngineLoad | None = None
        self._load_at = 0.0
        # What it says, as it is needed for every decision: a reading is asked far more often than made.
        self._said_kv: int | None = None
        self._said_present: int | None = None
        self._said_uncached: int | None = None
        self._said_waiting: int | None = None
        self._others_tokens = 0
        self._said_queued = 0
        self.hit_share = 0.0
        """Of the prompt tokens of all its requests, lately, that were in its cache."""
        self._base: EngineLoad | None = None
        self._base_at = 0.0
        self._base_queued = 0
        self._placed_since = 0
        self._inflow = 0.0
        """Prompt tokens that others send in a second."""
        self.alone = True
        """No other gateway sends here. The owner's to set, like"""
        self.prefill_tokens_per_s = 0.0
        """how fast the engine computes prompts; 0 while that is unknown."""
        self.placed_tokens = 0
        """Prompt tokens that were placed since the reading."""
        self._drifts = 0
        self._judged_at = -DRIFT_EVERY_S
        self._changed_kv = self._changed_queued = self._changed_running = 0

    # Leases

    def take(self, lease: Lease, due_s: float | None = None) -> None:
        """A request was placed. `due_s`: seconds after which its first token has come without being seen."""
        now = lease.placed_at
        lease.ahead_tokens = self.new_tokens_queued(now)
        lease.batch = self.running(now)
        self._open[lease] = None
        self.leases += 1
        self.work += lease.work
        self._prompt_tokens += lease.new_tokens
        self._output_tokens += lease.output_tokens
        self._queued_tokens += lease.new_tokens
        self._queued_output += lease.output_tokens
        self._queued_leases += 1
        self._taken += 1
        self._changed_kv += lease.new_tokens + lease.output_tokens
        self.placed_tokens += lease.new_tokens
        self._placed_since += lease.new_tokens
        self._changed_queued += lease.new_tokens
        self._changed_running += 1
        self._mean_new += _MEAN_WEIGHT * (lease.new_tokens - self._mean_new)
        if due_s is not None:
            heappush(self._due, (now + due_s, self._taken, lease))

    def first_token(self, lease: Lease) -> None:
        """Its prompt is computed. Idempotent."""
        if lease.queued:
            lease.queued = False
            self._queued_tokens -= lease.new_tokens
            self._queued_output -= lease.output_tokens
            self._queued_leases -= 1
            self._changed_queued -= lease.new_tokens

    def give_back(self, lease: Lease) -> None:
        """The request has left the endpoint. Idempotent."""
        if not lease.open:
            return
        self.first_token(lease)
        lease.open = False
        del self._open[lease]
        self.leases -= 1
        self.work -= lease.work
        self._prompt_tokens -= lease.new_tokens
        self._output_tokens -= lease.output_tokens
        self._changed_kv -= lease.new_tokens + lease.output_tokens
        self._changed_running -= 1
        if not self.leases:
            self._due.clear()

    @property
    def oldest_at(self) -> float | None:
        """When the lease that has been open longest was taken; `None` when none is."""
        return next(iter(self._open)).placed_at if self._open else None

    # The engine's view

    def record(self, load: EngineLoad, now: float) -> bool:
        """Take the engine's reading. Whether it shows that the engine was started anew: counters fell."""
        self._pass(now)
        before, self._load, self._load_at = self._load, load, now
        self._say(load)
        self._note_others()
        if self._base is None or now - self._base_at >= SPEED_EVERY_S:
            if self._base is not None and now - self._base_at <= self._ttl_s:
                self._learn_speed(self._base, load, now - self._base_at)
            self._base, self._base_at, self._base_queued = load, now, self._said_queued
            self._placed_since = 0
        self._changed_kv = self._changed_queued = self._changed_running = self.placed_tokens = 0
        restarted = before is not None and _fell(before, load)
        if restarted:
            self._base = None
            self.prefill_tokens_per_s = self.hit_share = self._inflow = 0.0
            self.shared = 1.0
            self._drifts = 0
        if now - self._judged_at >= DRIFT_EVERY_S:
            self._judged_at = now
            self._reconcile(load)
        return restarted

    def new_tokens_queued(self, now: float) -> int:
        """Prompt tokens that the endpoint has to compute before those of a newcomer."""
        if self._due:
            self._pass(now)
        if self._load is None or now - self._load_at > self._ttl_s:
            return self._queued_tokens
        rate = self.prefill_tokens_per_s
        if self.alone or not rate:
            return self._queued_tokens + self._others_tokens
        here = self._said_queued + self.placed_tokens + (self._inflow - rate) * (now - self._load_at)
        return max(self._queued_tokens, round(here))

    def room_tokens(self, queued_s: float, now: float) -> float | None:
        """Prompt tokens for which the engine had room at the reading, or has made room since, if `queued_s`
        seconds of them may be queued; `None` when that is unknown."""
        rate = self.prefill_tokens_per_s
        if not rate or self._load is None or now - self._load_at > self._ttl_s:
            return None
        return max(0.0, rate * (queued_s + now - self._load_at) - self._said_queued)

    def running(self, now: float) -> int:
        """Requests on the endpoint, whoever sent them."""
        present = self._said_present
        if present is None or now - self._load_at > self._ttl_s:
            return self.leases
        return max(self.leases, present + self._changed_running)

    def kv_tokens(self, now: float) -> int:
        """Tokens that are in the KV cache or will be when those here have ended."""
        counted, held = self._counted_kv(), self._said_kv
        if held is None or now - self._load_at > self._ttl_s:
            return counted
        return max(counted, held + self._changed_kv)

    def kv_capacity_tokens(self) -> int | None:
        """Tokens that the KV cache holds, by the last reading, however old: it does not change while an
        engine runs. `None` when the engine does not say."""
        return None if self._load is None else self._load.kv_capacity_tokens

    def kv_used_ratio(self, now: float) -> float | None:
        """Share of the KV cache that is spoken for; above 1 when more was placed than fits. `None` when
        that is unknown."""
        capacity = self.kv_capacity_tokens()
        if capacity:
            return self.kv_tokens(now) / capacity
        load = self._fresh(now)
        return None if load is None else load.kv_used_ratio

    def max_running(self, now: float) -> int | None:
        """Requests that the engine computes at once; `None` when it does not say."""
        load = self._fresh(now)
        return None if load is None else load.max_running

    def reading_age_s(self, now: float) -> float | None:
        """Age of the last reading; `None` when there never was one."""
        return None if self._load is None else now - self._load_at

    def _pass(self, now: float) -> None:
        """Count the prompts as computed whose first token was due."""
        due = self._due
        while due and due[0][0] <= now:
            self.first_token(heappop(due)[2])

    def _fresh(self, now: float) -> EngineLoad | None:
        load = self._load
        return None if load is None or now - self._load_at > self._ttl_s else load

    def _say(self, load: EngineLoad) -> None:
        """Take a reading apart."""
        ratio, capacity = load.kv_used_ratio, load.kv_capacity_tokens
        self._said_kv = None if ratio is None or not capacity else round(ratio * capacity)
        self._said_present = None if load.running is None else load.running + (load.waiting or 0)
        self._said_uncached = load.waiting_uncached_tokens
        self._said_waiting = load.waiting

    def _note_others(self) -> None:
        """Tell from what is queued what others have queued."""
        self._others_tokens = max(0, self._queued_there() - self._queued_tokens)
        self._said_queued = self._others_tokens + self._queued_tokens

    def _queued_there(self) -> int:
        """Prompt tokens that the engine says it has to compute."""
        if self._said_uncached is not None:
            return self._said_uncached
        # Nobody says how long others' prompts are: as long as ours.
        waiting = (self._said_waiting or 0) - self._queued_leases
        return self._queued_tokens + round(waiting * self._mean_new)

    def _learn_speed(self, before: EngineLoad, load: EngineLoad, elapsed_s: float) -> None:
        """How fast the engine computes prompts, and others send them, by what its counters grew by."""
        queued, there = self._said_queued, self._base_queued + self._placed_since
        computed = _grown(before.prefix_queried_tokens, load.prefix_queried_tokens)
        if computed is None:
            speed = min(float(there), self.prefill_tokens_per_s * elapsed_s) / elapsed_s
        else:
            asked, found = computed, _grown(before.prefix_hit_tokens, load.prefix_hit_tokens) or 0
            speed = max(0, asked - found) / elapsed_s
            if asked:
                self.hit_share += _SPEED_WEIGHT * (min(1.0, found / asked) - self.hit_share)
            if self._base_queued and queued:  # it was never idle
                self.prefill_tokens_per_s += _SPEED_WEIGHT * (speed - self.prefill_tokens_per_s)
            self.prefill_tokens_per_s = max(self.prefill_tokens_per_s, speed)
        inflow = max(0.0, (queued - there) / elapsed_s + speed)
        self._inflow += _SPEED_WEIGHT * (inflow - self._inflow)

    def _counted_kv(self) -> int:
        if self.shared == 1.0:
            return self._prompt_tokens + self._output_tokens
        return round(self.shared * self._prompt_tokens) + self._output_tokens

    def _reconcile(self, load: EngineLoad) -> None:
        """Learn which share of the prompts the engine holds, if it has long been another than believed.

        Prompts that are still queued may not be in its cache yet, so only the computed ones are compared; of
        their expected output half is taken to be there.
        """
        capacity = load.kv_capacity_tokens
        computed = self._prompt_tokens - self._queued_tokens
        if load.kv_used_ratio is None or not capacity or computed < NOTICEABLE * capacity:
            self._drifts = 0
            return
        held = load.kv_used_ratio * capacity - (self._output_tokens - self._queued_output) / 2
        share = min(1.0, max(LEAST_SHARE, held / computed))
        if abs(share - self.shared) <= DRIFT * self.shared:
            self._drifts = 0
            return
        self._drifts += 1
        if self._drifts >= DRIFTS:
            self.shared = share
            self._drifts = 0


def _grown(before: int | None, after: int | None) -> int | None:
    """By how much a counter has; `None` when the engine does not count that."""
    return None if before is None or after is None else max(0, after - before)


def _fell(before: EngineLoad, after: EngineLoad) -> bool:
    """Whether a counter is smaller than it was. One that is not there says nothing."""
    return (
        _less(after.prompt_tokens, before.prompt_tokens)
        or _less(after.generation_tokens, before.generation_tokens)
        or _less(after.ttft_count, before.ttft_count)
        or _less(after.preemptions, before.preemptions)
    )


def _less(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one < other
