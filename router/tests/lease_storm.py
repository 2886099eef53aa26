"""Thousands of requests on a few engines, to which everything happens that can: are all leases given back?

Events are random: arrivals, first tokens, ends, failures of every class, retries, second attempts and how
they end, clients that leave while they wait or are served, engines that crash, fall ill, drain, change their
models or are started anew, breakers that are forced, readings, and time that passes. `audit` compares what
the router counts with sums over the tickets that are open; `end` closes all of them and looks whether
anything is left.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.breaker import BreakerState
from sluice_router.failure import Failover
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import (
    PRIORITIES,
    Choice,
    Endpoint,
    EngineLoad,
    FailureClass,
    RequestFacts,
    Usage,
)
from sluice_router.work_ledger import Lease

MODELS = ("large", "small")
ALIAS = (Choice(model="large"), Choice(model="small"))
FAILURES = tuple(FailureClass)
EVENTS = {
    "first_token": 300,
    "settle": 130,
    "fail": 12,
    "leave": 40,
    "retry": 20,
    "hedge": 40,
    "hedge_answers": 6,
    "hedge_fails": 3,
    "read": 20,
    "look": 10,
    "flip": 3,
    "crash": 0.1,
}
"""Weights of what happens to requests and engines; arrivals come as they are needed."""


class LeaseStorm:
    """One router, and the books of whoever uses it."""

    def __init__(self, seed: int, wanted: int = 5600, engines: int = 9, slots: int = 1000) -> None:
        """`wanted`: requests that are to be on the engines at once, `slots` of each."""
        self.random = Random(seed)
        self.wanted = wanted
        self.endpoints = [
            Endpoint(
                id=f"e{number}",
                backend="gpu" if number % 2 else "cpu",
                url=f"http://e{number}",
                models=MODELS if number else (),
                max_in_flight=slots,
                hedging=True,
            )
            for number in range(engines)
        ]
        self.router = Router(
            self.endpoints,
            max_queue=400,
            queue_timeout_s=3.0,
            failover=Failover(breaker_failures=8, breaker_open_s=2.0, retry_ratio=0.5),
            admission=AdmissionPolicy(
                queued_prefill_s=60.0, max_queue_tokens=500_000, max_queue_bytes=4_000_000
            ),
            random=self.random.random,
            prefix_blocks=20_000,
            hedge_share=0.1,
        )
        self.now = 0.0
        self.open: list[Ticket] = []
        """Not known to be closed yet."""
        self.hedged: list[Ticket] = []
        """Those that may have a second attempt."""
        self.admitted = 0
        self.announced = 0
        self.events = Counter[str]()
        self.on_engines = 0
        """At the last audit; and over all audits:"""
        self.audits = self.at_least_wanted = self.most = 0
        self._names = list(EVENTS)
        self._weights = list(EVENTS.values())
        self._tokens = {endpoint.id: 0 for endpoint in self.endpoints}

    def run(self, events: int, audit_every: int = 2000) -> None:
        """Have so much happen. Raises `AssertionError` when the books differ."""
        room = 0
        for number in range(events):
            self.now += self.random.expovariate(400.0)
            if number % audit_every == 0:
                self.audit()
            if number % 50 == 0:
                room = self.wanted - self._placed()
            if self.random.random() < (0.65 if room > 0 else 0.25):
                self._happen("arrive")
            else:
                self._happen(self.random.choices(self._names, self._weights)[0])
        self.audit()

    def _placed(self) -> int:
        return sum(replica.in_flight for replica in self.router._replicas.values())

    def _happen(self, name: str) -> None:
        self.events[name] += 1
        getattr(self, f"_{name}")()

    # What happens

    def _arrive(self) -> None:
        random = self.random
        tokens = random.randint(1, 3000)
        group = random.randrange(200)
        alias = random.random() < 0.1
        facts = RequestFacts(
            request_id="r",
            kind="chat",
            model="alias" if alias else random.choice(MODELS),
            choices=ALIAS if alias else (),
            tenant=f"t{random.randrange(6)}",
            weight=random.choice((1.0, 2.0)),
            backend=random.choice((None, None, "gpu", "cpu")),
            prefer=random.random() < 0.5,
            priority=random.choice(PRIORITIES),
            session=f"s{group}" if random.random() < 0.2 else None,
            stream=random.random() < 0.7,
            prompt_tokens_estimate=tokens,
            max_tokens=random.randint(1, 500),
            body_bytes=4 * tokens,
            ttft_budget_s=random.choice((None, None, None, 5.0)),
            prefix=tuple((group * 64 + block + 1) << 40 for block in range(min(tokens // 64, 8))),
            repeatable=True,
        )
        self.open.append(self.router.admit(facts, self.now, self._told))
        self.admitted += 1

    def _told(self) -> None:
        self.announced += 1

    def _any(self) -> Ticket | None:
        """A ticket that is open; those that are not are forgotten when they are met."""
        while self.open:
            place = int(self.random.random() * len(self.open))
            ticket = self.open[place]
            if not ticket.closed:
                return ticket
            self.open[place] = self.open[-1]
            self.open.pop()
        return None

    def _newest(self) -> Ticket | None:
        """One of the last that came."""
        if not self.open:
            return None
        ticket = self.open[-1 - int(self.random.random() * min(20, len(self.open)))]
        return None if ticket.closed else ticket

    def _first_token(self) -> None:
        ticket = self._newest() if self.random.random() < 0.8 else self._any()
        if ticket is not None:
            ticket.first_token(self.now)

    def _settle(self) -> None:
        if (ticket := self._any()) is not None:
            used = Usage(
                prompt_tokens=self.random.randint(1, 3000), completion_tokens=self.random.randint(0, 40)
            )
            ticket.settle(self.now, self.random.choice((used, used, None)))
            if self.random.random() < 0.1:
                ticket.settle(self.now, used, FailureClass.BROKEN)  # again, which has no effect

    def _fail(self) -> None:
        if (ticket := self._any()) is not None:
            ticket.settle(self.now, None, self.random.choice(FAILURES))

    def _leave(self) -> None:
        if (ticket := self._any()) is not None:
            ticket.cancel(self.now)

    def _retry(self) -> None:
        if (ticket := self._any()) is not None:
            ticket.retry(self.now, self.random.choice(FAILURES), self._told)

    def _hedge(self) -> None:
        """As if it had been learned that this one is late."""
        ticket = self._any()
        if ticket is not None:
            self.router.hedges.due_at(ticket, self.now)
            ticket.late_at = self.now
            if self.router.hedges.begin(ticket, self.now) is not None:
                self.events["hedged"] += 1
                self.hedged.append(ticket)

    def _hedge_answers(self) -> None:
        if (ticket := self._hedged()) is not None:
            self.router.hedges.won(ticket, self.now)
            ticket.first_token(self.now)

    def _hedge_fails(self) -> None:
        if (ticket := self._hedged()) is not None:
            self.router.hedges.failed(ticket, self.random.choice(FAILURES), self.now)

    def _hedged(self) -> Ticket | None:
        """The last one that has a second attempt under way."""
        while self.hedged and self.hedged[-1].second is None:
            self.hedged.pop()
        return self.hedged[-1] if self.hedged else None

    def _endpoint(self) -> str:
        return self.random.choice(self.endpoints).id

    def _read(self) -> None:
        """A reading, now and then of an engine that was started anew."""
        endpoint, random = self._endpoint(), self.random
        self._tokens[endpoint] = (
            0 if random.random() < 0.02 else self._tokens[endpoint] + random.randint(0, 999)
        )
        load = EngineLoad(
            running=random.choice((None, random.randint(0, 900))),
            waiting=random.choice((None, 0, random.randint(0, 30))),
            waiting_uncached_tokens=random.choice((None, random.randint(0, 9000))),
            max_running=random.choice((None, 950)),
            kv_used_ratio=random.choice((None, random.random())),
            kv_capacity_tokens=random.choice((None, 4_000_000)),
            prompt_tokens=self._tokens[endpoint],
        )
        self.router.record_load(endpoint, load, self.now)

    def _look(self) -> None:
        self.router.expire(self.now)

    def _flip(self) -> None:
        """Somebody, or a probe, changes what an endpoint may be given. Mostly for the better."""
        endpoint, random, router = self._endpoint(), self.random, self.router
        kind = random.randrange(4)
        if kind == 0:
            router.set_health(endpoint, random.random() < 0.8, self.now)
        elif kind == 1:
            router.set_draining(endpoint, random.random() < 0.15, self.now)
        elif kind == 2:
            state = random.choice((None, None, None, BreakerState.CLOSED, BreakerState.OPEN))
            router.force_breaker(endpoint, state, self.now)
        else:
            models = random.choice((MODELS, MODELS, (), MODELS[:1]))
            router.set_models(endpoint, models, self.now)

    def _crash(self) -> None:
        """All that an engine has, fails; some of it is tried elsewhere. It is well again soon."""
        endpoint = self._endpoint()
        self.router.set_health(endpoint, False, self.now)
        for ticket in list(self.open):
            if not ticket.closed and ticket.endpoint is not None and ticket.endpoint.id == endpoint:
                if self.random.random() < 0.5:
                    ticket.retry(self.now, FailureClass.BROKEN, self._told)
                else:
                    ticket.settle(self.now, None, FailureClass.BROKEN)
            elif ticket.second is not None and ticket.second.endpoint.id == endpoint:
                self.router.hedges.failed(ticket, FailureClass.BROKEN, self.now)
        self.router.set_health(endpoint, True, self.now)

    # The books

    def leases(self) -> dict[str, list[Lease]]:
        """What the open tickets hold, by endpoint."""
        held: dict[str, list[Lease]] = {endpoint.id: [] for endpoint in self.endpoints}
        for ticket in self.open:
            if not ticket.closed and ticket.endpoint is not None and ticket.lease is not None:
                held[ticket.endpoint.id].append(ticket.lease)
            if ticket.second is not None:
                held[ticket.second.endpoint.id].append(ticket.second.lease)
        return held

    def audit(self) -> None:
        """Compare. Raises `AssertionError`."""
        router, held = self.router, self.leases()
        for name, leases in held.items():
            replica = router._replicas[name]
            ledger = replica.ledger
            assert all(lease.open for lease in leases)
            assert len({id(lease) for lease in leases}) == len(leases)
            assert set(ledger._open) == set(leases), "the very same"
            assert ledger.leases == replica.in_flight == len(leases) <= replica.endpoint.max_in_flight
            assert ledger.work == sum(lease.work for lease in leases)
            assert ledger._prompt_tokens == sum(lease.new_tokens for lease in leases)
            assert ledger._output_tokens == sum(lease.output_tokens for lease in leases)
            assert ledger._queued_tokens == sum(lease.new_tokens for lease in leases if lease.queued)
            assert ledger._queued_leases == sum(lease.queued for lease in leases)
            assert ledger.oldest_at == min((lease.placed_at for lease in leases), default=None)
        waiting = [t for t in self.open if t.decision is None]
        room, snapshot = router._room, router.snapshot()
        assert len(room) == len(waiting)
        assert (room.tokens, room.work, room.body_bytes) == (
            sum(t.cost.prompt_tokens for t in waiting),
            sum(t.cost.work for t in waiting),
            sum(t.facts.body_bytes for t in waiting),
        )
        placed = sum(not t.closed and t.endpoint is not None for t in self.open)
        assert self.admitted == snapshot.admitted == len(waiting) + placed + sum(snapshot.outcomes.values())
        self.on_engines = sum(len(leases) for leases in held.values())
        self.most = max(self.most, self.on_engines)
        self.audits += 1
        self.at_least_wanted += self.on_engines >= 5000

    def end(self) -> None:
        """Close all that is open, and look whether anything is left. Raises `AssertionError`."""
        tickets = list(self.open)
        self.random.shuffle(tickets)
        for ticket in tickets:
            ticket.settle(self.now, None, self.random.choice((None, FailureClass.CLIENT_GONE)))
        self.open.clear()
        self.audit()
        for replica in self.router._replicas.values():
            ledger = replica.ledger
            assert not ledger._open
            assert not ledger._due
            assert (ledger.work, ledger._counted_kv(), ledger._queued_output) == (0, 0, 0)
        queue = self.router._room._queue
        assert not any(
            getattr(queue, f"_{name}") for name in ("entries", "shelves", "turns", "crowds", "ends")
        )
        assert not self.router._room._own
        assert not self.router._room._sums
        assert not self.router._dispatcher._decided
