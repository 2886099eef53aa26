"""vLLM with a full queue answers 503; that is nothing to a client while another engine has room.

Mostly the gateway lets it not come to that: by its metrics it sends an engine no more than it has room for.
What vLLM refuses all the same goes to the next engine (`gateway/tests/test_failover.py` has it refuse).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from . import installed
from .fleet import Fleet
from .streams import HEADERS, long_body, on

REQUESTS = 2 * installed.VLLM_QUEUE
"""The gateway's budget for retries (`failover.retry_budget`) allows for all that are refused."""


@pytest.mark.real_engines("vllm")
def test_what_vllm_refuses_goes_to_the_next_engine(fleet: Fleet, figure: Callable[[str, str], None]) -> None:
    if fleet.engines["vllm"].kill:
        pytest.skip("its queue has no bound there")
    directly = _at_once(fleet.engines["vllm"].url, HEADERS, fleet.engines["vllm"].model)
    through = _at_once(fleet.url, on("vllm", prefer=True), None)

    refused = [answer for answer in directly if answer.status_code == 503]
    assert refused, "its queue was never full"
    assert [answer.text for answer in through if answer.status_code != 200] == []
    served_by = [answer.headers["x-sluice-backend"] for answer in through]
    retried = [answer for answer in through if "retry:" in answer.headers["x-sluice-route"]]
    assert "vllm" in served_by
    assert set(served_by) != {"vllm"}
    figure(
        "overload of vLLM",
        f"{len(refused)} of {REQUESTS} refused with 503 when asked directly; through the gateway none,"
        f" {len(retried)} served elsewhere",
    )


def _at_once(url: str, headers: dict[str, str], model: str | None) -> list[httpx.Response]:
    def ask(number: int) -> httpx.Response:
        sent = long_body(number, 400) | ({"model": model} if model else {})
        return httpx.post(f"{url}/v1/chat/completions", json=sent, headers=headers, timeout=300)

    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(ask, range(REQUESTS)))
