"""What the router knows of one endpoint: its own requests there, what they taught, and the engine's reading.

Invariant: `0 <= in_flight <= endpoint.max_in_flight`, and `in_flight` leases are open in the ledger. Does not
know which requests are in flight, nor why an endpoint is unhealthy: both are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from sluice_router.admission_policy import AdmissionPolicy, slack
from sluice_router.breaker import Breaker, BreakerState
from sluice_router.concurrency_limit import ConcurrencyLimit
from sluice_router.cost import Cost
from sluice_router.latency_model import LatencyModel
from sluice_router.neighbours import Neighbours
from sluice_router.service_model import ServiceModel
from sluice_router.snapshot import ReplicaSnapshot, SpeedSnapshot, WorkSnapshot
from sluice_router.types import Endpoint, EngineLoad, Usage
from sluice_router.work_ledger import Lease, WorkLedger

SERVICE_TIME_WEIGHT = 0.1
"""Weight of the newest request in the moving averages of service times."""
AHEAD_OF_SLOTS = 8
"""A request for every so many places of an engine's batch is sent before a place is free, so that none is
empty while the news that it is travels."""
TARGET = 0.5
"""Of the prompts that may be queued, what several gateways fill up to: they do not see each other's."""
_TOLD_FROM = 4
"""Output tokens from which the time between them says something."""


class Peers:
    """What the endpoints of one backend taught together, which stands in for what one has not taught yet."""

    __slots__ = ("latency", "service")

    def __init__(self) -> None:
        self.latency = LatencyModel()
        self.service = ServiceModel()


class Replica:
    """Mutable state of one endpoint. Only the router changes it."""

    __slots__ = (
        "_load",
        "_load_at",
        "_neighbours",
        "_part",
        "_policy",
        "_random",
        "_service",
        "_tells_load",
        "avoid_until",
        "breaker",
        "cached_tokens",
        "draining",
        "endpoint",
        "expected_tokens",
        "healthy",
        "in_flight",
        "last_placed",
        "latency",
        "ledger",
        "limit",
        "mean_service_s",
        "number",
        "recovered_at",
        "settled",
        "used",
        "waiting",
        "waiting_tokens",
        "waiting_work",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        breaker: Breaker,
        order: int = 0,
        *,
        number: int = 0,
        policy: AdmissionPolicy = AdmissionPolicy(),  # noqa: B008  (it is frozen)
        load_ttl_s: float = 10.0,
        peers: Peers | None = None,
        neighbours: Neighbours | None = None,
        random: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """Healthy and empty. `order` decides whose turn is first among replicas that never had one; `number`
        is its place in the configuration, from 0 on; `load_ttl_s` is the age at which a reading stops
        counting."""
        self.endpoint = endpoint
        self.number = number
        self.breaker = breaker
        self.ledger = WorkLedger(load_ttl_s)
        self.latency = LatencyModel(None if peers is None else peers.latency)
        self.limit = ConcurrencyLimit(endpoint.max_in_flight)
        self.healthy = True
        self.draining = False
        self.avoid_until = 0.0
        """Until then it is chosen last: it has just failed."""
        self.recovered_at = -inf
        """When it could serve again after it could not; it gets less than its share for a while."""
        self.expected_tokens = 0
        """Prompt tokens that were expected in its cache, of requests whose usage became known,"""
        self.cached_tokens = 0
        """and those that were there."""
        self.in_flight = 0
        self.last_placed = order
        self.mean_service_s: float | None = None
        self.settled = 0
        self.waiting = 0
        """Requests that wait in the gateway for this endpoint and no other,"""
        self.waiting_tokens = 0
        """the prompt tokens that they have to compute,"""
        self.waiting_work = 0
        """and their work."""
        self.used = [0, 0, 0]
        """Sums of prompt, completion and cached tokens."""
        self._policy = policy
        self._neighbours = Neighbours() if neighbours is None else neighbours
        self._random = random
        self._part = 0.0
        """Of the next request, how much has to fit into this gateway's part of the room."""
        self._service = ServiceModel(None if peers is None else peers.service)
        self._load: EngineLoad | None = None
        self._load_at = 0.0
        self._tells_load = False
        """The engine has said how busy it is. One whose pages have other numbers only is limited like one
        without any."""

    @property
    def usable(self) -> bool:
        """Whether it is worth waiting for: well, wanted, and not suspended."""
        return self.healthy and not self.draining and self.breaker.state is not BreakerState.OPEN

    @property
    def available(self) -> bool:
        """Whether it may be given one more request now, as far as their number goes."""
        if not self.healthy or self.draining or self.in_flight >= self.endpoint.max_in_flight:
            return False
        if not self._tells_load and self.in_flight >= self.limit.limit:
            return False
        breaker = self.breaker
        return breaker.state is BreakerState.CLOSED or breaker.permits

    def takes(self, cost: Cost, now: float) -> bool:
        """Whether it may be given this request now: it has room, which is this gateway's to fill
        (`neighbours.py`)."""
        if not self.available or not self.has_room(cost.footprint(), now):
            return False
        return self._neighbours.alone or self._is_ours(cost, now)

    def has_room(self, footprint: int, now: float) -> bool:
        """Whether there is room for a request that will hold so many tokens, whoever may take it.

        The batch has a place, or nearly (`AHEAD_OF_SLOTS`); what the request will hold
        fits the KV cache; and the prompts queued before it are computed soon (`queued_prefill_s`). Each
        bound holds only where the engine says, or the answers told, what it needs; and none of them for an
        endpoint that has no requests, since nothing would ever make more room there.
        """
        ledger = self.ledger
        running = ledger.running(now)
        if not running:
            return True
        places = ledger.max_running(now)
        if places is not None and running >= places + max(1, places // AHEAD_OF_SLOTS):
            return False
        capacity = ledger.kv_capacity_tokens()
        if capacity:
            if ledger.kv_tokens(now) + footprint > self._policy.kv_share * capacity:
                return False
        else:
            used = ledger.kv_used_ratio(now)
            if used is not None and used > self._policy.kv_share:
                return False
        ahead = ledger.new_tokens_queued(now)
        return not ahead or self.queue_s(ahead, running) <= self._policy.queued_prefill_s

    def queue_s(self, ahead: int, running: int) -> float:
        """Seconds for which so many queued prompt tokens keep a newcomer waiting; 0 while that is unknown.

        By the engine's own counters where other gateways send there as well: this one sees few of the first
        tokens, and does not know well what was before them.
        """
        ledger = self.ledger
        if ledger.alone or not ledger.prefill_tokens_per_s:
            return self.latency.queue_s(ahead, running)
        return ahead / ledger.prefill_tokens_per_s

    def expected_new(self, prompt_tokens: int, hit_tokens: int) -> int:
        """Prompt tokens to be computed of a request that all gateways send here: what others have sent is in
        the cache as well, and nothing is known of it but how much that is as a rule."""
        if self._neighbours.alone:
            return prompt_tokens - hit_tokens
        return min(prompt_tokens - hit_tokens, round(prompt_tokens * (1.0 - self.ledger.hit_share)))

    @property
    def shared(self) -> bool:
        """Whether other gateways send here as well."""
        return not self.ledger.alone

    def room_in_s(self, now: float, waiting_tokens: int) -> float:
        """Seconds until it has room for one before whom so many prompt tokens wait."""
        ledger = self.ledger
        ahead_s = self.queue_s(ledger.new_tokens_queued(now) + waiting_tokens, ledger.running(now))
        return max(0.0, ahead_s - self._policy.queued_prefill_s)

    def _is_ours(self, cost: Cost, now: float) -> bool:
        """Whether this gateway's part of the room that the engine makes is enough for a request."""
        ledger = self.ledger
        if not ledger.running(now):
            return True
        room = ledger.room_tokens(TARGET * self._policy.queued_prefill_s, now)
        if room is None:
            return True
        return self._neighbours.part(room) >= ledger.placed_tokens + self._part * self.expected_new(
            cost.prompt_tokens, 0
        )

    # What a newcomer would meet; placement reads these.

    def new_tokens_queued(self, now: float) -> int:
        """Prompt tokens to be computed before a newcomer's."""
        return self.ledger.new_tokens_queued(now)

    def running(self, now: float) -> int:
        """Requests that are there, whoever sent them."""
        return self.ledger.running(now)

    def kv_used_ratio(self, now: float) -> float | None:
        """Share of the KV cache that is spoken for; `None` when unknown."""
        return self.ledger.kv_used_ratio(now)

    def predicted_ttft_s(self, new_tokens: int, now: float) -> float | None:
        """Seconds to the first token of a request with so many uncached prompt tokens, were it placed now;
        `None` until `latency_model.MEASURED` first tokens were seen."""
        ledger = self.ledger
        return self.latency.ttft_s(new_tokens, ledger.new_tokens_queued(now), ledger.running(now))

    @property
    def measured(self) -> bool:
        """Whether enough requests have ended here for `drain_work_per_s` to be refused by."""
        return self._service.measured

    def drain_work_per_s(self, now: float) -> float:
        """Work of this gateway that leaves it in a second at its present occupancy; 0 while unknown.

        Where other gateways send as well, its share of all that is there counts: at many engines it has
        nothing just now, and they drain all the same.
        """
        ledger, neighbours = self.ledger, self._neighbours
        held = float(ledger.work)
        if not neighbours.alone:
            held = neighbours.share * ledger.running(now) * self._service.typical_work
        return self._service.drain_work_per_s(held)

    def slack(self, now: float) -> float:
        """Share of a budget that predictions here may fill, see `admission_policy.slack`."""
        return slack(self.ledger.reading_age_s(now))

    # What happens to it

    def record_load(self, load: EngineLoad, now: float) -> bool:
        """Keep the engine's reading taken at `now`. An engine that was started anew is learned anew; whether
        it was."""
        self._load, self._load_at = load, now
        ledger = self.ledger
        ledger.alone = self._neighbours.alone
        restarted = ledger.record(load, now)
        if load.running is not None:
            present = load.running + (load.waiting or 0)
            self._neighbours.note(ledger.leases, present, full=not self.has_room(0, now))
        if not self._neighbours.alone:
            self._part = self._random()
            if load.prefix_queried_tokens is None:
                ledger.prefill_tokens_per_s = self.latency.prefill_tokens_per_s(ledger.running(now)) or 0.0
        self._tells_load = says_how_busy(load) or (self._tells_load and not restarted)
        if restarted:
            self.latency.reset()
            self._service.reset()
        return restarted

    def reported_waiting(self, now: float, ttl_s: float) -> int:
        """Requests the engine said are waiting inside it; 0 when unknown or older than `ttl_s`."""
        if self._load is None or self._load.waiting is None or now - self._load_at > ttl_s:
            return 0
        return self._load.waiting

    def occupy(self, order: int, lease: Lease, *, seen: bool = True) -> None:
        """Take one slot. `order` grows with every placement and makes equals take turns; `seen`: whether the
        first token will be reported."""
        due_s = None if seen else self.predicted_ttft_s(lease.new_tokens, lease.placed_at)
        self.ledger.take(lease, due_s)
        self.in_flight += 1
        self.last_placed = order

    def first_token(self, lease: Lease, now: float) -> None:
        """Content of the request has come. Only the first time counts."""
        if lease.first_token_at is not None or not lease.open:
            return
        lease.first_token_at = now
        self.ledger.first_token(lease)
        ttft_s = now - lease.placed_at
        self.latency.learn_ttft(lease.new_tokens, lease.ahead_tokens, lease.batch, ttft_s)
        self.limit.note_ttft(lease.new_tokens, ttft_s)

    def overdue(self, lease: Lease, now: float) -> None:
        """The request is given up before its first token: learn that it would have taken longer than until
        now, if that is news."""
        waited_s = now - lease.placed_at
        expected_s = self.latency.ttft_s(lease.new_tokens, lease.ahead_tokens, lease.batch)
        if lease.first_token_at is None and expected_s is not None and waited_s > expected_s:
            self.latency.learn_ttft(lease.new_tokens, lease.ahead_tokens, lease.batch, waited_s)

    def vacate(self, lease: Lease) -> None:
        """Give back one slot."""
        self.ledger.give_back(lease)
        self.in_flight -= 1
        self.settled += 1

    def record_service(self, lease: Lease, usage: Usage | None, now: float, *, well: bool) -> None:
        """Learn from one request that ran until now, with `usage` if it became known. `well`: to its end.

        After `vacate`.
        """
        service_s = now - lease.placed_at
        if self.mean_service_s is None:
            self.mean_service_s = service_s
        else:
            self.mean_service_s += SERVICE_TIME_WEIGHT * (service_s - self.mean_service_s)
        self._service.learn(lease.work, service_s)
        if usage is None:
            return
        used = self.used
        used[0] += usage.prompt_tokens
        used[1] += usage.completion_tokens
        used[2] += usage.cached_tokens
        if well:
            self._learn_from(lease, usage, now)

    def _learn_from(self, lease: Lease, usage: Usage, now: float) -> None:
        first_s, made = lease.first_token_at, usage.completion_tokens
        if first_s is not None and made >= _TOLD_FROM:
            itl_s = (now - first_s) / (made - 1)
            self.latency.learn_itl((lease.batch + self.ledger.leases) / 2 + 1, itl_s)
            self.limit.note_itl(itl_s)
        if not self._tells_load:
            self.limit.update(self.in_flight + 1, now)

    def snapshot(self, now: float) -> ReplicaSnapshot:
        """A frozen copy."""
        prompt, completion, cached = self.used
        return ReplicaSnapshot(
            endpoint=self.endpoint,
            healthy=self.healthy,
            draining=self.draining,
            breaker=self.breaker.state,
            breaker_forced=self.breaker.forced,
            probe_at=self.breaker.half_open_at,
            failures=self.breaker.failures,
            in_flight=self.in_flight,
            load=self._load,
            load_at=None if self._load is None else self._load_at,
            mean_service_s=self.mean_service_s,
            settled=self.settled,
            expected_tokens=self.expected_tokens,
            cached_tokens=self.cached_tokens,
            usage=Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached),
            work=self._work_snapshot(now),
            speed=_speed(self.latency),
        )

    def _work_snapshot(self, now: float) -> WorkSnapshot:
        return WorkSnapshot(
            leases=self.ledger.leases,
            work=self.ledger.work,
            new_tokens_queued=self.new_tokens_queued(now),
            kv_tokens=self.ledger.kv_tokens(now),
            kv_used_ratio=self.kv_used_ratio(now),
            in_flight_limit=self.in_flight_limit,
            prefill_tokens_per_s=self.latency.prefill_tokens_per_s(0),
            itl_s=self.latency.itl_s(1.0),
            drain_work_per_s=self.drain_work_per_s(now),
            ttft_measured=self.latency.ttft_measured,
            oldest_lease_at=self.ledger.oldest_at,
        )

    @property
    def in_flight_limit(self) -> int:
        """Requests that may be on it at once."""
        limit = self.endpoint.max_in_flight
        return limit if self._tells_load else min(limit, self.limit.limit)


def _speed(latency: LatencyModel) -> SpeedSnapshot:
    ttft, itl = latency.ttft_line(), latency.itl_line()
    return SpeedSnapshot(
        ttft_base_s=None if ttft is None else ttft[0],
        own_token_s=None if ttft is None else ttft[1],
        queued_token_s=None if ttft is None else ttft[2],
        beside_token_s=None if ttft is None else ttft[3],
        itl_base_s=None if itl is None else itl[0],
        itl_request_s=None if itl is None else itl[1],
        itl_measured=latency.itl_measured,
    )


def says_how_busy(load: EngineLoad) -> bool:
    """Whether a reading bounds what may be sent: a page may be there and have none of it."""
    return (
        load.running is not None
        or load.waiting is not None
        or load.waiting_uncached_tokens is not None
        or load.kv_used_ratio is not None
    )
