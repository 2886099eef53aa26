"""What a gateway process knows of keys: up to date, and in force while the store is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_gateway.auth import OPEN, digest
from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key, LimitValues
from sluice_gateway.keys.feed import ChangeFeed, RedisFeed
from sluice_gateway.keys.identities import Identities
from sluice_gateway.keys.records import Actor, Refused
from sluice_gateway.keys.refresher import Refresher
from sluice_gateway.keys.snapshot import FileKeys, Known
from sluice_gateway.limits.settings import Redis
from sluice_gateway.store.database import Database

from ..limits.redis_server import redis_server
from ..postgres import PostgresServer
from ..serving import eventually, settings_of
from .clock import Clock

ROOT = Actor("root")
FILE = [{"id": "filed", "sha256": digest("sk-filed"), "tenant": "lab"}]
LOCAL = ("127.0.0.1", 8000)


@asynccontextmanager
async def process(
    url: str,
    clock: Callable[[], float] | None = None,
    feed: ChangeFeed | None = None,
    **sections: Any,
) -> AsyncIterator[Identities]:
    """What one gateway process has."""
    database = Database(url)
    identities = Identities(settings_of(**sections), database, feed=feed, wall_clock=clock or Clock())
    await identities.start()
    yield identities
    await identities.aclose()
    await database.aclose()


def holder(identities: Identities, secret: str) -> str | int:
    """The id of the key, or the status of the refusal."""
    found = identities.keyring.authenticate({b"x-api-key": secret.encode()}, LOCAL)
    return found.id if isinstance(found, Key) else found.status


async def test_a_change_in_one_process_is_seen_by_the_others(store_url: str) -> None:
    async with process(store_url) as one, process(store_url) as other:
        assert other.keyring.is_open
        secret = (await one.service.create_key(ROOT, {}, name="alice")).secret
        assert holder(one, secret) == "alice"
        await eventually(lambda: holder(other, secret) == "alice")
        await one.service.revoke_key(ROOT, "alice")
        assert holder(one, secret) == 401
        await eventually(lambda: holder(other, secret) == 401)


async def test_a_rotated_secret_works_until_its_overlap_is_over(clock: Clock) -> None:
    async with process("sqlite:///:memory:", clock) as one:
        old = (await one.service.create_key(ROOT, {}, name="alice")).secret
        new = (await one.service.rotate_key(ROOT, "alice", overlap_s=60)).secret
        assert (holder(one, old), holder(one, new)) == ("alice", "alice")
        clock.now += 60
        assert (holder(one, old), holder(one, new)) == (401, "alice")


async def test_a_key_ends_at_its_time_without_anybody_looking(clock: Clock) -> None:
    async with process("sqlite:///:memory:", clock) as one:
        secret = (await one.service.create_key(ROOT, {"expires_at": clock.now + 5})).secret
        clock.now += 4.9
        assert holder(one, secret) != 401
        clock.now += 0.1
        found = one.keyring.authenticate({b"x-api-key": secret.encode()}, LOCAL)
    assert isinstance(found, Problem)
    assert (found.status, "expired" in found.message) == (401, True)


async def test_open_mode_ends_with_the_first_key_and_never_comes_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with process(url) as one:
        assert one.keyring.authenticate({}, LOCAL) is OPEN
        await one.service.create_tenant(ROOT, "blue", {})
        assert one.keyring.is_open
        await one.service.create_key(ROOT, {}, name="alice", tenant="blue")
        assert not one.keyring.is_open
        await one.service.revoke_key(ROOT, "alice")
        await one.service.delete_tenant(ROOT, "blue")
        assert not one.keyring.is_open
    async with process(url) as again:
        assert holder(again, "sk-any") == 401


async def test_tenants_limits_come_with_every_key_of_theirs() -> None:
    sections = {"keys": FILE, "tenants": [{"id": "written", "limits": {"concurrent": 7}}]}
    async with process("sqlite:///:memory:", **sections) as one:
        await one.service.create_tenant(ROOT, "blue", {"limits": {"requests_per_min": 3}})
        secrets = [(await one.service.create_key(ROOT, {}, tenant=t)).secret for t in ("blue", "written")]

        def limits() -> list[LimitValues]:
            found = [one.keyring.authenticate({b"x-api-key": s.encode()}, LOCAL) for s in secrets]
            return [key.tenant_limits for key in found if isinstance(key, Key)]

        assert limits() == [LimitValues(requests_per_min=3), LimitValues(concurrent=7)]
        await one.service.update_tenant(ROOT, "blue", {"limits": {"requests_per_min": None}})
        assert limits() == [LimitValues(), LimitValues(concurrent=7)]


async def test_a_tenants_weight_comes_with_every_key_of_it() -> None:
    filed = [{"id": "heavy", "weight": 2.5}, {"id": "plain"}]
    async with process("sqlite:///:memory:", keys=FILE, tenants=filed) as one:
        secrets = [(await one.service.create_key(ROOT, {}, tenant=t)).secret for t in ("heavy", "plain")]
        found = [one.keyring.authenticate({b"x-api-key": s.encode()}, LOCAL) for s in secrets]
        assert [key.tenant_weight for key in found if isinstance(key, Key)] == [2.5, 1.0]

        other = [{"id": "new", "sha256": digest("sk-new"), "tenant": "heavy"}]
        await one.reload(settings_of(keys=other, tenants=[{"id": "heavy", "weight": 4}]))
        changed = one.keyring.authenticate({b"x-api-key": b"sk-new"}, LOCAL)
        assert isinstance(changed, Key)
        assert changed.tenant_weight == 4.0


async def test_a_key_that_the_file_has_too_is_the_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with process(url) as before:
        secret = (await before.service.create_key(ROOT, {}, name="filed")).secret
    with caplog.at_level(logging.WARNING, "sluice"):
        async with process(url, keys=FILE) as one:
            assert (holder(one, "sk-filed"), holder(one, secret)) == ("filed", 401)
    assert "'filed'" in caplog.text


@pytest.mark.parametrize("store", ["sqlite:///:memory:", "postgresql://sluice@127.0.0.1:1/none"])
async def test_a_changed_file_holds_at_once_with_or_without_the_store(store: str) -> None:
    async with process(store, keys=FILE) as one:
        other = [{"id": "new", "sha256": digest("sk-new"), "tenant": "lab"}]
        tenants = [{"id": "lab", "limits": {"concurrent": 1}}]
        await one.reload(settings_of(keys=other, tenants=tenants))
        assert holder(one, "sk-filed") in (401, 503)
        found = one.keyring.authenticate({b"x-api-key": b"sk-new"}, LOCAL)
        assert isinstance(found, Key)
        assert found.tenant_limits == LimitValues(concurrent=1)


async def test_an_hour_without_the_store(postgres: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    url = postgres.create_database("keys_outage")
    caplog.set_level(logging.INFO, "sluice")
    async with process(url, keys=FILE) as one:
        secret = (await one.service.create_key(ROOT, {}, name="alice")).secret
        postgres.stop()
        try:
            await eventually(lambda: "cannot be read" in caplog.text)
            # A key that another process made in the meantime cannot be told from a wrong one.
            assert [holder(one, s) for s in (secret, "sk-filed", "sk-unknown")] == ["alice", "filed", 503]
            with pytest.raises(Refused) as refused:
                await one.service.revoke_key(ROOT, "alice")
            assert refused.value.problem.status == 503
            async with process(url, keys=FILE) as late:
                # It cannot know alice, nor that anybody else is unknown: that is not their fault.
                assert [holder(late, s) for s in (secret, "sk-filed", "sk-unknown")] == [503, "filed", 503]
                postgres.start()
                await eventually(lambda: holder(late, secret) == "alice")
                assert holder(late, "sk-unknown") == 401
            await eventually(lambda: caplog.text.count("can be read again") == 2)
            assert holder(one, "sk-unknown") == 401
        finally:
            postgres.stop()
            postgres.start()
    assert caplog.text.count("cannot be read") == 2  # once in each process


async def test_an_outage_is_said_once_however_often_it_is_met(caplog: pytest.LogCaptureFixture) -> None:
    database = Database("postgresql://sluice@127.0.0.1:1/none")
    refresher = Refresher(database, FileKeys([], []), lambda known: None, takes_tokens=False)
    for _ in range(3):
        await refresher.look()
    assert caplog.text.count("cannot be read") == 1
    await database.aclose()


async def test_a_gateway_that_never_read_its_store_is_not_open() -> None:
    async with process("postgresql://sluice@127.0.0.1:1/none") as one:
        found = one.keyring.authenticate({}, LOCAL)
    assert isinstance(found, Problem)
    assert (found.status, found.code) == (503, "store_unavailable")
    assert found.retry_after_s


async def test_redis_carries_a_change_before_the_next_poll(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    with redis_server(tmp_path) as redis:
        feed = RedisFeed(Redis(url=redis.url), {})
        async with process(url, feed=feed) as writer:
            seen: list[Known] = []
            never = 3600.0
            database = Database(url)
            reader = Refresher(
                database, FileKeys([], []), seen.append, takes_tokens=False, feed=feed, poll_s=never
            )
            await reader.start(5)
            await writer.service.create_key(ROOT, {}, name="alice")
            await eventually(lambda: bool(seen) and len(seen[-1].snapshot.keys) == 1)
            redis.kill()
            await writer.service.create_key(ROOT, {}, name="bob")  # nobody hears it, nobody fails
            redis.start()
            await eventually(lambda: len(seen[-1].snapshot.keys) == 2)
            await reader.aclose()
            await database.aclose()


OPERATION = st.tuples(st.sampled_from(["create", "rotate", "revoke", "wait"]), st.integers(0, 2))


@settings(max_examples=25)
@given(st.lists(OPERATION, max_size=12))
def test_exactly_the_secrets_that_should_work_do(operations: list[tuple[str, int]]) -> None:
    asyncio.run(_follow(operations))


async def _follow(operations: list[tuple[str, int]]) -> None:
    """Play the operations on a gateway and on a plain model of it: (secret, key, end)."""
    clock, model, revoked = Clock(), [("sk-filed", "filed", float("inf"))], set()
    async with process("sqlite:///:memory:", clock, keys=FILE) as one:
        for action, number in operations:
            name = f"key-{number}"
            exists = any(key == name for _, key, _ in model)
            if action == "wait":
                clock.now += 40
            elif action == "create" and not exists:
                model.append(((await one.service.create_key(ROOT, {}, name=name)).secret, name, float("inf")))
            elif action == "rotate" and exists and name not in revoked:
                fresh = (await one.service.rotate_key(ROOT, name, overlap_s=60)).secret
                model = [(s, k, min(end, clock.now + 60) if k == name else end) for s, k, end in model]
                model.append((fresh, name, float("inf")))
            elif action == "revoke" and exists:
                await one.service.revoke_key(ROOT, name)
                revoked.add(name)
        for secret, key, end in model:
            works = key not in revoked and clock.now < end
            assert holder(one, secret) == (key if works else 401)
