"""Processes that are gone after the test, whatever happens in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .processes import Process, start_gateway, start_worker

StartProcess = Callable[..., Process]


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.stop()


@pytest.fixture
def gateway(processes: list[Process], tmp_path: Path) -> StartProcess:
    """Starts `sluice serve` with the given configuration text."""

    def start(config: str) -> Process:
        processes.append(start_gateway(tmp_path, config))
        return processes[-1]

    return start


@pytest.fixture
def worker(processes: list[Process], tmp_path: Path) -> StartProcess:
    """Starts `sluice-worker serve` with the given options."""

    def start(*options: str) -> Process:
        processes.append(start_worker(tmp_path, *options))
        return processes[-1]

    return start
