"""Real engines behind one gateway for the whole session; what is not installed is skipped, or fails.

`SLUICE_REQUIRE_ENGINES=1` makes a missing engine a failure; so does its name there, of several with commas
between. `SLUICE_LIVE_REPORT` names a file for the report on the session.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import psutil
import pytest
from running_stack import interrupt

from . import installed
from .fleet import ENGINES_FILE, Fleet, eventually, running_fleet
from .report import Report

LOCAL = ("worker", "vllm", "llamacpp")
Figure = Callable[[str, str], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `engine` runs once for each, in a module's order of engines."""
    if "engine" in metafunc.fixturenames:
        wanted = getattr(metafunc.module, "ENGINES", LOCAL)
        metafunc.parametrize("engine", _listed() or wanted)


def _listed() -> tuple[str, ...]:
    path = os.environ.get(ENGINES_FILE)
    return tuple(e["name"] for e in json.loads(Path(path).read_text())) if path else ()


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The gateway and all engines, ready."""
    running = running_fleet(tmp_path_factory.mktemp("fleet"))
    try:
        running.wait_until_ready()
        _describe(running)
        yield running
    finally:
        survivors = interrupt(running.gateway)
    eventually(lambda: not any(map(_lives, survivors)))


def _lives(process: psutil.Process) -> bool:
    """Not one that has ended and is only still listed, because nobody has asked how."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(autouse=True)
def _present(request: pytest.FixtureRequest) -> None:
    """Skip, or fail, where an engine that the test is about is not here."""
    marked = request.node.get_closest_marker("real_engines")
    needed = set(marked.args if marked else ())
    if "engine" in request.fixturenames:
        needed.add(request.getfixturevalue("engine"))
    for name in sorted(needed - set(_listed())):
        _complain(name, f"{name} is not listed" if _listed() else installed.missing(name))
    started = request.node.get_closest_marker("starts_engines")
    for name in started.args if started else ():
        _complain(name, installed.missing(name))


def _complain(name: str, missing: str | None) -> None:
    if missing is not None:
        (pytest.fail if _is_required(name) else pytest.skip)(missing)


def _is_required(name: str) -> bool:
    """Where engines are listed, they are what there is: nobody misses others."""
    if _listed():
        return False
    wanted = os.environ.get("SLUICE_REQUIRE_ENGINES", "").replace(" ", ",").split(",")
    return "1" in wanted or name in wanted


@pytest.fixture
def client(fleet: Fleet) -> Iterator[openai.OpenAI]:
    """The official SDK on the gateway."""
    with openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="none", max_retries=0, timeout=300) as sdk:
        yield sdk


REPORT = Report()


@pytest.fixture
def figure() -> Figure:
    """Tell the report a figure: what it is, and its value with its unit."""
    return REPORT.figure


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Every test's outcome, for the report."""
    REPORT.outcome(report)


def _describe(fleet: Fleet) -> None:
    for name in fleet.engines:
        view = fleet.view(name)
        origin = "a list" if _listed() else installed.origin(name)
        REPORT.engine(name, f"{view['engine']} {view['version'] or ''}".strip(), origin)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures, and the report's file where one is wanted."""
    for line in REPORT.figures:
        terminalreporter.write_line(line)
    path = os.environ.get("SLUICE_LIVE_REPORT")
    if path:
        Path(path).write_text(REPORT.text(), encoding="utf-8")
