"""The whole stack as a user starts it: `sluice serve` with its managed worker and the bundled model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_stack import Stack, interrupt, start


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`sluice serve` with the bundled model, shared by a module's tests."""
    command = [str(Path(sys.executable).parent / "sluice"), "serve"]
    running = start(command, tmp_path_factory.mktemp("stack"))
    yield running
    assert interrupt(running) == []
