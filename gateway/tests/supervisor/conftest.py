from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..limits.redis_server import RedisServer, redis_server
from .processes import Gateway

StartGateway = Callable[..., Gateway]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, redis: RedisServer) -> Iterator[StartGateway]:
    """Starts `sluice serve` with an echo engine, a store and Redis, and what the test adds."""
    started: list[Gateway] = []

    def run(workers: int, more: str = "", config: str | None = None) -> Gateway:
        started.append(Gateway(tmp_path, config or config_of(redis, more), "--workers", str(workers)))
        return started[-1]

    yield run
    for gateway in started:
        gateway.stop()


def config_of(redis: RedisServer, more: str = "", models: str = "echo") -> str:
    return (
        f"backends:\n  - {{name: echo, adapter: echo, models: [{models}]}}\n"
        f"redis: {{url: '{redis.url}'}}\nstore: {{url: 'sqlite:///store.db'}}\n{more}"
    )
