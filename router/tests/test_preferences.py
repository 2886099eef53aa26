"""Stories of aliases, wishes, urgency and sessions."""

from __future__ import annotations

import pytest

from sluice_router.explain import explain
from sluice_router.priority import DEADLINES_S
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import Choice, Endpoint, FailureClass, Outcome, Reject, RequestFacts

GPU = Endpoint(id="gpu", backend="gpu", url="http://gpu", models=("big",), max_in_flight=1)
CPU = Endpoint(id="cpu", backend="cpu", url="http://cpu", models=("tiny",), max_in_flight=1)
ALIAS = (Choice(model="big", backend="gpu"), Choice(model="tiny"))
TIMEOUT_S = 40.0


def facts(**changes: object) -> RequestFacts:
    return RequestFacts(**{"request_id": "r", "kind": "chat", "model": "m", **changes})


FAST = facts(model="fast", choices=ALIAS)


def router(*endpoints: Endpoint, max_queue: int = 10) -> Router:
    return Router(endpoints or (GPU, CPU), max_queue=max_queue, queue_timeout_s=TIMEOUT_S)


def nothing() -> None:
    """For tickets whose wait nobody awaits."""


def where(ticket: Ticket) -> str | None:
    return ticket.endpoint.id if ticket.endpoint else None


# Aliases


def test_an_alias_is_served_by_its_first_choice_under_that_models_name():
    ticket = router().admit(FAST, 0.0, nothing)

    assert (where(ticket), ticket.model) == ("gpu", "big")
    assert ticket.route == "model=big; backend=gpu; endpoint=gpu; reason=least_loaded"


def test_a_busy_first_choice_is_waited_for():
    r = router()
    r.admit(FAST, 0.0, nothing)

    assert r.admit(FAST, 0.0, nothing).decision is None


def test_a_first_choice_that_is_ill_gives_way_to_the_next():
    r = router()
    r.set_health("gpu", False, 0.0)

    ticket = r.admit(FAST, 0.0, nothing)

    assert (where(ticket), ticket.model) == ("cpu", "tiny")
    assert "reason=fallback:1,least_loaded" in ticket.route


def test_those_who_wait_fall_back_when_their_choice_falls_ill_and_return_when_it_is_well():
    r = router()
    r.admit(FAST, 0.0, nothing)
    r.admit(facts(model="tiny"), 0.0, nothing)
    waiting = r.admit(FAST, 0.0, nothing)

    r.set_health("gpu", False, 1.0)
    assert waiting.decision is None, "the fallback is busy too"
    r.set_health("gpu", True, 2.0)
    r.set_health("cpu", False, 3.0)

    assert waiting.decision is None, "it waits for its first choice again"


def test_a_failure_goes_to_the_next_choice():
    ticket = router().admit(FAST, 0.0, nothing)

    ticket.retry(1.0, FailureClass.BROKEN, nothing)

    assert (where(ticket), ticket.model) == ("cpu", "tiny")
    assert ticket.route.endswith("reason=retry:2,fallback:1,least_loaded")


def test_with_a_full_queue_a_free_fallback_is_better_than_a_refusal():
    r = router(max_queue=0)
    r.admit(FAST, 0.0, nothing)

    assert where(r.admit(FAST, 0.0, nothing)) == "cpu"
    assert isinstance(r.admit(FAST, 0.0, nothing).decision, Reject)


# Wishes


def test_a_wish_is_granted_while_that_can_be():
    r = router()
    wish = facts(model="tiny", backend="gpu", prefer=True)
    both = router(GPU, CPU, Endpoint(id="gpu-2", backend="gpu", url="http://2", models=("tiny",)))

    assert where(both.admit(wish, 0.0, nothing)) == "gpu-2"
    ticket = r.admit(wish, 0.0, nothing)

    assert where(ticket) == "cpu"
    assert "reason=relaxed,least_loaded" in ticket.route
    assert isinstance(r.admit(facts(model="tiny", backend="gpu"), 0.0, nothing).decision, Reject)


def test_what_a_key_may_not_use_no_wish_and_no_alias_reaches():
    r = router()
    held = facts(model="fast", choices=ALIAS, allowed_backends=frozenset({"cpu"}))

    assert where(r.admit(held, 0.0, nothing)) == "cpu"
    assert isinstance(
        r.admit(facts(model="tiny", allowed_quants=frozenset({"fp8"})), 0.0, nothing).decision, Reject
    )


# The header


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("org/model-1:7b", "org/model-1:7b"),
        ("a\r\nset-cookie: x", "a%0D%0Aset-cookie:%20x"),
        ("a; endpoint=b", "a%3B%20endpoint%3Db"),
        ("é" * 200, "%C3%A9" * 128),
    ],
)
def test_a_models_name_cannot_break_out_of_the_header(model, shown):
    anything = Endpoint(id="x", backend="x", url="http://x")

    ticket = router(anything).admit(facts(model=model), 0.0, nothing)

    assert ticket.route == f"model={shown}; backend=x; endpoint=x; reason=least_loaded"


# Urgency


def test_the_more_urgent_go_first_and_equals_by_age():
    r = router(CPU)
    running = r.admit(facts(model="tiny"), 0.0, nothing)
    order = ["bulk", "default", "interactive", "bulk", "default", "interactive"]
    tickets = [r.admit(facts(model="tiny", priority=p), 1.0 + i / 10, nothing) for i, p in enumerate(order)]

    served = []
    for now in range(2, 8):  # before the less urgent have given way for long enough
        running.settle(float(now), None)
        running = next(t for t in tickets if t.endpoint and not t.closed)
        served.append(tickets.index(running))

    assert served == [2, 5, 1, 4, 0, 3]


def test_a_bulk_request_that_has_waited_goes_before_newer_urgent_ones():
    r = router(CPU)
    running = r.admit(facts(model="tiny"), 0.0, nothing)
    bulk = r.admit(facts(model="tiny", priority="bulk"), 1.0, nothing)
    late_at = 1.1 + DEADLINES_S["bulk"] - DEADLINES_S["interactive"]
    late = r.admit(facts(model="tiny", priority="interactive"), late_at, nothing)

    running.settle(late_at + 1.0, None)

    assert where(bulk) == "cpu"
    assert late.decision is None


def test_in_a_full_queue_an_urgent_request_takes_the_place_of_the_youngest_bulk_one():
    r, rung = router(CPU, max_queue=2), []
    r.admit(facts(model="tiny"), 0.0, nothing)
    older = r.admit(facts(model="tiny", priority="bulk"), 1.0, nothing)
    younger = r.admit(facts(model="tiny", priority="bulk"), 2.0, lambda: rung.append(True))

    urgent = r.admit(facts(model="tiny", priority="interactive"), 3.0, nothing)

    assert isinstance(younger.decision, Reject)
    assert (younger.outcome, younger.decision.status) == (Outcome.SHED_CAPACITY, 429)
    assert rung == [True]
    assert (older.decision, urgent.decision) == (None, None)
    assert isinstance(r.admit(facts(model="tiny", priority="bulk"), 4.0, nothing).decision, Reject)


# Sessions


def replicas() -> tuple[Endpoint, ...]:
    return tuple(Endpoint(id=n, backend="b", url=f"http://{n}", max_in_flight=2) for n in "abc")


def test_a_session_stays_at_home_while_there_is_room():
    r = router(*replicas())
    mine = facts(session="s")

    first = r.admit(mine, 0.0, nothing)
    second = r.admit(mine, 0.0, nothing)
    third = r.admit(mine, 0.0, nothing)

    assert where(first) == where(second)
    assert "reason=affinity" in second.route
    assert where(third) not in (None, where(first))
    assert "reason=least_loaded" in third.route


def test_a_session_whose_home_is_ill_finds_another_and_comes_back():
    r = router(*replicas())
    home = where(r.admit(facts(session="s"), 0.0, nothing))

    r.set_health(home, False, 1.0)
    away = [where(r.admit(facts(session="s"), 1.0, nothing)) for _ in range(2)]
    r.set_health(home, True, 2.0)

    assert len(set(away)) == 1
    assert away[0] != home
    assert where(r.admit(facts(session="s"), 2.0, nothing)) == home


# Explaining


def test_an_explanation_has_every_endpoints_verdict_and_the_routers_own_pick():
    anything = Endpoint(id="any", backend="cpu", url="http://any")

    found = explain((GPU, CPU, anything), FAST)

    assert [[(v.endpoint.id, v.rule) for v in a.verdicts] for a in found.assessments] == [
        [("gpu", None), ("cpu", "backend"), ("any", "backend")],
        [("gpu", "model"), ("cpu", None), ("any", "gives_way")],
    ]
    assert found.endpoint == "gpu"
    assert found.route == router().admit(FAST, 0.0, nothing).route
    assert found.mismatch is None


def test_an_explanation_of_what_cannot_be_served_says_why():
    found = explain((GPU, CPU), facts(model="huge"))

    assert (found.endpoint, found.route) == (None, "")
    assert found.mismatch is not None
    assert found.mismatch.field == "model"
