"""A client that leaves frees its engine: nobody generates for nobody."""

from __future__ import annotations

import threading

import httpx

from .fleet import Fleet, eventually
from .streams import LONG, contents, long_body, on

STREAMS = 6


def leave_after_the_first_piece(url: str, engine: str, number: int, gone: threading.Event) -> None:
    with httpx.Client(timeout=60) as http:
        sent = long_body(number, stream=True)
        with http.stream("POST", f"{url}/v1/chat/completions", json=sent, headers=on(engine)) as answer:
            next(contents(answer.iter_lines()), None)
            gone.set()


def idle(fleet: Fleet, engine: str) -> bool:
    load = fleet.load(engine)
    return load.get("running") == 0 and not load.get("waiting") and fleet.view(engine)["in_flight"] == 0


def test_an_engine_has_nothing_to_do_soon_after_its_clients_left(fleet: Fleet, engine: str) -> None:
    eventually(lambda: idle(fleet, engine))
    before = fleet.load(engine).get("generation_tokens")

    for number in range(STREAMS):
        gone = threading.Event()
        leave_after_the_first_piece(fleet.url, engine, 1000 + number, gone)
        assert gone.is_set(), "content had come"
    eventually(lambda: idle(fleet, engine))

    after = fleet.load(engine).get("generation_tokens")
    if before is not None and after is not None:
        assert after - before < STREAMS * LONG / 2, "most of what was asked for was never generated"
