"""What a request costs the router from admission to settlement, where there are one to three engines.

    python router/tests/perf/request_cost.py [--engines 1] [--requests 20000] [--rounds 5]

The usual installation: few engines, which tell their load every second, streamed chats of one system prompt,
four on their way. Measured are `Router.admit`, the first token and the settlement together, as the gateway
calls them, with and without the chain of the prompt (which is made elsewhere). CPU microseconds of this
process, the median over the rounds, each of which has a fresh router. Says whether the modules are compiled.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from statistics import median

import sluice_router.router
from sluice_router.prefix_chain import chain
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, EngineLoad, RequestFacts, Usage

PROMPT = b"You are a helpful assistant. " * 130
STEP_S = 0.002
READ_EVERY = 500


def nothing() -> None:
    """Nobody has to wait."""


def asked(requests: int, *, with_chain: bool) -> list[RequestFacts]:
    """Chats under one system prompt, about a thousand tokens each."""
    return [
        RequestFacts(
            request_id="r",
            kind="chat",
            model="model",
            stream=True,
            prompt_tokens_estimate=1000,
            body_bytes=4000,
            prefix=chain("t", "m", (), b'"' + PROMPT + b"%032x" % number + b'"') if with_chain else (),
        )
        for number in range(requests)
    ]


def spent_us(engines: int, facts: list[RequestFacts]) -> float:
    """Microseconds a request."""
    endpoints = [Endpoint(id=f"engine-{n}", backend="gpu", url=f"http://{n}") for n in range(engines)]
    router = Router(endpoints, max_queue=1000, queue_timeout_s=30.0)
    reading = EngineLoad(running=4, waiting=0, kv_used_ratio=0.3, kv_capacity_tokens=400_000, max_running=256)
    usage = Usage(prompt_tokens=1000, completion_tokens=100)
    running: deque[Ticket] = deque()
    now = 0.0
    begun = time.process_time()
    for number, one in enumerate(facts):
        now += STEP_S
        if number % READ_EVERY == 0:
            for endpoint in endpoints:
                router.record_load(endpoint.id, reading, now)
        ticket = router.admit(one, now, nothing)
        running.append(ticket)
        ticket.first_token(now + STEP_S / 2)
        if len(running) > 4:
            running.popleft().settle(now, usage)
    return (time.process_time() - begun) / len(facts) * 1e6


def main() -> None:
    """Print two lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    kind = "Python sources" if str(sluice_router.router.__file__).endswith(".py") else "compiled modules"
    for with_chain in (False, True):
        facts = asked(options.requests, with_chain=with_chain)
        found = [spent_us(options.engines, facts) for _ in range(options.rounds)]
        what = "with its chain" if with_chain else "without a chain"
        print(f"{kind}, {options.engines} engines, {what}: {median(found):.1f} us a request")


if __name__ == "__main__":
    main()
