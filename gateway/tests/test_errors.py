"""Every failure has one row, and every row is what the SDKs expect."""

from __future__ import annotations

import json

import pytest

from sluice_gateway.errors import Failure, from_reject, internal, may_fail_over, problem
from sluice_gateway.response import problem_headers
from sluice_router.types import Outcome, Reject


@pytest.mark.parametrize("failure", list(Failure))
def test_a_failure_has_openais_shape(failure: Failure) -> None:
    found = problem(failure, "Do this instead.", param="model")
    error = json.loads(found.body())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["type"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert found.event() == b"data: " + found.body() + b"\n\n"
    assert 400 <= found.status < 600
    assert found.status != 422


@pytest.mark.parametrize("failure", list(Failure))
def test_who_may_come_back_is_told_when(failure: Failure) -> None:
    found = problem(failure, "x")
    headers = dict(problem_headers(found))
    assert (b"retry-after" in headers) == (found.status in (429, 503))
    assert (b"www-authenticate" in headers) == (found.status == 401)


def test_retry_after_is_rounded_up_and_never_zero() -> None:
    headers = dict(problem_headers(problem(Failure.QUEUE_FULL, "x", retry_after_s=1.2)))
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"2", b"1200")
    headers = dict(problem_headers(problem(Failure.QUEUE_FULL, "x", retry_after_s=0.0)))
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"1", b"1")


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.DISPATCHED])
def test_the_routers_refusals_keep_their_status(outcome: Outcome) -> None:
    status = {"shed_capacity": 429, "shed_deadline": 429, "cancelled": 499}.get(outcome.value, 503)
    found = from_reject(Reject(outcome=outcome, status=status, message="m", retry_after_s=3))
    assert (found.status, found.message, found.retry_after_s) == (status, "m", 3)


def test_only_the_endpoints_fault_is_tried_elsewhere() -> None:
    assert may_fail_over(Failure.UPSTREAM_CONNECT)
    assert not may_fail_over(Failure.UPSTREAM_REFUSED)
    assert not may_fail_over(Failure.UPSTREAM_TIMEOUT)


def test_a_bug_says_where_to_look_and_nothing_else() -> None:
    assert "req_1" in internal("req_1").message
