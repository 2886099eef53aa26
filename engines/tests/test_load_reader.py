"""Reading an engine's load again and again, over real sockets."""

from __future__ import annotations

from collections.abc import Mapping

from sluice_engines.adapter import LoadPage
from sluice_engines.load_reader import LoadReader
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.page import MAX_PAGE_BYTES
from sluice_router.types import EngineLoad

from .page_server import Engine, serving
from .simple_transport import SimpleTransport


class Baker(OpenAICompatibleAdapter):
    """Says how many loaves are in the oven on one page, and how many fit on another that hardly changes."""

    load_pages = (
        LoadPage(path="/oven", missing="start it with --oven"),
        LoadPage(path="/oven-size", every_s=60.0),
    )

    def parse_load(self, pages: Mapping[str, bytes]) -> EngineLoad:
        return EngineLoad(
            running=int(pages["/oven"]) if "/oven" in pages else None,
            max_running=int(pages["/oven-size"]) if "/oven-size" in pages else None,
        )


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def reader_of(url: str, clock: Clock, timeout_s: float = 2.0) -> LoadReader:
    return LoadReader(SimpleTransport(), Baker(), url, timeout_s=timeout_s, clock=clock)


async def test_what_changes_is_asked_each_time_and_what_does_not_is_kept():
    engine, clock = Engine({"/oven": (200, "3"), "/oven-size": (200, "8")}), Clock()
    async with serving(engine) as url:
        reader = reader_of(url, clock)
        first = await reader.read()
        engine.pages["/oven"] = (200, "4")
        second = await reader.read()
        clock.now_s += 61
        await reader.read()

    assert (first.load, first.problem) == (EngineLoad(running=3, max_running=8), None)
    assert second.load == EngineLoad(running=4, max_running=8)
    assert engine.asked == ["/oven", "/oven-size", "/oven", "/oven", "/oven-size"]


async def test_a_page_that_is_not_there_is_unknown_and_says_what_to_do():
    engine, clock = Engine({"/oven": (501, ""), "/oven-size": (200, "8")}), Clock()
    async with serving(engine) as url:
        reader = reader_of(url, clock)
        reading = await reader.read()
        again = await reader.read()
        asked = engine.asked.count("/oven")
        clock.now_s += 31
        engine.pages["/oven"] = (200, "5")
        later = await reader.read()

    assert reading.load == EngineLoad(max_running=8)
    assert reading.problem == "/oven answered 501 (start it with --oven)"
    assert (again, asked) == (reading, 1)
    assert (later.load, later.problem) == (EngineLoad(running=5, max_running=8), None)


async def test_another_engine_in_its_place_is_asked_for_everything():
    engine, clock = Engine({"/oven": (404, ""), "/oven-size": (200, "8")}), Clock()
    async with serving(engine) as url:
        reader = reader_of(url, clock)
        await reader.read()
        engine.pages = {"/oven": (200, "1"), "/oven-size": (200, "2")}
        reader.forget()
        reading = await reader.read()

    assert reading.load == EngineLoad(running=1, max_running=2)


async def test_a_failure_is_no_load_and_is_forgotten_with_the_next_success():
    engine, clock = Engine({"/oven": (500, ""), "/oven-size": (500, "")}), Clock()
    async with serving(engine) as url:
        reader = reader_of(url, clock)
        failed = await reader.read()
        engine.pages = {"/oven": (200, "1"), "/oven-size": (200, "2")}
        reading = await reader.read()

    assert (failed.load, failed.problem) == (None, "/oven answered 500; /oven-size answered 500")
    assert (reading.load, reading.problem) == (EngineLoad(running=1, max_running=2), None)


async def test_a_page_that_does_not_come_in_time_is_given_up():
    engine = Engine({"/oven-size": (200, "8")}, stall="/oven")
    async with serving(engine) as url:
        reading = await reader_of(url, Clock(), timeout_s=0.05).read()

    assert reading.load == EngineLoad(max_running=8)
    assert reading.problem == "/oven did not answer within 0.05 s"


async def test_a_page_that_cannot_be_understood_is_named():
    async with serving(Engine({"/oven": (200, "hot"), "/oven-size": (200, "8")})) as url:
        reading = await reader_of(url, Clock()).read()

    assert reading.load is None
    assert reading.problem.startswith("/oven or /oven-size cannot be read: ")


async def test_an_adapter_that_fails_costs_only_the_load():
    class Broken(Baker):
        def parse_load(self, pages: Mapping[str, bytes]) -> EngineLoad:
            return EngineLoad(running=pages["/not-there"])

    async with serving(Engine({"/oven": (200, "1"), "/oven-size": (200, "8")})) as url:
        reading = await LoadReader(SimpleTransport(), Broken(), url, clock=Clock()).read()

    assert reading.load is None
    assert "fails at /oven or /oven-size: KeyError: '/not-there'" in reading.problem


async def test_a_page_without_an_end_is_given_up():
    async with serving(Engine({"/oven": (200, "1" * (MAX_PAGE_BYTES + 1)), "/oven-size": (200, "8")})) as url:
        reading = await reader_of(url, Clock(), timeout_s=20).read()

    assert reading.load == EngineLoad(max_running=8)
    assert reading.problem == "/oven: the page has more than 16 MiB"


async def test_an_engine_that_is_gone_is_a_reading_too(unused_tcp_port):
    reading = await reader_of(f"http://127.0.0.1:{unused_tcp_port}", Clock()).read()

    assert reading.load is None
    assert reading.problem.startswith("/oven: ")
