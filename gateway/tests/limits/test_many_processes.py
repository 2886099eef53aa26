"""Eight processes, sixty-four clients, one Redis: what is admitted is what the limits say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from sluice_gateway.limits.scripts import KeyNames

from .limiting import fresh_prefix
from .redis_server import RedisServer

PROCESSES = 8
CLIENTS_EACH = 8
PATIENCE_S = 60.0


def hammer(server: RedisServer, prefix: str, seconds: float, limit: dict[str, Any], *asking: float) -> Any:
    """What all processes together were given, and how long they asked by Redis' clock."""
    script = str(Path(__file__).with_name("hammer.py"))
    command = [sys.executable, script, server.url, prefix, str(CLIENTS_EACH), str(seconds)]
    command += [json.dumps(limit), *map(str, asking)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
    outputs = [process.communicate(timeout=PATIENCE_S)[0] for process in started]
    found = [json.loads(output) for output in outputs]
    assert all(process.returncode == 0 for process in started)
    assert sum(one["degraded"] for one in found) == 0
    assert sum(one["in_use"] for one in found) == 0
    first_s = min(one["first_s"] for one in found if one["admitted"])
    last_s = max(one["last_s"] for one in found if one["admitted"])
    return {
        "admitted": sum(one["admitted"] for one in found),
        "tokens": sum(one["tokens"] for one in found),
        "minutes": (last_s - first_s) / 60,
    }


def test_requests_per_minute(shared_redis: RedisServer) -> None:
    """A minute's worth at once, and from then on what the passing time has earned."""
    found = hammer(shared_redis, fresh_prefix(), 4.0, {"requests_per_min": 3000}, 1, 1, 0)
    assert found["admitted"] == pytest.approx(3000 * (1 + found["minutes"]), rel=0.01)


def test_tokens_per_minute(shared_redis: RedisServer) -> None:
    """Requests reserve 110 tokens and use 60: what counts in the end is what was used."""
    limit = {"tokens_per_min": 150_000}
    found = hammer(shared_redis, fresh_prefix(), 4.0, limit, 10, 100, 0)
    assert found["tokens"] == pytest.approx(150_000 * (1 + found["minutes"]), rel=0.01)


def test_a_dollar_is_overspent_by_less_than_one_request(shared_redis: RedisServer) -> None:
    """A request holds 0.02 and costs 0.01: the cap is reached, and never passed."""
    prefix = fresh_prefix()
    found = hammer(shared_redis, prefix, 2.0, {"budget_per_day": 1.0}, 0, 20, 1000)
    with redis.Redis.from_url(shared_redis.url) as client:
        subject, leases = KeyNames(prefix).subject("key", "alice")
        spent, held = (int(value) for value in client.hmget(subject, "day_spent", "held"))
        assert (held, client.zcard(leases)) == (0, 0)
    assert spent == found["tokens"] * 1000
    assert 1_000_000 - 20_000 < spent <= 1_000_000
