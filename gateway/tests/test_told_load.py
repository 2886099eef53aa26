"""Load that comes with answers: read soon, never on a request's way, and never more than the pages allow."""

from __future__ import annotations

import asyncio

import pytest

from sluice_engines.load_report import LoadReport
from sluice_engines.vllm import REPORT
from sluice_gateway.told_load import READ_AFTER_S, ToldLoad, over
from sluice_router.types import EngineLoad

from .conftest import StartEngine
from .scripted_engine import Call
from .serving import chat, eventually, serving, settings_of

PAGE = b'vllm:num_requests_running{engine="0"} 3\nvllm:kv_cache_usage_perc{engine="0"} 0.1\n'
ANSWER = b'{"id":"1","object":"chat.completion","choices":[]}'


class Heard:
    """A `ToldLoad` whose clock stands, and what it has recorded."""

    def __init__(self, report: LoadReport = REPORT) -> None:
        self.now_s = 0.0
        self.loads: list[EngineLoad] = []
        self.told = ToldLoad(report, self.loads.append, 1.5, lambda: self.now_s)

    async def tell(self, *values: bytes) -> None:
        for value in values:
            self.told.tell(value)
        await asyncio.sleep(3 * READ_AFTER_S)


def kv(share: float, waiting: float | None = None) -> bytes:
    more = "" if waiting is None else f", named_metrics.num_requests_waiting={waiting}"
    return f"TEXT named_metrics.kv_cache_usage_perc={share}{more}".encode()


async def test_of_many_answers_the_last_is_read_once() -> None:
    heard = Heard()

    await heard.tell(*(kv(n / 1000) for n in range(1000)))

    assert heard.loads == [EngineLoad(kv_used_ratio=0.999)]


async def test_a_report_goes_over_what_the_pages_said_until_they_are_old() -> None:
    heard = Heard()
    heard.told.note_pages(EngineLoad(running=3, kv_used_ratio=0.1, generation_tokens=70))

    await heard.tell(kv(0.5))
    heard.now_s = 2.0
    await heard.tell(kv(0.6))

    assert heard.loads == [
        EngineLoad(running=3, kv_used_ratio=0.5, generation_tokens=70),
        EngineLoad(kv_used_ratio=0.6),
    ]


async def test_the_same_again_is_news_too() -> None:
    heard = Heard()
    heard.told.note_pages(EngineLoad(kv_used_ratio=0.5))

    await heard.tell(kv(0.5))

    assert heard.loads == [EngineLoad(kv_used_ratio=0.5)]


async def test_pages_are_newer_than_a_report_that_was_not_read_yet() -> None:
    heard = Heard()
    heard.told.tell(kv(0.5))
    heard.told.note_pages(EngineLoad(kv_used_ratio=0.1))
    await asyncio.sleep(3 * READ_AFTER_S)

    assert heard.loads == []


@pytest.mark.parametrize("value", [b"", b"TEXT kv=much", b"JSON {", b"TEXT cpu_utilization=0.5"])
async def test_what_says_nothing_changes_nothing(value: bytes) -> None:
    heard = Heard()
    heard.told.note_pages(EngineLoad(running=3))

    await heard.tell(value)

    assert heard.loads == []


@pytest.mark.parametrize(
    ("known", "told", "waiting"),
    [(None, 4, 4), (None, None, None), (2, None, 2), (2, 0, 0), (0, 4, 0), (5, 5, 5)],
)
def test_fewer_may_wait_than_the_page_said_but_not_more(
    known: int | None, told: int | None, waiting: int | None
) -> None:
    assert over(EngineLoad(waiting=known), EngineLoad(waiting=told)).waiting == waiting


async def reporting(call: Call) -> None:
    """Tells its load when it is asked to."""
    asked = call.headers.get("endpoint-load-metrics-format") == "TEXT"
    headers = {"endpoint-load-metrics": kv(0.75).decode()} if asked else {}
    await call.answer(200, ANSWER, **headers)


@pytest.mark.parametrize("wanted", [True, False])
async def test_an_answers_report_reaches_the_router_and_not_the_client(
    start_engine: StartEngine, wanted: bool
) -> None:
    engine = await start_engine(reporting)
    engine.pages["/metrics"] = (200, PAGE)
    backend = {"name": "v", "adapter": "vllm", "url": engine.url, "options": {"load_report": wanted}}
    health = {"interval_s": 0.05, "load_interval_s": 60.0}
    async with serving(settings_of(backends=[backend], health=health)) as served:

        def load() -> EngineLoad:
            return served.gateway.router.snapshot().replicas[0].load or EngineLoad()

        await eventually(lambda: load().kv_used_ratio == 0.1)
        answer = await served.http.post("/v1/chat/completions", json=chat())
        assert (answer.status_code, answer.content) == (200, ANSWER)
        assert "endpoint-load-metrics" not in answer.headers
        if wanted:
            await eventually(lambda: load().kv_used_ratio == 0.75)
        else:
            await asyncio.sleep(3 * READ_AFTER_S)
        assert load() == EngineLoad(running=3, kv_used_ratio=0.75 if wanted else 0.1)
