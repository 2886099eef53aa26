"""Routers whose engines were measured before, as tests of admission need them."""

from __future__ import annotations

from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.latency_model import MEASURED
from sluice_router.router import Router
from sluice_router.types import Endpoint, Reject, RequestFacts, Usage

TOKENS_PER_S = 1000.0
TOKENS = 1000
OUTPUT = 10
DEFAULTS = AdmissionPolicy()


def nothing() -> None:
    pass


def facts(**changes: object) -> RequestFacts:
    defaults = {
        "request_id": "r",
        "kind": "chat",
        "model": "m",
        "stream": True,
        "prompt_tokens_estimate": TOKENS,
        "max_tokens": OUTPUT,
    }
    return RequestFacts(**{**defaults, **changes})


def router(*names: str, size: int = 64, policy: AdmissionPolicy = DEFAULTS, **changes: object) -> Router:
    endpoints = [Endpoint(id=n, backend="b", url=f"http://{n}", max_in_flight=size) for n in names]
    options = {"max_queue": 100, "queue_timeout_s": 300.0, "admission": policy, "random": lambda: 0.0}
    return Router(endpoints, **{**options, **changes})


def run(
    r: Router, now: float, seconds: float, asked: RequestFacts | None = None, first_s: float | None = None
):
    """One request, alone, that takes so long."""
    asked = asked or facts()
    ticket = r.admit(asked, now, nothing)
    assert isinstance(ticket.decision, Endpoint), ticket.decision
    if first_s is not None:
        ticket.first_token(now + first_s)
    usage = Usage(prompt_tokens=asked.prompt_tokens_estimate, completion_tokens=OUTPUT)
    ticket.settle(now + seconds, usage)
    return ticket


def learned(*names: str, measurements: int = MEASURED, service_s: float = 2.0, **changes: object) -> Router:
    """A router whose engines were seen to prefill a thousand tokens a second, one prompt after the other."""
    r = router(*names, **changes)
    now = -10_000.0
    for number in range(measurements):
        for _ in names:
            size = 200 * (number % 5 + 1)
            run(r, now, service_s, facts(prompt_tokens_estimate=size), first_s=size / TOKENS_PER_S)
            now += 50.0
    return r


def also_knows_queues(r: Router) -> None:
    """And two of them at once, so that it is known what one waits for another."""
    for number in range(12):
        now = -5000.0 + 50 * number
        one, two = r.admit(facts(), now, nothing), r.admit(facts(), now, nothing)
        one.first_token(now + 1.0)
        two.first_token(now + 2.0)
        for ticket in (one, two):
            ticket.settle(now + 3.0, Usage(prompt_tokens=TOKENS, completion_tokens=OUTPUT))


def refused(ticket) -> Reject:
    assert isinstance(ticket.decision, Reject), ticket.decision
    return ticket.decision
