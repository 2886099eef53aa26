"""What a decision costs: CPU time from a body's bytes to an endpoint, among a thousand.

    python router/tests/perf/decision_cost.py [--engines 1000] [--bodies 2000]

Measured is what the router adds to a request: the chain of hashes over the messages' original bytes,
`Router.admit`, and beside that what comes later, first token and settlement. The first decision, which makes
the ring of candidates, is told by itself. Bodies are conversations, half of them under one system prompt; a
fifth of all requests is on its way at any time. CPU time of this thread, in milliseconds.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from random import Random
from statistics import quantiles

from sluice_router.prefix_chain import BLOCK_TOKENS, chain
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import Endpoint, EngineLoad, RequestFacts, Usage

SIZES = (("1k tokens", 4_000), ("8k tokens", 32_000), ("100k tokens", 400_000))
STEP_S = 0.002


def fleet(engines: int) -> Router:
    """As many engines as asked for, all of which have told their load."""
    endpoints = [Endpoint(id=f"gpu-{n}", backend="gpu", url=f"http://10.0.0.{n}") for n in range(engines)]
    router = Router(endpoints, max_queue=1000, queue_timeout_s=30.0, random=Random(1).random)
    reading = EngineLoad(running=4, waiting=0, kv_used_ratio=0.3, kv_capacity_tokens=400_000, max_running=256)
    for endpoint in endpoints:
        router.record_load(endpoint.id, reading, 0.0)
    return router


def body(random: Random, size: int, system: bytes) -> bytes:
    """The messages of a conversation, some of which begin alike."""
    first = system if random.random() < 0.5 else b"%x" % random.getrandbits(64)
    filling = b"%032x " % random.getrandbits(128)
    return b'[{"role":"user","content":"' + first + (filling * (size // len(filling)))[: size - len(first)]


def first_decision(router: Router) -> float:
    """Milliseconds of it."""
    facts = RequestFacts(request_id="r", kind="chat", model="model", prefix=(1 << 63,))
    begun = time.thread_time()
    ticket = router.admit(facts, 0.0, lambda: None)
    spent = time.thread_time() - begun
    ticket.settle(0.0, None)
    return spent * 1e3


def measure(router: Router, size: int, bodies: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of the chain, of the admission, and of what comes later, of each body."""
    random, system = Random(size), b"You are a helpful assistant. " * (size // 60)
    running: deque[Ticket] = deque()
    spent: tuple[list[float], list[float], list[float]] = ([], [], [])
    for number in range(bodies):
        raw, now = body(random, size, system) + b'"}]', number * STEP_S
        begun = time.thread_time()
        prefix = chain("tenant", "model", (), raw)
        hashed = time.thread_time()
        facts = RequestFacts(
            request_id="r",
            kind="chat",
            model="model",
            stream=True,
            prompt_tokens_estimate=len(raw) // 4,
            prefix=prefix,
            prefix_block_tokens=BLOCK_TOKENS,
        )
        ticket = router.admit(facts, now, lambda: None)
        admitted = time.thread_time()
        assert ticket.endpoint is not None, ticket.decision
        running.append(ticket)
        ticket.first_token(now)
        if len(running) > bodies // 5:
            running.popleft().settle(now, Usage(prompt_tokens=len(raw) // 4, completion_tokens=100))
        later = time.thread_time()
        spent[0].append((hashed - begun) * 1e3)
        spent[1].append((admitted - hashed) * 1e3)
        spent[2].append((later - admitted) * 1e3)
    while running:
        running.popleft().settle(now, None)
    return spent


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", type=int, default=1000)
    parser.add_argument("--bodies", type=int, default=2000)
    options = parser.parse_args()
    print(f"{options.engines} engines, {options.bodies} bodies; CPU ms: p50 / p99 / max")
    for name, size in SIZES:
        router = fleet(options.engines)
        first = first_decision(router)
        hashed, admitted, later = measure(router, size, max(100, options.bodies * 4_000 // size))
        whole = [one + other for one, other in zip(hashed, admitted, strict=True)]
        parts = (("decision", whole), ("of it chain", hashed), ("of it admit", admitted), ("later", later))
        for part, times in parts:
            cuts = quantiles(times, n=100)
            print(f"{name:>12}  {part:<12} {cuts[49]:.3f} / {cuts[98]:.3f} / {max(times):.3f}")
        snapshot = router.snapshot()
        blocks = max(1, snapshot.prefix_blocks)
        print(f"{name:>12}  {snapshot.prefix_blocks} blocks, {snapshot.prefix_bytes / blocks:.1f} bytes each")
        print(f"{name:>12}  the first decision {first:.1f}")


if __name__ == "__main__":
    main()
