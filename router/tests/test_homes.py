"""Prompts that wait for the endpoint that has their beginning, though another one has room."""

import pytest

from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, RequestFacts, Usage
from sluice_router.work_ledger import Lease

TOKENS_PER_S = 1000.0
PREFIX = tuple(range(1 << 60, 200 << 60, 1 << 60))[:15]


def facts(tokens: int = 1000, *, tenant: str = "t", prefix: tuple[int, ...] = PREFIX) -> RequestFacts:
    return RequestFacts(
        request_id="r", kind="chat", model="m", tenant=tenant, prompt_tokens_estimate=tokens, max_tokens=10,
        stream=True, prefix=prefix,
    )  # fmt: skip


def fleet(*, measured: bool = True) -> Router:
    """Three engines that compute one prompt at a time, a thousand tokens a second."""
    endpoints = [Endpoint(id=name, backend="b", url="http://e", max_in_flight=1) for name in "abc"]
    router = Router(endpoints, max_queue=100, queue_timeout_s=30.0)
    for replica in router._replicas.values() if measured else ():
        for new in range(100, 1300, 100):
            for ahead in (0, 500):
                replica.latency.learn_ttft(new, ahead, 0, (new + ahead) / TOKENS_PER_S)
            lease = Lease(new, 0, new, 0.0)
            replica.occupy(0, lease)
            replica.vacate(lease)
            replica.record_service(lease, None, new / TOKENS_PER_S, well=True)
    return router


def served_once(router: Router, now: float = 0.0) -> Ticket:
    """A request that has left its prompt in an engine's cache."""
    ticket = router.admit(facts(), now, lambda: None)
    ticket.first_token(now + 1.0)
    ticket.settle(now + 1.1, Usage(prompt_tokens=1000, completion_tokens=5))
    return ticket


def test_it_waits_for_what_is_cached_when_that_is_sooner():
    router = fleet()
    home = served_once(router).endpoint
    first = router.admit(facts(), 2.0, lambda: None)
    assert first.endpoint == home

    second = router.admit(facts(), 2.0, lambda: None)
    assert second.decision is None
    assert second.lane == {home.id}

    first.settle(2.1, None)
    assert second.endpoint == home
    assert second.hit_tokens > 900
    assert router._replicas[home.id].waiting == router._replicas[home.id].waiting_work == 0


def test_it_goes_elsewhere_when_that_is_a_good_deal_sooner():
    router = fleet()
    home = served_once(router).endpoint
    waiting = [router.admit(facts(), 2.0, lambda: None) for _ in range(9)]

    elsewhere = {t.endpoint.id for t in waiting if t.endpoint is not None and t.endpoint != home}
    assert elsewhere
    assert router._replicas[home.id].waiting > 1


def test_where_nothing_is_measured_nothing_waits_that_could_run():
    router = fleet(measured=False)
    home = served_once(router).endpoint
    first, second, third, fourth = [router.admit(facts(), 2.0, lambda: None) for _ in range(4)]

    assert first.endpoint == home
    assert {first.endpoint.id, second.endpoint.id, third.endpoint.id} == {"a", "b", "c"}
    assert fourth.decision is None
    assert fourth.lane == {"a", "b", "c"}


def test_whoever_waits_long_for_an_engine_that_stands_still_is_served_by_another():
    router = fleet()
    home = served_once(router).endpoint
    router.admit(facts(), 2.0, lambda: None)
    waiting = router.admit(facts(), 2.0, lambda: None)
    router.expire(6.9)
    assert waiting.decision is None

    router.expire(7.1)

    assert waiting.endpoint is not None and waiting.endpoint != home
    assert router._replicas[home.id].waiting == router._replicas[home.id].waiting_tokens == 0


def test_it_waits_for_anybody_when_its_home_has_gone():
    router = fleet()
    home = served_once(router).endpoint
    placed = [router.admit(facts(), 2.0, lambda: None)]
    waiting = router.admit(facts(), 2.0, lambda: None)
    placed += [router.admit(facts(prefix=()), 2.0, lambda: None) for _ in range(2)]
    assert waiting.decision is None

    router.set_health(home.id, False, 2.1)

    assert router._replicas[home.id].waiting == 0
    placed[1].settle(2.2, None)
    assert waiting.endpoint == placed[1].endpoint


def test_nobody_waits_for_an_engine_that_is_away():
    router = fleet()
    home = served_once(router).endpoint
    router.set_health(home.id, False, 2.0)
    others = [router.admit(facts(), 2.0, lambda: None) for _ in range(2)]
    assert {t.endpoint.id for t in others} == set("abc") - {home.id}

    ticket = router.admit(facts(), 2.0, lambda: None)

    assert ticket.decision is None
    assert home.id not in ticket.lane


@pytest.mark.parametrize("end", ["cancel", "expire"])
def test_who_leaves_is_not_counted_any_more(end: str):
    router = fleet()
    home = served_once(router).endpoint
    router.admit(facts(), 2.0, lambda: None)
    others = [router.admit(facts(prefix=()), 2.0, lambda: None) for _ in range(2)]
    waiting = router.admit(facts(), 2.0, lambda: None)
    assert waiting.decision is None and all(t.endpoint for t in others)
    assert router._replicas[home.id].waiting == 1

    if end == "cancel":
        waiting.cancel(2.5)
    else:
        router.expire(40.0)

    replica = router._replicas[home.id]
    assert (replica.waiting, replica.waiting_tokens, replica.waiting_work) == (0, 0, 0)
