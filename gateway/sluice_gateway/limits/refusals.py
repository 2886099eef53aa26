"""What a client is told whose request does not fit: the limit that binds, and when to come back.

A refusal never advises a retry that cannot succeed. A request that is larger than a whole bucket is a 400: no
amount of waiting helps, and no SDK or proxy repeats a 400. A budget that is spent says so with
`x-should-retry: false` and the end of its period.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.limits.buckets import BUSY_WAIT_US, Dimension
from sluice_gateway.limits.headers import (
    MODE,
    SHOULD_RETRY,
    duration,
    for_anthropic,
    rate_limit_headers,
)
from sluice_gateway.limits.money import MICRO
from sluice_gateway.limits.subjects import Subject
from sluice_gateway.limits.types import NO_RATES, Demand, RateState
from sluice_gateway.wire import Header

_FAILURES = {
    Dimension.REQUESTS: Failure.REQUEST_LIMIT,
    Dimension.TOKENS: Failure.TOKEN_LIMIT,
    Dimension.CONCURRENT: Failure.CONCURRENCY_LIMIT,
    Dimension.DAY: Failure.BUDGET_SPENT,
    Dimension.MONTH: Failure.BUDGET_SPENT,
}
_NO_RETRY: Header = (SHOULD_RETRY.encode(), b"false")


class LimitProblem(Problem, frozen=True, kw_only=True):
    """A refusal by a limit, with the limits as they stand: for other families' headers."""

    state: RateState = NO_RATES


def with_anthropic_headers(found: Problem) -> Problem:
    """A refusal with the headers that Anthropic's clients read."""
    if not isinstance(found, LimitProblem):
        return found
    return msgspec.structs.replace(found, headers=for_anthropic(found.headers, found.state))


def refused(
    subject: Subject, dimension: Dimension, wait_us: int, state: RateState, extra: tuple[Header, ...] = ()
) -> LimitProblem:
    """The refusal of a request that may come back."""
    waits_for_end = wait_us == BUSY_WAIT_US and dimension >= Dimension.CONCURRENT
    message = f"{_words(subject, dimension, waits_for_end)} {_advice(dimension, wait_us, waits_for_end)}"
    if dimension >= Dimension.DAY and not waits_for_end:
        extra = (*extra, _NO_RETRY)
    # Rounded up, and a millisecond on top: a client that comes back early is refused again.
    retry_after_s = (-(-wait_us // 1000) + 1) / 1000
    return _limit_problem(
        problem(_FAILURES[dimension], message, retry_after_s=retry_after_s),
        state,
        (*rate_limit_headers(state), *extra),
    )


def gateway_full(running: int) -> Problem:
    """This process has as many requests as it may."""
    return problem(
        Failure.CONCURRENCY_LIMIT,
        f"The gateway already has {running} requests running, its limit; try again shortly.",
    )


def unavailable(subject: Subject, what: str) -> Problem:
    """A limit that must not be guessed, while the shared store cannot be asked."""
    found = problem(
        Failure.LIMITS_UNAVAILABLE,
        f"The {what} of {subject.label} cannot be checked at the moment, and no request may pass unchecked; "
        "try again shortly.",
    )
    return msgspec.structs.replace(found, headers=((MODE.encode(), b"closed"),))


def never_fits(subjects: Iterable[Subject], demand: Demand, worst: int) -> Problem | None:
    """The refusal of a request that is larger than a whole limit, by the first such limit.

    Tokens that the client did not ask for do not count: the default is only a guess.
    """
    tokens, max_tokens = demand.prompt_tokens + (demand.max_tokens or 0), demand.max_tokens
    for subject in subjects:
        values = subject.values
        if values.tokens_per_min is not None and tokens > values.tokens_per_min:
            limit = f"the limit is {values.tokens_per_min} per min"
            text = f"may need {tokens} tokens (prompt as estimated, plus output), {limit}"
            return _too_large(subject, text, max_tokens)
        for cap, period in ((values.budget_per_day, "day"), (values.budget_per_month, "month")):
            if cap is not None and worst > cap * MICRO:
                text = f"may cost {worst / MICRO:g}, the budget is {cap:g} per {period}"
                return _too_large(subject, text, max_tokens)
    return None


def _too_large(subject: Subject, text: str, max_tokens: int | None) -> Problem:
    advice = " Lower max_tokens or shorten the prompt." if max_tokens is not None else ""
    return problem(
        Failure.OVER_WHOLE_LIMIT,
        f"Request too large for {subject.label}: it {text}. It can never be served as it is.{advice}",
        param="max_tokens" if max_tokens is not None else None,
    )


def _words(subject: Subject, dimension: Dimension, waits_for_end: bool) -> str:
    values = subject.values
    if dimension is Dimension.REQUESTS:
        return f"Rate limit reached for {subject.label}: {values.requests_per_min} requests per min."
    if dimension is Dimension.TOKENS:
        return f"Rate limit reached for {subject.label}: {values.tokens_per_min} tokens per min."
    if dimension is Dimension.CONCURRENT:
        return f"Rate limit reached for {subject.label}: {values.concurrent} concurrent requests are running."
    day = dimension is Dimension.DAY
    cap, period = (values.budget_per_day, "day") if day else (values.budget_per_month, "month")
    if waits_for_end:
        return (
            f"The budget of {subject.label}, {cap:g} per {period}, is committed to requests that are running."
        )
    return f"You exceeded the budget of {subject.label}: {cap:g} per {period}."


def _advice(dimension: Dimension, wait_us: int, waits_for_end: bool) -> str:
    if waits_for_end:
        return "Try again when one of them has ended."
    if dimension >= Dimension.DAY:
        return f"It begins anew in {duration(-(-wait_us // MICRO) * MICRO).decode()}."
    return f"Try again in {duration(wait_us).decode()}."


def _limit_problem(found: Problem, state: RateState, headers: tuple[Header, ...]) -> LimitProblem:
    fields = msgspec.structs.asdict(found)
    return LimitProblem(**{**fields, "headers": headers, "state": state})
