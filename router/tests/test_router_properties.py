"""Whatever happens, in whatever order, the router keeps the promises at the top of its module."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from sluice_router import failure as failures
from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.breaker import BreakerState
from sluice_router.failure import Failover
from sluice_router.latency_model import MEASURED
from sluice_router.matching import candidates
from sluice_router.priority import classes
from sluice_router.router import Router
from sluice_router.targets import targets
from sluice_router.ticket import Ticket
from sluice_router.types import (
    PRIORITIES,
    Choice,
    Endpoint,
    EngineLoad,
    FailureClass,
    HedgeResult,
    Outcome,
    RequestFacts,
    Usage,
)

ENDPOINTS = (
    Endpoint(id="a", backend="worker", url="http://a", models=("tiny", "big"), max_in_flight=3, hedging=True),
    Endpoint(id="b", backend="worker", url="http://b", models=("tiny",), max_in_flight=1, hedging=True),
    Endpoint(id="c", backend="echo", url="http://c", max_in_flight=1, hedging=True),
)
HEDGE_SHARE = 0.25
MAX_QUEUE, TIMEOUT_S = 4, 10.0
FAILOVER = Failover(
    max_attempts=3,
    retry_ratio=0.1,
    retry_floor=1.0,
    breaker_failures=2,
    breaker_open_s=3.0,
    breaker_max_open_s=8.0,
)
ALIAS = (Choice(model="big", backend="worker"), Choice(model="tiny"))


MOSTLY = st.sampled_from([True, True, True, False])


FACTS = st.builds(
    lambda model, backend, prefer, priority, session, size, stream, budget, tenant, prefix: RequestFacts(
        request_id="r",
        kind="chat",
        tenant=tenant,
        weight=float(len(tenant)),
        model=model,
        backend=backend,
        prefer=prefer,
        choices=ALIAS if model == "alias" else (),
        priority=priority,
        session=session,
        stream=stream,
        prompt_tokens_estimate=size,
        body_bytes=4 * size,
        max_tokens=50,
        ttft_budget_s=budget,
        prefix=prefix,
        repeatable=True,
    ),
    model=st.sampled_from(["tiny", "tiny", "big", "unheard-of", "alias", "alias"]),
    backend=st.sampled_from([None, None, "worker", "echo"]),
    prefer=st.booleans(),
    priority=st.sampled_from(PRIORITIES),
    session=st.sampled_from([None, "s", "t"]),
    size=st.sampled_from([0, 10, 200, 900]),
    stream=st.booleans(),
    budget=st.sampled_from([None, None, None, 0.5]),
    tenant=st.sampled_from(["a", "a", "bb"]),
    prefix=st.sampled_from([(), (), (11 << 60,), (11 << 60, 7 << 59), (5 << 61,)]),
)
LOADS = st.builds(
    EngineLoad,
    running=st.none() | st.integers(0, 5),
    waiting=st.none() | st.integers(0, 50),
    waiting_uncached_tokens=st.none() | st.integers(0, 3000),
    max_running=st.none() | st.integers(1, 4),
    kv_used_ratio=st.none() | st.floats(0.0, 1.0),
    kv_capacity_tokens=st.sampled_from([None, 1000, 2000]),
    generation_tokens=st.none() | st.integers(0, 100),
)
POLICY = AdmissionPolicy(
    interactive_ttft_s=1.0, default_ttft_s=3.0, bulk_ttft_s=8.0, max_queue_tokens=2000, max_queue_bytes=7000
)
LONGEST_WAIT_S = max(classes(TIMEOUT_S, POLICY.deadlines_s).limits_s)


class Client:
    """A ticket with what its owner saw of it."""

    def __init__(self) -> None:
        self.ticket: Ticket | None = None
        self.waits = 0
        """Times it was left waiting."""
        self.rung = 0
        self.left = False
        self.cancels_when_rung: Client | None = None


class RouterMachine(RuleBasedStateMachine):
    clients = Bundle("clients")

    @initialize()
    def start(self) -> None:
        self.now = self.looked_at = 0.0
        self.router = Router(
            ENDPOINTS,
            max_queue=MAX_QUEUE,
            queue_timeout_s=TIMEOUT_S,
            failover=FAILOVER,
            admission=POLICY,
            hedge_share=HEDGE_SHARE,
        )
        self.all: list[Client] = []
        self.healthy = {e.id: True for e in ENDPOINTS}
        self.draining = {e.id: False for e in ENDPOINTS}
        self.models = {e.id: e.models for e in ENDPOINTS}
        self.placed_before: set[tuple[float, int]] = set()
        self.retries_granted = 0
        self.hedges_begun = 0
        self.last_permit = {e.id: 0 for e in ENDPOINTS}

    def ring(self, client: Client):
        def notify() -> None:
            assert client.ticket is not None, "notified before admit returned"
            assert client.ticket.decision is not None
            client.rung += 1
            if client.cancels_when_rung is not None:
                client.cancels_when_rung.left = True
                client.cancels_when_rung.ticket.cancel(self.now)

        return notify

    @rule(target=clients, facts=FACTS)
    def admit(self, facts: RequestFacts) -> Client:
        client = Client()
        client.ticket = self.router.admit(facts, self.now, self.ring(client))
        client.waits += client.ticket.decision is None
        self.all.append(client)
        return client

    @rule(target=clients, facts=FACTS, number=st.integers(2, 6))
    def a_crowd_arrives(self, facts: RequestFacts, number: int):
        return multiple(*(self.admit(facts) for _ in range(number)))

    @rule(client=clients, failure=st.none() | st.sampled_from(list(FailureClass)))
    def settle(self, client: Client, failure: FailureClass | None) -> None:
        client.left |= client.ticket.decision is None
        client.ticket.settle(self.now, Usage(completion_tokens=1), failure)

    @rule(endpoint=st.sampled_from("abc"), retried=st.booleans())
    def an_engine_crashes(self, endpoint: str, retried: bool) -> None:
        for client in self.all:
            ticket = client.ticket
            if not ticket.closed and ticket.endpoint is not None and ticket.endpoint.id == endpoint:
                if retried:
                    self.retry(client, FailureClass.BROKEN)
                else:
                    ticket.settle(self.now, None, FailureClass.BROKEN)
                self.the_first_in_place_is_served_first()

    @rule(client=clients)
    def content_comes(self, client: Client) -> None:
        client.ticket.answered(self.now)

    @rule(client=clients)
    def cancel(self, client: Client) -> None:
        client.left = True
        client.ticket.cancel(self.now)

    @rule(client=clients)
    def its_first_token_is_late(self, client: Client) -> None:
        """As if what is late had been learned, which takes more requests than are made here."""
        ticket = client.ticket
        ticket.late_at = self.now
        second = self.router.hedges.begin(ticket, self.now)
        if second is not None:
            assert second.id not in {ticket.endpoint.id, *ticket.excluded}
            assert second.id not in self.router._room.claimed()
            self.hedges_begun += 1

    @rule(client=clients)
    def the_second_attempt_answers(self, client: Client) -> None:
        second = client.ticket.second
        self.router.hedges.won(client.ticket, self.now)
        if second is not None:
            assert client.ticket.endpoint == second.endpoint
            client.ticket.first_token(self.now)

    @rule(client=clients, failure=st.sampled_from(list(FailureClass)))
    def the_second_attempt_fails(self, client: Client, failure: FailureClass) -> None:
        self.router.hedges.failed(client.ticket, failure, self.now)

    @rule(client=clients, failure=st.sampled_from(list(FailureClass)))
    def retry(self, client: Client, failure: FailureClass) -> None:
        was_running = client.ticket.endpoint is not None and not client.ticket.closed
        failed, second = client.ticket.endpoint, client.ticket.second
        client.ticket.retry(self.now, failure, self.ring(client))
        if not was_running:
            return
        if client.ticket.decision is None:
            client.waits += 1
        if second is not None and failures.is_the_endpoints(failure):
            assert client.ticket.endpoint == second.endpoint, "it runs already"
            return
        refused = client.ticket.outcome is Outcome.EXHAUSTED
        assert refused or failures.may_retry(failure)
        assert refused or client.ticket.endpoint != failed
        self.retries_granted += client.ticket.endpoint is not None or client.ticket.decision is None

    @rule(client=clients, failure=st.sampled_from(list(FailureClass)))
    def resume(self, client: Client, failure: FailureClass) -> None:
        ticket, failed = client.ticket, client.ticket.endpoint
        was_running = failed is not None and not ticket.closed
        rest = msgspec.structs.replace(
            ticket.facts,
            model="tiny",
            choices=(),
            prompt_tokens_estimate=ticket.facts.prompt_tokens_estimate + 9,
        )
        ticket.resume(self.now, failure, rest, self.ring(client))
        if not was_running:
            return
        client.waits += ticket.decision is None
        refused = ticket.outcome is Outcome.EXHAUSTED
        assert refused or (failures.may_retry(failure) and ticket.endpoint != failed)
        assert ticket.second is None, "it makes the whole answer"
        assert self.router.hedges.due_at(ticket, self.now) is None
        self.retries_granted += not refused

    @rule(client=clients, other=clients)
    def leave_together(self, client: Client, other: Client) -> None:
        client.cancels_when_rung = other

    @rule(seconds=st.floats(0.0, TIMEOUT_S / 2) | st.just(LONGEST_WAIT_S / 2))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        following = self.router.expire(self.now)
        self.looked_at = self.now
        assert (following is None) == (self.router.snapshot().waiting == 0)
        assert following is None or self.now < following <= self.now + LONGEST_WAIT_S

    @rule(endpoint=st.sampled_from("abc"), draining=MOSTLY.map(lambda yes: not yes))
    def somebody_drains(self, endpoint: str, draining: bool) -> None:
        self.draining[endpoint] = draining
        self.router.set_draining(endpoint, draining, self.now)

    @rule(
        endpoint=st.sampled_from("abc"),
        state=st.sampled_from([None, None, None, BreakerState.OPEN, BreakerState.CLOSED]),
    )
    def somebody_forces_a_breaker(self, endpoint: str, state: BreakerState | None) -> None:
        self.router.force_breaker(endpoint, state, self.now)

    @rule(endpoint=st.sampled_from("abc"), healthy=MOSTLY)
    def health_changes(self, endpoint: str, healthy: bool) -> None:
        self.healthy[endpoint] = healthy
        self.router.set_health(endpoint, healthy, self.now)

    @rule(endpoint=st.sampled_from("abc"), models=st.sets(st.sampled_from(["tiny", "big"])))
    def models_change(self, endpoint: str, models: set[str]) -> None:
        self.models[endpoint] = tuple(sorted(models))
        self.router.set_models(endpoint, self.models[endpoint], self.now)

    @rule(endpoint=st.sampled_from("abc"), load=LOADS)
    def load_is_read(self, endpoint: str, load: EngineLoad) -> None:
        self.router.record_load(endpoint, load, self.now)

    @rule(facts=FACTS, seconds=st.floats(0.01, 2.0))
    def a_quiet_hour_teaches_how_fast_the_engines_are(self, facts: RequestFacts, seconds: float) -> None:
        """As many requests, one after the other, as predictions have to rest on."""
        for _ in range(MEASURED):
            client = self.admit(facts)
            self.now += seconds
            client.ticket.first_token(self.now)
            client.left |= client.ticket.decision is None
            client.ticket.settle(
                self.now, Usage(prompt_tokens=facts.prompt_tokens_estimate, completion_tokens=9)
            )

    def waiting(self) -> list[Ticket]:
        return [c.ticket for c in self.all if c.ticket.decision is None]

    def running(self) -> list[Ticket]:
        return [c.ticket for c in self.all if c.ticket.endpoint is not None and not c.ticket.closed]

    def hedged(self) -> list[Ticket]:
        return [c.ticket for c in self.all if c.ticket.second is not None]

    @invariant()
    def hedges_are_of_running_requests_and_within_their_budget(self) -> None:
        assert all(t in self.running() for t in self.hedged())
        counts = self.router.snapshot().hedges
        ended = sum(
            counts[r] for r in (HedgeResult.WON, HedgeResult.LOST, HedgeResult.FAILED, HedgeResult.LEFT)
        )
        assert self.hedges_begun == ended + len(self.hedged())
        assert self.hedges_begun <= HEDGE_SHARE * len(self.all)

    @invariant()
    def slots_are_counted_exactly_and_never_exceeded(self) -> None:
        for replica in self.router.snapshot().replicas:
            running = sum(t.endpoint.id == replica.endpoint.id for t in self.running())
            running += sum(t.second.endpoint.id == replica.endpoint.id for t in self.hedged())
            assert replica.in_flight == running <= replica.endpoint.max_in_flight

    @invariant()
    def every_ticket_has_exactly_one_fate(self) -> None:
        snapshot = self.router.snapshot()
        assert snapshot.waiting == len(self.waiting())
        assert snapshot.admitted == len(self.all)
        assert snapshot.admitted == snapshot.waiting + len(self.running()) + sum(snapshot.outcomes.values())
        for outcome, count in snapshot.outcomes.items():
            assert count == sum(c.ticket.outcome is outcome for c in self.all)

    @invariant()
    def a_wait_that_ended_was_announced_exactly_once(self) -> None:
        for client in self.all:
            ended = client.waits - (client.ticket.decision is None)
            if client.left:
                assert client.rung <= client.waits
            else:
                assert client.rung == ended

    @invariant()
    def ledgers_are_what_adding_up_the_running_requests_gives(self) -> None:
        for endpoint in ENDPOINTS:
            ledger = self.router._replicas[endpoint.id].ledger
            leases = [t.lease for t in self.running() if t.endpoint.id == endpoint.id]
            leases += [t.second.lease for t in self.hedged() if t.second.endpoint.id == endpoint.id]
            assert all(lease.open for lease in leases)
            assert ledger.leases == len(leases)
            assert ledger.work == sum(lease.work for lease in leases)
            assert ledger._prompt_tokens == sum(lease.new_tokens for lease in leases)
            assert ledger._output_tokens == sum(lease.output_tokens for lease in leases)
            assert ledger._queued_tokens == sum(lease.new_tokens for lease in leases if lease.queued)
            assert not any(lease.queued for lease in leases if lease.first_token_at is not None)

    @invariant()
    def the_waiting_room_is_what_adding_up_the_waiting_requests_gives(self) -> None:
        room, waiting = self.router._room, self.waiting()
        assert room.tokens == sum(t.cost.prompt_tokens for t in waiting)
        assert room.work == sum(t.cost.work for t in waiting) == sum(room._sums.values())
        assert room._bytes == sum(t.facts.body_bytes for t in waiting)
        assert room.work == sum(room._own.values())
        for lane in (frozenset("a"), frozenset("abc")):
            ahead = sum(t.cost.work for t in waiting if t.facts.priority != "bulk" and t.lane & lane)
            assert room.work_ahead(lane, 1) == ahead

    @invariant()
    def nothing_waits_that_could_run_or_never_can(self) -> None:
        """It waits for endpoints that do not take whose turn it is."""
        replicas = {s.endpoint.id: s for s in self.router.snapshot().replicas}
        assert {i: s.endpoint.models for i, s in replicas.items()} == self.models
        usable = {
            i
            for i, s in replicas.items()
            if self.healthy[i] and not self.draining[i] and s.breaker is not BreakerState.OPEN
        }
        if self.looked_at != self.now:
            return  # what only time has changed is found out at the next `expire`
        if not self.router._neighbours.alone:
            return  # so is how much of an engine's room is ours, which readings of other engines change
        for ticket in self.waiting():
            worth = next((w for t in targets(ticket.facts) if (w := self.of(t, ticket) & usable)), None)
            assert worth, "it has nothing to wait for"
            assert ticket.home is None or {ticket.home} == ticket.lane <= worth
            for endpoint_id in worth if ticket.home is None else ticket.lane:
                first = self.router._room.first_for(endpoint_id, self.now)
                assert not self.router._replicas[endpoint_id].takes(first.cost, self.now), "it could run"

    def of(self, target, ticket: Ticket) -> set[str]:
        endpoints = [s.endpoint for s in self.router.snapshot().replicas]
        return {e.id for e in candidates(endpoints, target.facts)} - ticket.excluded

    @invariant()
    def what_was_placed_was_wanted(self) -> None:
        for ticket in self.running():
            facts = ticket.facts
            choice = facts.choices[ticket.choice] if facts.choices else Choice(model=facts.model)
            assert ticket.model == choice.model
            assert choice.backend in (None, ticket.endpoint.backend)
            assert facts.backend in (None, ticket.endpoint.backend) or (facts.prefer and ticket.relaxed)

    @invariant()
    def the_first_in_place_is_served_first(self) -> None:
        running = {t.place: t for t in self.running()}
        for place in running.keys() - self.placed_before:
            placed = running[place]
            for ticket in self.waiting():
                if placed.endpoint.id in self.router._room._queue._entries[ticket.place].shelf.lane:
                    alike = self.alike(ticket) == self.alike(placed)
                    assert not alike or place < ticket.place, "it was overtaken where it waits"
        self.placed_before = set(running)

    def alike(self, ticket: Ticket) -> object:
        """What has to be equal for two requests to be taken by deadline alone: the class too, because
        between classes it counts what they were given (`turns.py`)."""
        return msgspec.structs.replace(ticket.facts, session=None, prefix=()), ticket.excluded

    @invariant()
    def retries_stay_within_the_budget(self) -> None:
        admitted = self.router.snapshot().admitted
        windows = 1.0 + self.now / FAILOVER.retry_window_s
        bound = FAILOVER.retry_ratio * admitted + FAILOVER.retry_floor * windows
        assert self.retries_granted <= bound + 1e-6

    @invariant()
    def an_open_breaker_lets_nothing_pass_and_a_half_open_one_a_probe(self) -> None:
        for replica in self.router.snapshot().replicas:
            breaker = self.router._replicas[replica.endpoint.id].breaker
            if replica.breaker is BreakerState.HALF_OPEN:
                assert len(self.probes(replica.endpoint.id)) <= 1
            else:
                self.last_permit[replica.endpoint.id] = breaker._epoch + 1
            if replica.breaker is BreakerState.OPEN:
                assert not self.probes(replica.endpoint.id)

    def probes(self, endpoint_id: str) -> list[Ticket]:
        """What an endpoint has been given since its breaker is not closed any more."""
        if self.router._replicas[endpoint_id].breaker.state is BreakerState.CLOSED:
            return []
        on_it = (t for t in self.running() if t.endpoint.id == endpoint_id)
        return [t for t in on_it if t.permit > self.last_permit[endpoint_id]]

    @invariant()
    def the_queue_and_the_attempts_stay_bounded(self) -> None:
        waiting = self.waiting()
        assert len(waiting) <= MAX_QUEUE + sum(e.max_in_flight for e in ENDPOINTS)
        assert len(waiting) <= 1 or self.router._room.tokens <= POLICY.max_queue_tokens
        assert len(waiting) <= 1 or self.router._room._bytes <= POLICY.max_queue_bytes
        assert all(c.ticket.attempts <= FAILOVER.max_attempts for c in self.all)

    def teardown(self) -> None:
        if not hasattr(self, "router"):
            return
        for client in self.all:
            client.left = True
            client.ticket.settle(self.now, None)
        snapshot = self.router.snapshot()
        assert [s.in_flight for s in snapshot.replicas] == [0, 0, 0]
        for replica in self.router._replicas.values():
            ledger = replica.ledger
            assert (ledger.leases, ledger.work, ledger._counted_kv(), ledger._queued_tokens) == (0, 0, 0, 0)
        assert (self.router._room.tokens, self.router._room.work, self.router._room._bytes) == (0, 0, 0)
        assert snapshot.waiting == 0
        queue = self.router._room._queue
        assert not any(
            getattr(queue, name) for name in ("_entries", "_shelves", "_turns", "_crowds", "_ends")
        )
        assert not self.router._room._own
        assert not self.router._room._sums
        assert not self.router._dispatcher._decided


TestRouterMachine = RouterMachine.TestCase
TestRouterMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
