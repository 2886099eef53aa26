from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sluice_gateway.store.database import Database


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    """Of each kind."""
    database = Database(store_url)
    await database.migrate()
    yield database
    await database.aclose()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/store.db")
    await database.migrate()
    yield database
    await database.aclose()
