"""`kill -9` of each engine in turn, under load: no request fails of which the client had nothing yet."""

from __future__ import annotations

from collections.abc import Callable

from .fleet import PATIENCE_S, Fleet, eventually
from .streams import Load, on

USERS = 6
BUSY = 3
"""Streams on an engine that make it worth killing. The gateway sends no engine more than it has places for,
nor more prompts than it reads in a second: the other users wait."""
ENGINES = ("llamacpp", "worker", "vllm")


def test_only_streams_that_had_begun_end_with_an_error(
    fleet: Fleet, engine: str, figure: Callable[[str, str], None]
) -> None:
    fleet.wait_until_ready()
    with Load(fleet, on(engine, prefer=True), USERS) as load:
        assert load.first_content.wait(PATIENCE_S)
        eventually(lambda: fleet.view(engine)["in_flight"] >= BUSY)
        before = len(load.endings)
        fleet.kill(engine)
        eventually(lambda: len(load.endings) >= before + 2 * USERS)
    others = {e.backend for e in load.endings[before:] if e.error is None} - {engine}
    fleet.restart(engine)

    failed = [ending for ending in load.endings if ending.error is not None]
    assert [ending for ending in failed if not ending.began] == []
    assert len(failed) <= USERS
    assert others or len(fleet.engines) == 1, "another engine took over"
    figure(
        f"SIGKILL of {engine} with {USERS} users",
        f"{len(load.endings)} requests, none failed before its first byte,"
        f" {len(failed)} streams were cut after it",
    )
