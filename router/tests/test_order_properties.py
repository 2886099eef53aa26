"""The published bounds of the order, on the whole router with engines that take as long as a request costs.

An engine has slots; in each a request of cost c takes c / `RATE` seconds. Nothing is random, and no clock is
read.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.cost import OUTPUT_WEIGHT, work_of
from sluice_router.priority import DEADLINES_S
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, EngineLoad, Outcome, RequestFacts, Usage

RATE = 1000.0
"""Cost per second and slot."""


class Request:
    """What a client sends, when, and what becomes of it."""

    def __init__(self, at: float, tenant: str, prompt: int, output: int, **facts: object) -> None:
        self.at = at
        self.usage = Usage(prompt_tokens=prompt, completion_tokens=output)
        given = {"request_id": "r", "kind": "chat", "model": "m", **facts}
        self.facts = RequestFacts(tenant=tenant, prompt_tokens_estimate=prompt, **given)
        self.ticket: Ticket | None = None
        self.begun_at: float | None = None
        self.charged = 0.0
        self.done_at: float | None = None

    @property
    def tenant(self) -> str:
        return self.facts.tenant

    @property
    def wait_s(self) -> float:
        assert self.begun_at is not None, f"a request of {self.tenant} was refused: {self.ticket.decision}"
        return self.begun_at - self.at


PATIENT = AdmissionPolicy(interactive_ttft_s=1e6, default_ttft_s=1e6, bulk_ttft_s=1e6)
"""Nobody is refused for having to wait too long."""


class Engine:
    """One endpoint behind a router, driven until all requests have ended."""

    def __init__(
        self,
        slots: int,
        max_queue: int = 100_000,
        policy: AdmissionPolicy = AdmissionPolicy(),  # noqa: B008
    ) -> None:
        endpoint = Endpoint(id="e", backend="b", url="http://e", max_in_flight=slots)
        timeout_s = 1e6 if policy is PATIENT else 30.0
        self.router = Router([endpoint], max_queue=max_queue, queue_timeout_s=timeout_s, admission=policy)
        self.now = 0.0
        self._expires_at = float("inf")
        self._ends: list[tuple[float, int, Request]] = []
        self._started = 0

    def run(self, requests: list[Request]) -> list[Request]:
        for request in sorted(requests, key=lambda r: r.at):
            self._until(request.at)
            request.ticket = self.router.admit(request.facts, request.at, lambda r=request: self._begin(r))
            if request.ticket.decision is not None:
                self._begin(request)
            self._expire()
        self._until(float("inf"))
        return requests

    def _until(self, when: float) -> None:
        while min(self._next_end(), self._expires_at) <= when and self._next_end() < float("inf"):
            self.now = min(self._next_end(), self._expires_at)
            if self._expires_at <= self._next_end():
                self._expire()
            else:
                _, _, request = heappop(self._ends)
                request.done_at = self.now
                request.ticket.settle(self.now, request.usage)
        if when < float("inf"):
            self.now = when

    def _next_end(self) -> float:
        return self._ends[0][0] if self._ends else float("inf")

    def _expire(self) -> None:
        following = self.router.expire(self.now)
        self._expires_at = float("inf") if following is None else max(following, self.now + 0.1)

    def _begin(self, request: Request) -> None:
        if request.ticket.endpoint is not None:
            request.begun_at, self._started = self.now, self._started + 1
            request.charged = request.ticket.charge.cost
            heappush(self._ends, (self.now + work_of(request.usage) / RATE, self._started, request))


def stream(tenant: str, cost: int, every_s: float, until_s: float, first_s: float = 0.0, **facts: object):
    """Requests of equal cost at equal distances."""
    number = int((until_s - first_s) / every_s)
    return [Request(first_s + i * every_s, tenant, cost - 200, 100, **facts) for i in range(number)]


def waits(requests: list[Request], *tenants: str) -> list[float]:
    return sorted(r.wait_s for r in requests if r.tenant in tenants)


def p95(values: list[float]) -> float:
    return values[int(0.95 * len(values))]


# The gap between two tenants

WEIGHTS = {"a": 1.0, "b": 1.0, "c": 2.0}
REQUESTS = st.lists(
    st.builds(
        lambda at, tenant, prompt, output, bound: Request(
            at, tenant, prompt, min(output, bound or output), max_tokens=bound, weight=WEIGHTS[tenant]
        ),
        at=st.sampled_from([0.0, 0.0, 1.0, 2.0, 5.0]),
        tenant=st.sampled_from("aabbc"),
        prompt=st.integers(1, 2000),
        output=st.integers(0, 1000),
        bound=st.sampled_from([None, 16, 256, 1000]),
    ),
    min_size=8,
    max_size=60,
)


def backlogged(requests: list[Request], tenant: str) -> list[tuple[float, float]]:
    """The times in which something of a tenant waited, one after the other."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted((r.at, r.begun_at) for r in requests if r.tenant == tenant):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > begin:
            found.append((begin, end))
    return found


def given_by(requests: list[Request], tenant: str, time: float, known: bool) -> float:
    """What a tenant was given before a time, by weight: as it is known then, or as it will turn out."""
    total = 0.0
    for request in requests:
        if request.tenant == tenant and request.begun_at < time:
            is_estimate = known and request.done_at >= time
            total += request.charged if is_estimate else work_of(request.usage)
    return total / WEIGHTS[tenant]


@pytest.mark.parametrize("known", [True, False], ids=["as it is known at the time", "in real service"])
@settings(max_examples=60, deadline=None)
@given(requests=REQUESTS, slots=st.integers(1, 4))
def test_two_tenants_that_wait_all_the_time_are_given_the_same_within_the_bound(known, requests, slots):
    requests = Engine(slots, policy=PATIENT).run([_again(r) for r in requests])

    longest = max(r.usage.prompt_tokens for r in requests)
    written = (max(r.usage.completion_tokens, 256) for r in requests)
    in_flight = slots * max(r.usage.prompt_tokens + w for r, w in zip(requests, written, strict=True))
    bound = 2 * max(longest, OUTPUT_WEIGHT * in_flight)
    for one, other in combinations("abc", 2):
        for begin, end in _both(backlogged(requests, one), backlogged(requests, other)):
            times = sorted({begin, end, *(r.begun_at for r in requests if begin <= r.begun_at <= end)})
            ahead = [given_by(requests, one, t, known) - given_by(requests, other, t, known) for t in times]
            assert max(ahead) - min(ahead) <= bound


def _again(request: Request) -> Request:
    """Hypothesis may run an example twice."""
    usage, facts = request.usage, request.facts
    return Request(
        request.at,
        facts.tenant,
        usage.prompt_tokens,
        usage.completion_tokens,
        max_tokens=facts.max_tokens,
        weight=facts.weight,
    )


def _both(some: list[tuple[float, float]], others: list[tuple[float, float]]) -> list[tuple[float, float]]:
    overlaps = [(max(a, c), min(b, d)) for a, b in some for c, d in others]
    return [(begin, end) for begin, end in overlaps if begin < end]


def test_estimates_apart_nobody_gets_ahead_by_more_than_one_request():
    """With one slot and costs known from the start, the gap is the costs of one request of each."""
    requests = [Request(0.0, t, 1000 * (i % 3), 256) for t in "ab" for i in range(60)]

    Engine(1, policy=PATIENT).run(requests)

    last = min(max(r.begun_at for r in requests if r.tenant == t) for t in "ab")
    times = [r.begun_at for r in requests if r.begun_at <= last]
    ahead = [given_by(requests, "a", t, False) - given_by(requests, "b", t, False) for t in times]
    assert max(ahead) - min(ahead) <= 2 * (2000 + 2 * 256)


def test_who_underestimates_its_requests_gets_no_more_in_the_end():
    """Every other request of `a` costs eight times as much as it seems to, and no estimate can know which."""
    requests = [Request(0.0, "a", 100, 2000 if i % 2 else 2, max_tokens=2000) for i in range(120)]
    requests += [Request(0.0, "b", 100, 200, max_tokens=200) for _ in range(400)]

    Engine(2, policy=PATIENT).run(requests)

    last = min(max(r.begun_at for r in requests if r.tenant == t) for t in "ab")
    times = [r.begun_at for r in requests if r.begun_at <= last]
    ahead = [given_by(requests, "a", t, False) - given_by(requests, "b", t, False) for t in times]
    assert max(ahead) - min(ahead) <= 2 * OUTPUT_WEIGHT * 2 * 2100


def test_who_comes_late_has_no_claim_to_the_time_before():
    requests = stream("early", 1000, 0.2, 100.0)
    requests += stream("late", 1000, 0.2, 100.0, first_s=50.0)

    Engine(2, policy=PATIENT).run(requests)

    both = [r.tenant for r in requests if 50.0 < r.begun_at <= 100.0]
    assert abs(both.count("late") - both.count("early")) <= 4


# One tenant that asks for fifty times as much

SERVICE_S = 1000 / RATE
MODEST = [f"modest {i}" for i in range(10)]


def crowd(share: float = 0.5, **facts: object) -> list[Request]:
    """Ten tenants that together ask for such a share of an engine with four slots."""
    every_s = 10 * SERVICE_S / (4 * share)
    return [
        request
        for i, tenant in enumerate(MODEST)
        for request in stream(tenant, 1000, every_s, 100.0, first_s=0.13 + i * 0.098 * every_s, **facts)
    ]


def flood(tenant: str, times: int = 50, **facts: object) -> list[Request]:
    return stream(tenant, 1000, 5.0 / times, 100.0, **facts)


def test_one_tenant_at_fifty_times_the_others_load_delays_them_by_a_request_at_most():
    alone = waits(Engine(4).run(crowd()), *MODEST)
    fair = waits(Engine(4).run(crowd() + flood("greedy")), *MODEST)
    first_come = Engine(4, policy=PATIENT).run([_of_one_tenant(r) for r in crowd() + flood("greedy")])

    assert max(alone) == 0.0
    assert max(fair) <= SERVICE_S, "a slot comes free, and it is next"
    assert p95(sorted(r.wait_s for r in first_come)) > 50 * SERVICE_S, "what it saves them from"


def _of_one_tenant(request: Request) -> Request:
    return Request(request.at, "all", request.usage.prompt_tokens, request.usage.completion_tokens)


def test_a_flood_of_urgent_requests_keeps_nobody_waiting_beyond_the_deadline_of_its_class():
    requests = Engine(4).run(crowd(0.2, priority="default") + flood("greedy", priority="interactive"))

    assert max(waits(requests, *MODEST)) <= 1.1 * DEADLINES_S["default"]
    assert max(waits(requests, *MODEST)) > DEADLINES_S["default"] / 2, "urgent ones do go first"


@pytest.mark.parametrize("less_urgent", ["default", "bulk"])
def test_a_flood_of_less_urgent_requests_takes_at_most_its_part_from_urgent_ones(less_urgent):
    requests = Engine(4).run(crowd(priority="interactive") + flood("greedy", priority=less_urgent))

    assert max(waits(requests, *MODEST)) <= 2 * SERVICE_S, (
        "a slot comes free, and another one if not its turn"
    )


def test_a_full_queue_belongs_to_everybody():
    requests = Engine(4, max_queue=32).run(crowd() + flood("greedy"))

    refused = {r.tenant for r in requests if r.ticket.outcome is Outcome.SHED_CAPACITY}
    assert refused == {"greedy"}
    assert max(waits(requests, *MODEST)) <= SERVICE_S


# Starvation


@settings(max_examples=25, deadline=None)
@given(
    urgent=st.floats(0.1, 0.8),
    dumped=st.floats(0.1, 0.9),
    greedy=st.booleans(),
    slots=st.sampled_from([4, 8]),
)
def test_while_the_capacity_suffices_nobody_waits_much_beyond_the_deadline_of_its_class(
    urgent, dumped, greedy, slots
):
    """Interactive and default requests take a steady share; what is left is enough, in time, for a lot of
    bulk work that comes all at once, and for default work that comes in bursts."""
    deadlines_s = tuple(DEADLINES_S.values())
    spare = (0.95 - urgent) * slots * RATE
    burst = int(0.1 * spare * deadlines_s[1] / 500)
    bulk = int(dumped * 0.5 * spare * deadlines_s[2] / 2000)
    requests = stream("u", 400, 400 / (urgent * slots * RATE), 330.0, priority="interactive")
    requests += [
        Request(at, "d" if greedy else f"d{i % 5}", 300, 100, priority="default")
        for at in range(0, 330, 30)
        for i in range(burst)
    ]
    requests += [
        Request(1.0, "b" if greedy else f"b{i % 50}", 1800, 100, priority="bulk") for i in range(bulk)
    ]

    Engine(slots).run(requests)

    for band, name in enumerate(("interactive", "default", "bulk")):
        longest = max((r.wait_s for r in requests if r.facts.priority == name), default=0.0)
        assert longest <= 1.1 * deadlines_s[band], name


# Room that is kept for whose turn it is


def test_room_that_is_too_small_for_whose_turn_it_is_goes_to_the_more_urgent_only():
    router = Engine(4).router
    router.record_load("e", EngineLoad(kv_capacity_tokens=2000), 0.0)

    def ask(prompt: int, priority: str = "default") -> Ticket:
        request = Request(0.0, "t", prompt, 1, max_tokens=1, priority=priority)
        return router.admit(request.facts, 0.0, lambda: None)

    running, large = ask(1000), ask(1500)
    small, urgent = ask(10), ask(10, "interactive")

    assert [t.decision is None for t in (running, large, small, urgent)] == [False, True, True, False]
    running.settle(1.0, None)
    assert [t.decision is None for t in (large, small)] == [False, False]
