"""Whatever happens, in whatever order, the router keeps the promises at the top of its module."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sluice_router.placement import candidates
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, EngineLoad, RequestFacts, Usage

ENDPOINTS = (
    Endpoint(id="a", backend="worker", url="http://a", models=("tiny", "big"), max_in_flight=2),
    Endpoint(id="b", backend="worker", url="http://b", models=("tiny",), max_in_flight=1),
    Endpoint(id="c", backend="echo", url="http://c", max_in_flight=1),
)
MAX_QUEUE, TIMEOUT_S, MAX_ATTEMPTS = 4, 10.0, 3


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
        self.now = 0.0
        self.router = Router(
            ENDPOINTS, max_queue=MAX_QUEUE, queue_timeout_s=TIMEOUT_S, max_attempts=MAX_ATTEMPTS
        )
        self.all: list[Client] = []
        self.healthy = {e.id: True for e in ENDPOINTS}
        self.models = {e.id: e.models for e in ENDPOINTS}
        self.placed_before: set[int] = set()

    def ring(self, client: Client):
        def notify() -> None:
            assert client.ticket is not None, "notified before admit returned"
            assert client.ticket.decision is not None
            client.rung += 1
            if client.cancels_when_rung is not None:
                client.cancels_when_rung.left = True
                client.cancels_when_rung.ticket.cancel(self.now)

        return notify

    @rule(
        target=clients,
        backend=st.sampled_from([None, "worker", "echo"]),
        model=st.sampled_from(["tiny", "big", "unheard-of"]),
    )
    def admit(self, backend: str | None, model: str) -> Client:
        client = Client()
        facts = RequestFacts(request_id="r", kind="chat", model=model, backend=backend)
        client.ticket = self.router.admit(facts, self.now, self.ring(client))
        client.waits += client.ticket.decision is None
        self.all.append(client)
        return client

    @rule(client=clients)
    def settle(self, client: Client) -> None:
        client.left |= client.ticket.decision is None
        client.ticket.settle(self.now, Usage(completion_tokens=1))

    @rule(client=clients)
    def cancel(self, client: Client) -> None:
        client.left = True
        client.ticket.cancel(self.now)

    @rule(client=clients)
    def retry(self, client: Client) -> None:
        was_running = client.ticket.endpoint is not None and not client.ticket.closed
        client.ticket.retry(self.now, self.ring(client))
        client.waits += was_running and client.ticket.decision is None

    @rule(client=clients, other=clients)
    def leave_together(self, client: Client, other: Client) -> None:
        client.cancels_when_rung = other

    @rule(seconds=st.floats(0.0, TIMEOUT_S))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        following = self.router.expire(self.now)
        assert (following is None) == (self.router.snapshot().waiting == 0)
        assert following is None or self.now < following <= self.now + TIMEOUT_S

    @rule(endpoint=st.sampled_from("abc"), healthy=st.booleans())
    def health_changes(self, endpoint: str, healthy: bool) -> None:
        self.healthy[endpoint] = healthy
        self.router.set_health(endpoint, healthy, self.now)

    @rule(endpoint=st.sampled_from("abc"), models=st.sets(st.sampled_from(["tiny", "big"])))
    def models_change(self, endpoint: str, models: set[str]) -> None:
        self.models[endpoint] = tuple(sorted(models))
        self.router.set_models(endpoint, self.models[endpoint], self.now)

    @rule(endpoint=st.sampled_from("abc"), waiting=st.none() | st.integers(0, 50))
    def load_is_read(self, endpoint: str, waiting: int | None) -> None:
        self.router.record_load(endpoint, EngineLoad(waiting=waiting), self.now)

    def waiting(self) -> list[Ticket]:
        return [c.ticket for c in self.all if c.ticket.decision is None]

    def running(self) -> list[Ticket]:
        return [c.ticket for c in self.all if c.ticket.endpoint is not None and not c.ticket.closed]

    @invariant()
    def slots_are_counted_exactly_and_never_exceeded(self) -> None:
        for replica in self.router.snapshot().replicas:
            running = sum(t.endpoint.id == replica.endpoint.id for t in self.running())
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
    def nothing_waits_that_could_run_or_never_can(self) -> None:
        endpoints = {s.endpoint.id: s.endpoint for s in self.router.snapshot().replicas}
        room = {
            s.endpoint.id: s.in_flight < s.endpoint.max_in_flight for s in self.router.snapshot().replicas
        }
        assert {i: e.models for i, e in endpoints.items()} == self.models
        for ticket in self.waiting():
            possible = {e.id for e in candidates(endpoints.values(), ticket.facts)} - ticket.excluded
            healthy = {i for i in possible if self.healthy[i]}
            assert healthy, "it has nothing to wait for"
            assert not any(room[i] for i in healthy), "it could run"

    @invariant()
    def equals_are_served_in_order(self) -> None:
        running = {t.order: t for t in self.running()}
        for order in running.keys() - self.placed_before:
            placed = running[order]
            for ticket in self.waiting():
                same = (ticket.facts, ticket.excluded) == (placed.facts, placed.excluded)
                assert not (same and ticket.order < order), "a younger equal overtook"
        self.placed_before = set(running)

    @invariant()
    def the_queue_and_the_attempts_stay_bounded(self) -> None:
        fresh = sum(t.attempts == 0 for t in self.waiting())
        assert fresh <= MAX_QUEUE
        assert all(c.ticket.attempts <= MAX_ATTEMPTS for c in self.all)

    def teardown(self) -> None:
        if not hasattr(self, "router"):
            return
        for client in self.all:
            client.left = True
            client.ticket.settle(self.now, None)
        snapshot = self.router.snapshot()
        assert [s.in_flight for s in snapshot.replicas] == [0, 0, 0]
        assert snapshot.waiting == 0
        assert not self.router._queue._lanes
        assert not self.router._queue._lane_of
        assert not self.router._queue._deadlines
        assert not self.router._decided


TestRouterMachine = RouterMachine.TestCase
TestRouterMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
