from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sluice_gateway.keys.service import KeyService
from sluice_gateway.keys.settings import KeySettings, TenantSettings
from sluice_gateway.keys.snapshot import FileKeys
from sluice_gateway.limits.settings import Bounded
from sluice_gateway.store.database import Database

from .clock import Clock

FILE = FileKeys(
    [KeySettings(id="from-file", sha256="0" * 64, tenant="lab")],
    [TenantSettings(id="written", limits=Bounded(requests_per_min=5))],
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    database = Database(store_url)
    yield database
    await database.aclose()


@pytest.fixture
def service(database: Database, clock: Clock) -> KeyService:
    return KeyService(database, FILE, wall_clock=clock)
