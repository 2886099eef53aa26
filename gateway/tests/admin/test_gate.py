"""Who may administer, and from where."""

from __future__ import annotations

import asyncio

from sluice_gateway.auth import digest

from ..serving import ECHO, Served, serving, settings_of

KEYS = [
    {"id": "root", "sha256": digest("sk-admin"), "admin": True},
    {"id": "user", "sha256": digest("sk-user")},
]
JSON = {"content-type": "application/json"}


async def status(served: Served, method: str = "GET", path: str = "/keys", **headers: str) -> tuple[int, str]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    content = b"{}" if method == "POST" else None
    answer = await served.http.request(method, f"/admin/v1{path}", headers=names, content=content)
    return answer.status_code, "" if answer.is_success else answer.json()["error"]["code"]


async def test_it_takes_a_key_with_the_scope() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served:
        assert await status(served) == (401, "invalid_api_key")
        assert await status(served, x_api_key="sk-wrong") == (401, "invalid_api_key")
        assert await status(served, x_api_key="sk-user") == (403, "admin_not_allowed")
        assert await status(served, x_api_key="sk-user", path="/nothing") == (403, "admin_not_allowed")
        assert await status(served, x_api_key="sk-admin") == (200, "")


async def test_without_keys_the_machines_own_user_may() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        assert await status(served) == (200, "")
        assert await status(served, "POST", **JSON) == (201, "")
        # From here on there is a key, and nothing is open any more.
        assert await status(served) == (401, "invalid_api_key")


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9"},
    {"origin": "http://127.0.0.1.evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


async def test_without_keys_no_foreign_page_may() -> None:
    async with serving(settings_of(backends=[ECHO], cors={"allow_origins": ["*"]})) as served:
        for headers in FOREIGN:
            for method in ("GET", "POST"):
                assert await status(served, method, **headers, **JSON) == (403, "origin_not_allowed"), headers
        assert served.gateway.keyring.is_open


async def test_its_own_page_and_a_trusted_one_may() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        for origin in (served.url, "http://localhost:3000"):
            assert await status(served, origin=origin) == (200, "")
        assert await status(served, sec_fetch_site="same-origin") == (200, "")


async def test_with_a_key_the_origin_does_not_matter() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served:
        assert await status(served, x_api_key="sk-admin", origin="https://evil.example") == (200, "")


async def test_what_browsers_send_without_asking_changes_nothing() -> None:
    simple = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "")
    async with serving(settings_of(backends=[ECHO])) as served:
        for media_type in simple:
            assert await status(served, "POST", content_type=media_type) == (415, "unsupported_media_type")
        assert served.gateway.keyring.is_open


async def test_a_large_body_is_refused_before_it_is_read() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served:
        for key, expected in (("sk-admin", 413), ("sk-user", 403)):
            answer = await served.http.post(
                "/admin/v1/keys", content=b" " * 100_000, headers={"x-api-key": key, **JSON}
            )
            assert answer.status_code == expected


async def test_a_client_that_leaves_half_way_leaves_no_trace() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        host, port = served.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /admin/v1/keys HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 10\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert await status(served) == (200, "")
        assert "Traceback" not in served.log.getvalue()


async def test_no_path_around_the_gate() -> None:
    async with serving(settings_of(backends=[ECHO], keys=KEYS)) as served:
        for path in (
            "//admin/v1/keys",
            "/admin//v1/keys",
            "/Admin/v1/keys",
            "/admin/v1/../v1/keys",
            "/admin",
        ):
            answer = await served.http.get(f"{served.url}{path}")
            assert answer.status_code in (401, 404), path
