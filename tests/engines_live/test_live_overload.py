"""vLLM with a full queue answers 503; that is nothing to a client while another engine has room.

The gateway sends an engine no more than it has room for, by what the engine says and by what itself has sent.
So here others fill the queue, whom the gateway does not see: it sends its requests, and they are refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import httpx
import pytest

from . import installed
from .fleet import PATIENCE_S, Fleet, LiveEngine, eventually
from .streams import HEADERS, long_body, on

OTHERS = 2 * installed.VLLM_QUEUE
REQUESTS = 3
"""Fewer than are enough to have an engine suspended, and than the budget for retries allows."""
PAUSE_S = 0.02


class Others:
    """Clients of the engine itself, more than its queue takes: whoever is refused comes again at once."""

    def __init__(self, engine: LiveEngine) -> None:
        self.refused = 0
        self._url, self._model = f"{engine.url}/v1/chat/completions", engine.model
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(OTHERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=PATIENCE_S)

    def _ask(self, number: int) -> None:
        sent = long_body(number, stream=True) | {"model": self._model}
        with httpx.Client(timeout=PATIENCE_S) as http:
            while not self._ended.is_set():
                with http.stream("POST", self._url, json=sent, headers=HEADERS) as answer:
                    self.refused += answer.status_code == 503
                    if answer.status_code == 200:
                        for _ in answer.iter_raw():
                            if self._ended.is_set():
                                return  # closing the stream ends the generation
                time.sleep(PAUSE_S)


@pytest.mark.real_engines("vllm")
def test_what_vllm_refuses_goes_to_the_next_engine(fleet: Fleet, figure: Callable[[str, str], None]) -> None:
    if fleet.engines["vllm"].kill:
        pytest.skip("its queue has no bound there")
    fleet.wait_until_ready()
    before = _refusals(fleet)
    with Others(fleet.engines["vllm"]) as others:
        eventually(lambda: others.refused > OTHERS)
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(lambda number: _ask(fleet, number), range(REQUESTS)))
        refusals = _refusals(fleet) - before
    eventually(lambda: fleet.load("vllm").get("running") == 0)

    assert [answer.text for answer in answers if answer.status_code != 200] == []
    retried = [answer for answer in answers if "retry:" in answer.headers["x-sluice-route"]]
    assert retried, "the queue had room for all of them"
    assert {answer.headers["x-sluice-backend"] for answer in retried} <= set(fleet.engines) - {"vllm"}
    assert refusals >= len(retried), "it was vLLM that refused"
    figure(
        "overload of vLLM by others",
        f"{others.refused} of theirs refused with 503; of {REQUESTS} through the gateway vLLM refused"
        f" {len(retried)}, which another engine served; none failed",
    )


def _ask(fleet: Fleet, number: int) -> httpx.Response:
    sent, url = long_body(OTHERS + number, 40), f"{fleet.url}/v1/chat/completions"
    return httpx.post(url, json=sent, headers=on("vllm", prefer=True), timeout=PATIENCE_S)


def _refusals(fleet: Fleet) -> float:
    """Requests of the gateway that vLLM was too busy for."""
    page = httpx.get(f"{fleet.url}/metrics", timeout=10).text
    lines = [line for line in page.splitlines() if line.startswith("sluice_gateway_upstream_failures_total{")]
    labels = '{backend="vllm",failure="upstream_unavailable"}'
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if labels in line)
