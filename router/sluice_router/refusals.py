"""The words and numbers of the router's refusals."""

from __future__ import annotations

from collections.abc import Iterable

from sluice_router.replica import Replica
from sluice_router.types import FailureClass, Outcome, Reject


def cancelled() -> Reject:
    """The client left while it waited."""
    return Reject(outcome=Outcome.CANCELLED, status=499, message="The client left.")


def shed(retry_after_s: float) -> Reject:
    """No engine has room, and neither has the queue, be it in requests, tokens or bytes."""
    return Reject(
        outcome=Outcome.SHED_CAPACITY,
        status=429,
        message="All engines are busy and the queue is full; try again after the time in Retry-After.",
        retry_after_s=retry_after_s,
    )


def too_late(patience_s: float, retry_after_s: float) -> Reject:
    """By what was measured it would be answered too late to be of use."""
    return Reject(
        outcome=Outcome.SHED_DEADLINE,
        status=429,
        message=f"All engines are busy: the answer would not begin within {patience_s:.3g} s, which is what"
        " the request's class, or its X-SLO-TTFT-Ms, allows; try again after the time in Retry-After, or"
        " send it with a less urgent X-Priority.",
        retry_after_s=retry_after_s,
    )


def out_of_reach(budget_s: float, shortest_s: float, retry_after_s: float) -> Reject:
    """The client named a time to the first token that no engine keeps at the moment."""
    return Reject(
        outcome=Outcome.SHED_DEADLINE,
        status=429,
        message=f"No engine can begin to answer within the {budget_s * 1000:.0f} ms of X-SLO-TTFT-Ms; the"
        f" fastest needs about {shortest_s * 1000:.0f} ms now. Allow more, shorten the prompt, or try again"
        " after the time in Retry-After.",
        retry_after_s=retry_after_s,
    )


def displaced(retry_after_s: float) -> Reject:
    """Its place in the full queue went to a more urgent request."""
    return Reject(
        outcome=Outcome.SHED_CAPACITY,
        status=429,
        message="All engines are busy, and the queue is full of more urgent requests; try again after the"
        " time in Retry-After.",
        retry_after_s=retry_after_s,
    )


def timed_out(limit_s: float, retry_after_s: float) -> Reject:
    """Waited as long as it may."""
    return Reject(
        outcome=Outcome.EXPIRED,
        status=503,
        message=f"The request waited {limit_s:g} s and no engine had room; try again after the time in"
        " Retry-After.",
        retry_after_s=retry_after_s,
    )


def unservable(message: str) -> Reject:
    """Nothing that is configured could serve it; waiting would not help."""
    return Reject(outcome=Outcome.NO_ENDPOINT, status=503, message=message)


def none_usable(model: str, replicas: Iterable[Replica], now: float, recovery_s: float) -> Reject:
    """Configured, but not in a state to serve.

    Where breakers are all that stands in the way, they say when it makes sense to come back; `recovery_s` is
    for what nobody can foresee.
    """
    wanted = (r for r in replicas if r.healthy and not r.draining)
    probes = [r.breaker.half_open_at for r in wanted if r.breaker.half_open_at is not None]
    if not probes:
        message = f"No engine for model '{model}' is healthy at the moment; try again shortly."
        return Reject(outcome=Outcome.NO_ENDPOINT, status=503, message=message, retry_after_s=recovery_s)
    return Reject(
        outcome=Outcome.NO_ENDPOINT,
        status=503,
        message=f"Every engine for model '{model}' has failed repeatedly and is suspended; try again after"
        " the time in Retry-After.",
        retry_after_s=max(0.0, min(probes) - now),
    )


def not_retried(failure: FailureClass) -> Reject:
    """The failure is of a kind that another engine would not repair."""
    return _exhausted(f"The attempt failed ({failure.value}), and another engine would not help.", None)


def attempts_used_up(attempts: int, retry_after_s: float) -> Reject:
    """No other endpoint, or no further attempt, is left."""
    times = "once" if attempts == 1 else f"{attempts} times"
    return _exhausted(
        f"The engine failed before answering (tried {times}) and no other one is left; try again shortly.",
        retry_after_s,
    )


def budget_spent(retry_after_s: float) -> Reject:
    """Too many requests are being retried already."""
    return _exhausted(
        "The engine failed before answering, and too many requests are being retried; try again shortly.",
        retry_after_s,
    )


def _exhausted(message: str, retry_after_s: float | None) -> Reject:
    return Reject(outcome=Outcome.EXHAUSTED, status=503, message=message, retry_after_s=retry_after_s)
