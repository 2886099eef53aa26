"""Waiting for the router: decisions wake, time expires, cancelling gives back."""

from __future__ import annotations

import asyncio

import pytest

from sluice_gateway.admission import Admission
from sluice_router.router import Router
from sluice_router.types import Endpoint, FailureClass, Outcome, Reject, RequestFacts

FACTS = RequestFacts(request_id="r", kind="chat", model="m")


def endpoints(*names: str) -> list[Endpoint]:
    return [Endpoint(id=name, backend="b", url="http://x", max_in_flight=1) for name in names]


def admission(*names: str, queue_timeout_s: float = 30) -> tuple[Admission, Router]:
    router = Router(endpoints(*names), max_queue=4, queue_timeout_s=queue_timeout_s)
    return Admission(router, asyncio.get_running_loop().time), router


async def test_room_is_given_at_once() -> None:
    desk, _ = admission("a")
    ticket = await desk.admit(FACTS)
    assert ticket.endpoint is not None


async def test_a_slot_that_comes_free_wakes_the_next() -> None:
    desk, router = admission("a")
    first = await desk.admit(FACTS)
    waiting = asyncio.create_task(desk.admit(FACTS))
    await asyncio.sleep(0)
    assert router.snapshot().waiting == 1
    desk.release(first, None)
    assert (await waiting).endpoint is not None
    desk.close()


async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    desk, router = admission("a")
    first = await desk.admit(FACTS)
    waiting = asyncio.create_task(desk.admit(FACTS))
    await asyncio.sleep(0)
    desk.release(first, None)
    waiting.cancel()  # decided, but not yet awake: the slot must come back too
    with pytest.raises(asyncio.CancelledError):
        await waiting
    snapshot = router.snapshot()
    assert (snapshot.waiting, snapshot.replicas[0].in_flight) == (0, 0)
    desk.close()


async def test_the_oldest_ticket_expires_by_itself() -> None:
    desk, _ = admission("a", queue_timeout_s=0.02)
    await desk.admit(FACTS)
    refused = await asyncio.gather(desk.admit(FACTS), desk.admit(FACTS))
    for ticket in refused:
        assert isinstance(ticket.decision, Reject)
        assert ticket.decision.outcome is Outcome.EXPIRED


async def test_a_retry_may_wait_for_another_endpoint() -> None:
    desk, router = admission("a", "b")
    first, second = await desk.admit(FACTS), await desk.admit(FACTS)
    failed = first.endpoint
    again = asyncio.create_task(desk.retry(first, FailureClass.BROKEN))
    await asyncio.sleep(0)
    assert router.snapshot().waiting == 1
    desk.release(second, None)
    await again
    assert first.endpoint is not None
    assert first.endpoint != failed
    desk.close()
