"""Another configuration while requests run: nobody notices, and nothing of the old one stays."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from sluice_gateway import config
from sluice_gateway.config import ConfigError
from sluice_gateway.overseer import Alone
from sluice_gateway.reload import LIVE, refuse_fixed
from sluice_gateway.settings import Server, Settings

from .conftest import StartEngine
from .managed_engine import PROGRAM as FAKE_ENGINE
from .scripted_engine import Call, ScriptedEngine
from .serving import ECHO, IN_MEMORY, Served, chat, eventually, serving, settings_of

CHAT = "/v1/chat/completions"
RELOADS = 10


def engine(name: str, url: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "adapter": "openai_compatible", "url": url, **more}


async def answer(call: Call) -> None:
    await call.answer(200, {"choices": [{"message": {"content": "hi"}}], "usage": {}})


async def test_a_reload_a_moment_under_load_is_noticed_by_nobody(start_engine: StartEngine) -> None:
    one, two = await start_engine(answer), await start_engine(answer)
    served: Served
    async with serving(settings_of(backends=[engine("a", one.url)])) as served:
        statuses: list[int] = []
        ending = asyncio.Event()

        async def visitor() -> None:
            while not ending.is_set():
                statuses.append((await served.http.post(CHAT, json=chat())).status_code)

        await served.http.post(CHAT, json=chat())
        await served.until_idle()
        tasks = len(asyncio.all_tasks())
        visitors = [asyncio.create_task(visitor()) for _ in range(4)]
        for number in range(RELOADS):
            urls = (one.url, two.url)[number % 2]
            settings = settings_of(backends=[engine("a", urls)], queue={"max_waiting": 100 + number})
            assert await served.gateway.reload(settings) == number + 2
            before = len(statuses)
            await eventually(lambda before=before: len(statuses) > before + 10)
        ending.set()
        await asyncio.gather(*visitors)
        assert set(statuses) == {200}
        await served.until_idle()
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        assert served.metric("requests_total", kind="chat", backend="a", outcome="ok") == len(statuses) + 1
        assert served.metric("requests_in_flight") == 0


async def test_a_stream_ends_on_the_engine_that_it_began_on(start_engine: StartEngine) -> None:
    go_on = asyncio.Event()

    async def slow(call: Call) -> None:
        await call.start_events()
        await call.write(b'data: {"choices":[{"delta":{"content":"old"}}]}\n\n')
        await go_on.wait()
        await call.write(b"data: [DONE]\n\n")
        await call.end()

    old, new = await start_engine(slow), await start_engine(answer)
    async with serving(settings_of(backends=[engine("a", old.url)])) as served:
        async with served.http.stream("POST", CHAT, json=chat(stream=True)) as stream:
            pieces = stream.aiter_bytes()
            seen = await anext(pieces)
            await served.gateway.reload(settings_of(backends=[engine("b", new.url)]))
            assert (await served.http.post(CHAT, json=chat())).headers["x-sluice-backend"] == "b"
            assert served.metric("requests_in_flight") == 1
            go_on.set()
            seen += b"".join([piece async for piece in pieces])
        assert b"old" in seen
        assert b"[DONE]" in seen
        await eventually(lambda: "the last request of configuration 1 has ended" in served.log.getvalue())


class ProbedEngine(ScriptedEngine):
    """Counts how often it was asked for its models."""

    probes = 0

    @property
    def models(self) -> tuple[str, ...]:
        self.probes += 1
        return ("m",)

    @models.setter
    def models(self, _: tuple[str, ...]) -> None:
        pass


async def test_probes_of_the_old_configuration_stop_while_its_last_request_still_runs() -> None:
    go_on = asyncio.Event()

    async def slow(call: Call) -> None:
        await go_on.wait()
        await answer(call)

    old, new = ProbedEngine(slow), ProbedEngine(answer)
    await asyncio.gather(old.start(), new.start())
    async with serving(settings_of(backends=[engine("a", old.url)])) as served:
        running = asyncio.create_task(served.http.post(CHAT, json=chat()))
        await eventually(lambda: len(old.calls) == 1 and old.probes > 2)
        await served.gateway.reload(settings_of(backends=[engine("a", new.url)]))
        known = old.probes
        await eventually(lambda: new.probes > 5)
        assert old.probes == known
        go_on.set()
        assert (await running).status_code == 200
    await asyncio.gather(old.stop(), new.stop())


async def test_limits_prices_keys_and_origins_take_effect(start_engine: StartEngine) -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        assert (await served.http.post(CHAT, json=chat("echo"))).status_code == 200
        changed = settings_of(
            backends=[ECHO],
            keys=[{"id": "k", "sha256": "0" * 64}],
            cors={"allow_origins": ["https://new.example"]},
            aliases={"nick": [{"model": "echo"}]},
        )
        await served.gateway.reload(changed)
        answered = await served.http.post(CHAT, json=chat("echo"), headers={"origin": "https://new.example"})
        assert answered.status_code == 401
        assert answered.headers["access-control-allow-origin"] == "https://new.example"
        await served.gateway.reload(
            settings_of(backends=[ECHO], limits={"models": {"echo": {"requests_per_min": 1}}})
        )
        statuses = [(await served.http.post(CHAT, json=chat("echo"))).status_code for _ in range(2)]
        assert statuses == [200, 429]


async def test_what_needs_a_restart_is_refused_by_name_and_nothing_changes() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        other = {**ECHO, "models": ["other"]}
        wrong = settings_of(backends=[other], server={"port": 9, "workers": 3})
        with pytest.raises(ConfigError, match=r"'server\.port', 'server\.workers'"):
            await served.gateway.reload(wrong)
        assert (await served.http.post(CHAT, json=chat("echo"))).status_code == 200


async def test_an_engine_that_cannot_be_started_leaves_all_as_it_was() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        managed = {"name": "x", "adapter": "worker", "managed": {"command": ["no-such-engine"]}}
        with pytest.raises(ConfigError, match="no-such-engine"):
            await served.gateway.reload(settings_of(backends=[managed]))
        assert (await served.http.post(CHAT, json=chat("echo"))).status_code == 200


def test_every_section_is_either_live_or_fixed() -> None:
    names = {name.partition(".")[0] for name in LIVE}
    assert names <= set(Settings.__struct_fields__)
    before = settings_of()
    changed = msgspec.structs.replace(before, server=Server(drain_s=1.0), keys=())
    refuse_fixed(before, changed)


def test_the_documentation_names_what_takes_effect_at_once() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    rows = [
        line.split("|")[1] for line in page.splitlines() if line.startswith("| `") and line.count("|") == 3
    ]
    documented = {name for row in rows[:3] for name in re.findall(r"`([a-z_.]+)`", row)}
    assert documented == LIVE


async def test_the_administrator_is_told_the_line(tmp_path: Path) -> None:
    file = tmp_path / "sluice.yaml"

    def read() -> Settings:
        loaded = config.load(file, {})
        return msgspec.structs.replace(loaded, store=msgspec.convert(IN_MEMORY, type(loaded.store)))

    file.write_text(
        "backends:\n  - {name: echo, adapter: echo, models: [fresh]}\nhealth: {interval_s: 0.05}\n"
    )
    async with serving(settings_of(backends=[ECHO])) as served:
        refused = await served.http.post("/admin/v1/reload", json={})
        assert refused.status_code == 400
        served.gateway.overseer = Alone(served.gateway, read)
        done = await served.http.post("/admin/v1/reload", json={})
        assert done.json() == {"status": "reloaded", "configuration": 2}
        assert (await served.http.get("/v1/models")).json()["data"][0]["id"] == "fresh"
        file.write_text("backends: []\nlimit: {}\n")
        wrong = await served.http.post("/admin/v1/reload", json={})
        assert "line 2: limit: unknown key" in wrong.json()["error"]["message"]


async def test_a_managed_engine_that_did_not_change_goes_on_and_another_is_stopped(tmp_path: Path) -> None:
    program = tmp_path / "engine.py"
    program.write_text(FAKE_ENGINE)

    def managed(name: str) -> dict[str, Any]:
        command = [sys.executable, str(program), "{port}", name]
        return {"name": name, "adapter": "openai_compatible", "managed": {"command": command}}

    async with serving(settings_of(backends=[managed("stays"), managed("goes")])) as served:
        gateway = served.gateway
        await eventually(lambda: all(r.healthy for r in gateway.router.snapshot().replicas))
        address = {e.backend.name: e.endpoint.url for e in gateway.engines}
        await gateway.reload(settings_of(backends=[managed("stays"), managed("comes")]))
        await eventually(lambda: all(r.healthy for r in gateway.router.snapshot().replicas))
        now = {e.backend.name: e.endpoint.url for e in gateway.engines}
        assert now["stays"] == address["stays"]
        assert set(now) == {"stays", "comes"}
        assert served.log.getvalue().count("engine stays can serve") == 1
        assert "engine stays: its process ended" not in served.log.getvalue()
        await eventually(lambda: _is_closed(address["goes"]))


def _is_closed(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(url).port)) != 0
