"""The ledger's two faces: `/admin/v1/usage` and `sluice usage`."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import typer
from fastapi import FastAPI, Request, Response
from typer.testing import CliRunner

from sluice_gateway.admin.gate import AdminGate
from sluice_gateway.admin.usage import usage_router
from sluice_gateway.auth import Keyring, digest
from sluice_gateway.commands.usage import usage
from sluice_gateway.exchange import Exchange
from sluice_gateway.identity import Key, Scopes
from sluice_gateway.keys.records import Refused
from sluice_gateway.ledger.archive import Archive
from sluice_gateway.ledger.report import UsageReport
from sluice_gateway.ledger.row import row_of
from sluice_gateway.problem_response import problem_response
from sluice_gateway.store.database import Database
from sluice_gateway.wire import Receive, Scope, Send

from .requests import NOON, request

KEYS = Keyring(
    {
        digest("root"): Key(id="root", scopes=Scopes(admin=True)),
        digest("user"): Key(id="user"),
    }
)


async def on_refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return problem_response(error.problem)


def client(database: Database) -> httpx.AsyncClient:
    """The routes behind the gate, asked with an administrator's key."""
    app = FastAPI()
    app.add_exception_handler(Refused, on_refused)
    app.include_router(usage_router(UsageReport(database), lambda: NOON))
    gate = AdminGate(app, KEYS, ())

    async def front_door(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"request_id": "req_1"}
        await gate(scope, receive, send)

    return httpx.AsyncClient(
        transport=httpx.ASGITransport(front_door),
        base_url="http://gateway",
        headers={"authorization": "Bearer root"},
    )


async def store(database: Database, *exchanges: Exchange, time_s: float = NOON - 60) -> None:
    await Archive(database).insert([row_of(e, 1, number, time_s) for number, e in enumerate(exchanges)])


async def test_sums_over_http(sqlite: Database) -> None:
    await store(sqlite, request(model="a", cost=0.5), request(model="b"), request(model="b"))
    async with client(sqlite) as http:
        answer = await http.get("/admin/v1/usage", params={"by": "model", "since": "1d", "limit": 1})
        page = answer.json()
        assert [(line["group"], line["requests"], line["cost"]) for line in page["data"]] == [
            ({"model": "a"}, 1, 0.5)
        ]
        rest = await http.get("/admin/v1/usage", params={"by": "model", "offset": page["next_offset"]})
    assert rest.json()["data"][0]["requests"] == 2
    assert rest.json()["next_offset"] is None


async def test_rows_over_http(sqlite: Database) -> None:
    await store(sqlite, *(request(f"req_{n}", tenant="acme" if n else "other") for n in range(3)))
    async with client(sqlite) as http:
        first = (await http.get("/admin/v1/usage/requests?tenant=acme&limit=1")).json()
        second = (
            await http.get(f"/admin/v1/usage/requests?tenant=acme&limit=1&after={first['next_cursor']}")
        ).json()
    assert [row["request_id"] for page in (first, second) for row in page["data"]] == ["req_2", "req_1"]
    assert second["next_cursor"] is None


async def test_only_for_those_who_may_administer(sqlite: Database) -> None:
    async with client(sqlite) as http:
        for path in ("/admin/v1/usage", "/admin/v1/usage/requests"):
            for bearer, status in (("nobody", 401), ("user", 403), ("root", 200)):
                answer = await http.get(path, headers={"authorization": f"Bearer {bearer}"})
                assert answer.status_code == status


@pytest.mark.parametrize(
    "query",
    ["by=colour", "by=model,model", "since=yesterday", "until=never", "requests?after=x"],
)
async def test_a_bad_question_is_400_with_the_reason(sqlite: Database, query: str) -> None:
    path = f"/admin/v1/usage/{query}" if query.startswith("requests") else f"/admin/v1/usage?{query}"
    async with client(sqlite) as http:
        answer = await http.get(path)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_a_database_that_is_away_is_503() -> None:
    database = Database("postgresql://sluice@127.0.0.1:1/none")
    async with client(database) as http:
        answer = await http.get("/admin/v1/usage")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration whose store is in this folder."""
    path = tmp_path / "sluice.yaml"
    path.write_text(f"store: {{url: 'sqlite:///{tmp_path}/store.db'}}\n")
    monkeypatch.setenv("COLUMNS", "160")
    yield path


async def run(*arguments: str) -> tuple[int, str]:
    """Exit status and output; in a thread, since a command has an event loop of its own."""
    app = typer.Typer()
    app.command()(usage)
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


async def test_the_command_prints_a_table(configured: Path, sqlite: Database) -> None:
    await store(sqlite, request(model="[red]m", cost=1.25), time_s=NOON)
    status, out = await run("-c", str(configured), "--by", "model,day", "--since", "2026-01-01")
    assert status == 0, out
    head, line = out.splitlines()[:2]
    assert head.split()[:3] == ["model", "day", "requests"]
    assert line.split()[:3] == ["[red]m", "2026-01-01", "1"]
    assert "1.250000" in line


async def test_the_command_prints_lines_for_programs(configured: Path, sqlite: Database) -> None:
    await store(sqlite, request(model="=cmd()", tenant="a"), request(tenant="b"), time_s=NOON)
    since = ("-c", str(configured), "--since", "2026-01-01")

    _, as_json = await run(*since, "--json", "--tenant", "b")
    _, as_csv = await run(*since, "--csv")

    (line,) = [json.loads(text) for text in as_json.splitlines()]
    assert (line["tenant"], line["model"], line["requests"]) == ("b", "m", 1)
    table = list(csv.DictReader(io.StringIO(as_csv)))
    assert [(row["tenant"], row["model"], row["prompt_tokens"]) for row in table] == [
        ("a", "'=cmd()", "10"),
        ("b", "m", "10"),
    ]


async def test_the_command_says_what_is_wrong(configured: Path) -> None:
    assert (await run("-c", str(configured), "--by", "colour"))[0] == 2
    assert (await run("-c", str(configured), "--since", "never"))[0] == 2
    assert (await run("-c", str(configured), "--json", "--csv"))[0] == 2


async def test_no_requests_is_said(configured: Path) -> None:
    assert await run("-c", str(configured)) == (0, "No requests in this time.\n")
