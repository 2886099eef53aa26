"""The admin API from outside: make a key, use it, change it, lose it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec

from sluice_gateway.auth import digest

from ..serving import ECHO, Served, chat, serving, settings_of

ADMIN = {"x-api-key": "sk-admin"}
KEYS = [
    {"id": "root", "sha256": digest("sk-admin"), "admin": True},
    {"id": "user", "sha256": digest("sk-user"), "tenant": "lab"},
]


def settings(**sections: Any) -> Any:
    return settings_of(backends=[ECHO], keys=KEYS, **sections)


async def ask(served: Served, method: str, path: str, body: Any = None) -> httpx.Response:
    return await served.http.request(method, f"/admin/v1{path}", json=body, headers=ADMIN)


async def status_with(served: Served, secret: str, model: str = "echo") -> int:
    answer = await served.http.post(
        "/v1/chat/completions", json=chat(model), headers={"authorization": f"Bearer {secret}"}
    )
    return answer.status_code


async def test_a_keys_whole_life() -> None:
    async with serving(settings()) as served:
        tenant = await ask(served, "POST", "/tenants", {"id": "blue", "limits": {"budget_per_month": 9}})
        assert (tenant.status_code, tenant.json()["limits"]["budget_per_month"]) == (201, 9)
        made = await ask(served, "POST", "/keys", {"id": "alice", "tenant": "blue"})
        assert made.status_code == 201
        secret = made.json()["secret"]
        assert await status_with(served, secret) == 200
        changed = await ask(served, "PATCH", "/keys/alice", {"scopes": {"models": ["llama-*"]}})
        assert changed.json()["scopes"]["models"] == ["llama-*"]
        assert await status_with(served, secret) == 403
        await ask(served, "PATCH", "/keys/alice", {"scopes": {"models": None}})
        rotated = await ask(served, "POST", "/keys/alice/rotate", {"overlap_s": 3600})
        fresh = rotated.json()["secret"]
        assert (await status_with(served, secret), await status_with(served, fresh)) == (200, 200)
        assert (await ask(served, "DELETE", "/tenants/blue")).status_code == 409
        revoked = await ask(served, "POST", "/keys/alice/revoke", {})
        assert revoked.json()["revoked_at"]
        assert (await status_with(served, secret), await status_with(served, fresh)) == (401, 401)
        assert (await ask(served, "DELETE", "/tenants/blue")).status_code == 204
        assert (await ask(served, "GET", "/keys/alice")).status_code == 404


async def test_only_the_models_that_a_key_may_use_are_listed() -> None:
    async with serving(settings()) as served:
        said = {"scopes": {"models": ["qwen*"]}}
        secret = (await ask(served, "POST", "/keys", said)).json()["secret"]
        answer = await served.http.get("/v1/models", headers={"x-api-key": secret})
        assert answer.json()["data"] == []


async def test_lists_come_in_parts() -> None:
    async with serving(settings()) as served:
        for number in range(3):
            await ask(served, "POST", "/keys", {"id": f"key-{number}"})
        first = (await ask(served, "GET", "/keys?limit=4")).json()
        rest = (await ask(served, "GET", f"/keys?limit=4&after={first['last_id']}")).json()
        assert [key["id"] for key in (*first["data"], *rest["data"])] == [
            *("root", "user"), *(f"key-{number}" for number in range(3))
        ]  # fmt: skip
        assert (first["object"], first["has_more"], rest["has_more"]) == ("list", True, False)
        only = (await ask(served, "GET", "/keys?tenant=lab")).json()["data"]
        assert [(key["id"], key["source"]) for key in only] == [("user", "file")]
        assert (await ask(served, "GET", "/tenants")).json()["data"] == []


async def test_the_log_says_who_did_what_and_in_which_request() -> None:
    async with serving(settings()) as served:
        answer = await ask(served, "POST", "/keys", {"id": "alice", "description": "for tests"})
        await ask(served, "PATCH", "/keys/alice", {"description": "for more"})
        log = (await ask(served, "GET", "/audit")).json()["data"]
    assert [(entry["actor"], entry["action"], entry["subject"]) for entry in log] == [
        ("root", "key.update", "alice"),
        ("root", "key.create", "alice"),
    ]
    assert log[1]["request_id"] == answer.headers["x-request-id"]
    assert (log[0]["before"]["description"], log[0]["after"]["description"]) == ("for tests", "for more")
    assert answer.json()["secret"] not in msgspec.json.encode(log).decode()


WRONG: list[tuple[str, str, Any, int, str | None]] = [
    ("POST", "/keys", {"limits": {"requests_per_min": 0}}, 400, "limits.requests_per_min"),
    ("POST", "/keys", {"id": "a b"}, 400, "id"),
    ("POST", "/keys", {"tenant": "nobody"}, 400, "tenant"),
    ("POST", "/keys", {"scope": {}}, 400, "scope"),
    ("POST", "/keys", {"description": "\x00"}, 400, "description"),
    ("POST", "/keys", {"description": "\ud800"}, 400, "description"),
    ("POST", "/keys", {"expires_at": 1e300}, 400, "expires_at"),
    ("POST", "/keys", {"id": "user"}, 409, None),
    ("POST", "/keys", [], 400, None),
    ("PATCH", "/keys/user", {}, 409, None),
    ("POST", "/keys/user/revoke", {}, 409, None),
    ("POST", "/keys/nobody/revoke", {}, 404, None),
    ("POST", "/keys/nobody/rotate", {"overlap_s": -1}, 400, "overlap_s"),
    ("GET", "/keys/%00", None, 400, "key_id"),
    ("GET", "/keys?limit=0", None, 400, "limit"),
    ("GET", "/keys?after=%00", None, 400, "after"),
    ("GET", "/audit?after=99999999999999999999", None, 400, "after"),
    ("GET", "/nothing", None, 404, None),
    ("PUT", "/keys", {}, 405, None),
]


async def test_what_cannot_be_is_an_error_in_openais_shape() -> None:
    async with serving(settings()) as served:
        for method, path, body, status, param in WRONG:
            answer = await served.http.request(
                method,
                f"/admin/v1{path}",
                content=None if body is None else json.dumps(body).encode(),
                headers={**ADMIN, "content-type": "application/json"},
            )
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert (answer.status_code, error["param"]) == (status, param), (method, path, body)
        assert (await ask(served, "GET", "/audit")).json()["data"] == []
        assert "Traceback" not in served.log.getvalue()


async def test_without_the_store_administration_says_to_try_again() -> None:
    away = {"url": "postgresql://sluice@127.0.0.1:1/none"}
    async with serving(settings(store=away)) as served:
        for method, path in (
            ("GET", "/keys"),
            ("POST", "/keys"),
            ("GET", "/audit"),
            ("DELETE", "/tenants/a"),
        ):
            answer = await ask(served, method, path, {} if method == "POST" else None)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
            assert answer.headers["retry-after"]
        assert await status_with(served, "sk-user") == 200


async def test_the_documentation_has_every_path_with_its_schemas() -> None:
    async with serving(settings()) as served:
        page = (await served.http.get("/openapi.json")).json()
    paths = {path: set(item) for path, item in page["paths"].items() if path.startswith("/admin/v1")}
    assert paths["/admin/v1/keys"] == {"get", "post"}
    assert paths["/admin/v1/keys/{key_id}"] == {"get", "patch"}
    assert paths["/admin/v1/tenants/{tenant_id}"] == {"get", "patch", "delete"}
    assert {"/admin/v1/keys/{key_id}/rotate", "/admin/v1/keys/{key_id}/revoke", "/admin/v1/audit"} <= set(
        paths
    )
    create = page["paths"]["/admin/v1/keys"]["post"]
    assert create["security"] == [{"HTTPBearer": []}]
    assert create["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/KeyBody")
    assert page["components"]["schemas"]["KeyView"]["properties"]["secrets"]
