"""The rules for tenants and keys, on both databases."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from sqlalchemy import text

from sluice_gateway.auth import digest
from sluice_gateway.errors import Failure
from sluice_gateway.identity import LimitValues
from sluice_gateway.keys.records import Actor, Refused
from sluice_gateway.keys.service import KeyService
from sluice_gateway.keys.snapshot import FileKeys
from sluice_gateway.store.database import Database

from .clock import Clock

FILE_LESS = FileKeys([], [])
ROOT = Actor("root", "req-1")


async def refused(action: object) -> Refused:
    with pytest.raises(Refused) as raised:
        await action  # type: ignore[misc]
    return raised.value


async def test_a_key_is_shown_without_its_secret_and_kept_as_a_digest(
    service: KeyService, database: Database, clock: Clock
) -> None:
    issued = await service.create_key(
        ROOT,
        {"scopes": {"models": ["llama-*"]}, "limits": {"budget_per_day": 2.5}},
        name="alice",
        tenant="lab",
    )
    assert issued.secret.startswith("sk-sluice-")
    shown = await service.key("alice")
    assert shown == issued.key
    assert (shown.tenant, shown.scopes.models) == ("lab", frozenset({"llama-*"}))
    assert shown.limits == LimitValues(budget_per_day=2.5)
    assert shown.secrets[0].hint == issued.secret[-4:]
    async with database.read() as connection:
        rows = [str(row) for table in ("keys", "key_secrets", "audit") for row in
                await connection.execute(text(f"SELECT * FROM {table}"))]  # fmt: skip
    assert any(digest(issued.secret) in row for row in rows)
    assert not any(issued.secret in row for row in rows)


async def test_a_change_touches_only_what_it_names(service: KeyService) -> None:
    said = {
        "description": "d",
        "limits": {"concurrent": 3, "tokens_per_min": 9},
        "scopes": {"quants": ["int8"]},
    }
    await service.create_key(ROOT, said, name="alice")
    await service.update_key(ROOT, "alice", {"limits": {"concurrent": None}, "scopes": {"admin": True}})
    found = await service.key("alice")
    assert found.description == "d"
    assert found.limits == LimitValues(tokens_per_min=9)
    assert (found.scopes.quants, found.scopes.admin) == (frozenset({"int8"}), True)


async def test_a_rotated_key_has_both_secrets_until_the_overlap_is_over(
    service: KeyService, clock: Clock
) -> None:
    await service.create_key(ROOT, {}, name="alice")
    clock.now += 10
    second = await service.rotate_key(ROOT, "alice", overlap_s=60)
    clock.now += 10
    third = await service.rotate_key(ROOT, "alice", overlap_s=3600)
    ends = [secret.expires_at for secret in third.key.secrets]
    assert ends == [clock.now - 10 + 60, clock.now + 3600, None]  # the first one's end did not move
    assert third.secret != second.secret


async def test_a_revoked_key_cannot_be_brought_back(service: KeyService, clock: Clock) -> None:
    await service.create_key(ROOT, {}, name="alice")
    assert (await service.revoke_key(ROOT, "alice")).revoked_at == clock.now
    assert (await service.revoke_key(ROOT, "alice")).revoked_at == clock.now
    for action in (service.rotate_key(ROOT, "alice"), service.update_key(ROOT, "alice", {})):
        assert (await refused(action)).problem.status == 409


async def test_a_tenant_with_working_keys_stays(service: KeyService) -> None:
    await service.create_tenant(ROOT, "blue", {})
    await service.create_key(ROOT, {}, name="alice", tenant="blue")
    found = await refused(service.delete_tenant(ROOT, "blue"))
    assert (found.problem.status, "alice" in found.problem.message) == (409, True)
    await service.revoke_key(ROOT, "alice")
    await service.delete_tenant(ROOT, "blue")
    assert (await refused(service.tenant("blue"))).problem.status == 404
    assert (await refused(service.key("alice"))).problem.status == 404


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"limits": {"requests_per_min": 0}}, "limits.requests_per_min"),
        ({"limits": {"requests_per_minute": 1}}, "limits"),
        ({"scopes": {"quants": ["int2"]}}, "scopes.quants[0]"),
        ({"scopes": {"endpoints": ["chatting"]}}, "scopes.endpoints[0]"),
        ({"scopes": {"models": [""]}}, "scopes.models[0]"),
        ({"description": "x" * 501}, "description"),
        ({"expires_at": -1.0}, "expires_at"),
        ({"secret": "mine"}, None),
    ],
)
async def test_a_wrong_value_is_named_and_nothing_is_made(said: dict[str, object], param: str | None) -> None:
    service = KeyService(Database("sqlite:///:memory:"), FILE_LESS)
    found = await refused(service.create_key(ROOT, said))
    assert (found.problem.status, found.problem.param) == (400, param)


async def test_ids_are_plain_and_taken_once(service: KeyService) -> None:
    await service.create_key(ROOT, {}, name="alice")
    for name, status in (
        ("alice", 409),
        ("from-file", 409),
        ("", 400),
        ("a b", 400),
        ("-a", 400),
        ("ä", 400),
    ):
        assert (await refused(service.create_key(ROOT, {}, name=name))).problem.status == status
    await service.create_tenant(ROOT, "blue", {})
    for name, status in (("blue", 409), ("written", 409), ("x" * 65, 400)):
        assert (await refused(service.create_tenant(ROOT, name, {}))).problem.status == status


async def test_a_key_needs_a_tenant_that_exists(service: KeyService) -> None:
    for tenant in ("default", "lab", "written"):
        await service.create_key(ROOT, {}, tenant=tenant)
    found = await refused(service.create_key(ROOT, {}, tenant="nobody"))
    assert (found.problem.param, "sluice tenants create nobody" in found.problem.message) == ("tenant", True)


async def test_what_the_file_says_is_shown_and_not_changed(service: KeyService) -> None:
    assert (await service.key("from-file")).source == "file"
    assert [t.id for t in await service.tenants()] == ["written"]
    for action in (
        service.update_key(ROOT, "from-file", {}),
        service.rotate_key(ROOT, "from-file"),
        service.revoke_key(ROOT, "from-file"),
        service.update_tenant(ROOT, "written", {}),
        service.delete_tenant(ROOT, "written"),
    ):
        found = await refused(action)
        assert (found.problem.status, "configuration file" in found.problem.message) == (409, True)


async def test_a_list_comes_in_parts_that_miss_nothing(service: KeyService) -> None:
    for number in range(7):
        await service.create_key(ROOT, {}, name=f"key-{number}")
    seen: list[str] = []
    after = None
    for _ in range(4):
        page = await service.keys(after=after, count=2)
        seen += [key.id for key in page.items]
        after = seen[-1]
    assert seen == ["from-file", *(f"key-{number}" for number in range(7))]
    assert not page.has_more
    assert [key.id for key in (await service.keys(tenant="lab")).items] == ["from-file"]


async def test_every_action_is_in_the_log_with_what_it_changed(service: KeyService, clock: Clock) -> None:
    await service.create_tenant(ROOT, "blue", {})
    secret = (await service.create_key(ROOT, {}, name="alice", tenant="blue")).secret
    await service.update_key(Actor("cli"), "alice", {"limits": {"concurrent": 2}})
    await service.rotate_key(ROOT, "alice")
    await service.revoke_key(ROOT, "alice")
    await service.delete_tenant(ROOT, "blue")
    await service.record(ROOT, "backend.drain", "gpu", {"draining": False}, {"draining": True})
    page = await service.audit(count=100)
    assert [entry.action for entry in reversed(page.items)] == [
        *("tenant.create", "key.create", "key.update", "key.rotate", "key.revoke", "tenant.delete"),
        "backend.drain",
    ]
    update = page.items[-3]
    assert (update.actor, update.subject, update.at, update.request_id) == ("cli", "alice", clock.now, None)
    before, after = (msgspec.json.decode(raw or b"")["limits"] for raw in (update.before, update.after))
    assert (before["concurrent"], after["concurrent"]) == (None, 2)
    assert page.items[0].request_id == "req-1"
    written = msgspec.json.encode(page).decode()
    assert secret not in written
    assert digest(secret) not in written
    first = await service.audit(count=2)
    rest = await service.audit(after=first.items[-1].id, count=100)
    assert [*first.items, *rest.items] == page.items
    assert first.has_more
    assert not rest.has_more


async def test_a_refused_action_leaves_neither_row_nor_log_entry(service: KeyService) -> None:
    await service.create_key(ROOT, {}, name="alice")
    await refused(service.create_key(ROOT, {}, name="alice"))
    assert len((await service.audit()).items) == 1


async def test_of_two_that_make_the_same_key_one_is_told_so(store_url: str, clock: Clock) -> None:
    databases = [Database(store_url) for _ in range(4)]
    services = [KeyService(database, FILE_LESS, wall_clock=clock) for database in databases]
    results = await asyncio.gather(
        *(service.create_key(ROOT, {}, name="alice") for service in services), return_exceptions=True
    )
    losers = [result for result in results if isinstance(result, Refused)]
    assert [loser.problem.failure for loser in losers] == [Failure.CONFLICT] * 3
    assert len((await services[0].keys()).items) == 1
    for database in databases:
        await database.aclose()


async def test_without_the_store_nothing_is_changed_and_that_is_said() -> None:
    database = Database("postgresql://sluice@127.0.0.1:1/none")
    found = await refused(KeyService(database, FILE_LESS).create_key(ROOT, {}))
    assert (found.problem.status, found.problem.code) == (503, "store_unavailable")
    await database.aclose()
