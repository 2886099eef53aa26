"""Limits as a client of the gateway meets them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest

from sluice_gateway.config import ConfigError
from sluice_gateway.gateway import Gateway

from ..serving import ECHO, Served, chat, serving, settings_of
from .limiting import fresh_prefix, until
from .redis_server import RedisServer


def key(name: str, **limits: Any) -> dict[str, Any]:
    return {"id": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "limits": limits}


async def ask(served: Served, name: str = "alice", **more: Any) -> Any:
    return await served.http.post(
        "/v1/chat/completions",
        json=chat("echo", "one two three", **more),
        headers={"authorization": f"Bearer {name}"},
    )


async def test_every_answer_says_what_is_left_and_a_refusal_when_to_come_back() -> None:
    keys = [key("alice", requests_per_min=2, tokens_per_min=10_000), key("bob")]
    async with serving(settings_of(backends=[ECHO], keys=keys)) as served:
        first = await ask(served, max_tokens=50)
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-limit-tokens"] == "10000"
        async with served.http.stream(
            "POST",
            "/v1/chat/completions",
            json=chat("echo", stream=True),
            headers={"authorization": "Bearer alice"},
        ) as stream:
            assert stream.headers["x-ratelimit-remaining-requests"] == "0"
            await stream.aread()
        refused = await ask(served)
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "requests"
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert "key 'alice': 2 requests per min" in refused.json()["error"]["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 31
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-ratelimit-limit-requests" not in (await ask(served, "bob")).headers
        await served.until_idle()
        assert served.metric("rate_limited_total", limit="key_requests") == 1
        assert served.metric("limiter_mode", mode="memory") == 1
        assert served.gateway.limiter.in_use == 0


async def test_a_request_that_is_refused_later_gets_its_share_back() -> None:
    keys = [key("alice", requests_per_min=6, tokens_per_min=10_000)]
    async with serving(settings_of(backends=[ECHO], keys=keys)) as served:
        for _ in range(2):
            failed = await served.http.post(
                "/v1/chat/completions",
                json=chat("echo"),
                headers={"authorization": "Bearer alice", "x-echo-status": "500"},
            )
            assert failed.status_code >= 500
        last = await ask(served, max_tokens=50)
        assert last.status_code == 200
        assert last.headers["x-ratelimit-remaining-requests"] == "5"


async def test_two_gateways_share_limits_and_go_on_without_redis(own_redis: RedisServer) -> None:
    values = {
        "backends": [ECHO],
        "keys": [key("alice", requests_per_min=4)],
        "redis": {"url": own_redis.url, "prefix": fresh_prefix(), "timeout_ms": 500},
    }
    async with serving(settings_of(**values)) as one, serving(settings_of(**values)) as two:
        for served in (one, two, one, two):
            answer = await ask(served)
            assert answer.status_code == 200
            assert "x-sluice-limits" not in answer.headers
        assert (await ask(one)).status_code == 429
        own_redis.freeze()
        answer = await ask(one)
        assert (answer.status_code, answer.headers["x-sluice-limits"]) == (200, "local")
        assert one.metric("limiter_mode", mode="degraded") == 1
        assert one.metric("limiter_errors_total") > 0
        own_redis.thaw()
        await until(lambda: one.metric("limiter_mode", mode="redis") == 1)
        assert (await ask(one)).status_code == 429


def test_a_password_that_is_not_set_is_named() -> None:
    values = {"backends": [ECHO], "redis": {"password_env": "REDIS_SECRET"}}
    with pytest.raises(ConfigError, match="REDIS_SECRET"):
        Gateway(settings_of(**values), {}, io.StringIO())


async def test_a_restarted_gateway_remembers_what_was_spent(tmp_path: Path) -> None:
    """Its budgets begin with the ledger's sums."""
    values = {
        "backends": [ECHO],
        "keys": [key("alice", budget_per_day=0.0001)],
        "prices": {"models": {"echo": {"output": 10.0}}},
        "store": {"url": f"sqlite:///{tmp_path}/store.db"},
        "ledger": {"journal_folder": str(tmp_path / "ledger")},
    }
    async with serving(settings_of(**values)) as served:
        for _ in range(3):
            assert (await ask(served, max_tokens=4)).status_code == 200
    async with serving(settings_of(**values)) as served:
        refused = await ask(served, max_tokens=4)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert "budget of key 'alice': 0.0001 per day" in refused.json()["error"]["message"]
