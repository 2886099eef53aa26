"""The long storm over all endpoints and phases, with the key store away for all of it.

Small here; `make torture` makes it long, with limits in memory too, and writes
`docs/reports/gateway-torture.md`.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import uvloop

from ..limits.redis_server import redis_server
from ..postgres import PostgresServer
from .tempest import TAKEN, Outcome, Plan, tempest
from .tempest_report import MIB, render

VISITS = int(os.environ.get("SLUICE_TORTURE_VISITS", "0"))
REPORT = os.environ.get("SLUICE_TORTURE_REPORT")
SHORT = Plan(visits=1500, warm_up=1000, calm_rounds=1, rest_s=5.5)
LONG = Plan(visits=VISITS, warm_up=max(2000, VISITS // 10), calm_rounds=20)
GROWTH = 400
"""More objects of a type than this would be a leak: it is under a third of the requests that leave in the
small storm. Caches, counters and connections that come and go stay far below."""


@pytest.mark.slow
def test_nothing_stays_and_no_known_key_fails(tmp_path: Path, postgres: PostgresServer) -> None:
    outcomes = {}
    for where in ("memory", "Redis") if VISITS else ("Redis",):
        folder = tmp_path / where
        folder.mkdir()
        outcomes[where] = outcome = blow(LONG if VISITS else SHORT, folder, postgres, where)
        check(outcome)
    if REPORT:
        Path(REPORT).write_text(render(outcomes, "make torture"))


def blow(plan: Plan, folder: Path, postgres: PostgresServer, where: str) -> Outcome:
    database = postgres.create_database(f"tempest_{where.lower()}")
    url = database.replace(f":{postgres.port}/", ":{port}/")
    with ExitStack() as stack, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        server = stack.enter_context(redis_server(folder)) if where == "Redis" else None
        outcome = runner.run(
            tempest(plan, folder, postgres.port, url, None if server is None else server.url)
        )
        if server is not None:
            check_leases(server.url)
    return outcome


def check(outcome: Outcome) -> None:
    assert outcome.disappointments == []
    assert outcome.left > 0.15 * outcome.endings.total()
    assert {name: outcome.cold[name] for name in TAKEN} == dict.fromkeys(TAKEN, 0)
    assert outcome.still_running == 0
    assert outcome.cold["tasks"] <= outcome.warm["tasks"] + 4
    assert outcome.cold["descriptors"] <= outcome.warm["descriptors"] + 8
    assert {name: count for name, count in outcome.grown().items() if count > GROWTH} == {}
    assert outcome.cold["rss"] < 1.15 * outcome.warm["rss"] + 8 * MIB
    assert "Traceback" not in outcome.log


def check_leases(url: str) -> None:
    """Nothing that was reserved in Redis is still held there."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        assert any(":limits:" in key for key in client.scan_iter())  # they were kept there
        left = {key: client.zcard(key) for key in client.scan_iter("*:leases")}
    assert not any(left.values()), left
