"""A digest of what the router decides over random events: to change how fast it is, and nothing else.

    python router/tests/perf/decision_digest.py [--seeds 3] [--events 4000] [--lines FILE]

Fleets of one to three hundred endpoints meet arrivals of every kind, first tokens, ends, failures, retries,
readings, and time that passes. Digested are each decision with its reason, scores and `Retry-After`, each
time that `expire` returns, and a snapshot every hundred events. Run it before and after a change: the digests
have to be equal. `--lines` writes what is digested, to find the first difference with `cmp` or `diff`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from random import Random

from sluice_router.admission_policy import AdmissionPolicy
from sluice_router.breaker import BreakerState
from sluice_router.failure import Failover
from sluice_router.prefix_chain import chain
from sluice_router.router import Router
from sluice_router.ticket import Ticket
from sluice_router.types import (
    PRIORITIES,
    Capabilities,
    Choice,
    Endpoint,
    EngineLoad,
    FailureClass,
    RequestFacts,
    Usage,
)

FLEETS = (1, 2, 3, 20, 300)
ALIAS = (Choice(model="big", backend="gpu"), Choice(model="small"))
BUSY = (0.5, 0.5, 0.9, 1.3)
"""Shares of the slots that are in use, by phase: it has to wait in the last one."""


class Day:
    """One router, its clients and its engines."""

    def __init__(self, engines: int, seed: int) -> None:
        self.random = random = Random(f"{engines}:{seed}")
        self.size = random.choice((2, 8, 32))
        self.ids = [f"engine-{n}" for n in range(engines)]
        self.router = Router(
            [
                Endpoint(
                    id=name,
                    backend="gpu" if n % 3 else "cpu",
                    url=f"http://{name}",
                    models=("small",) if n % 4 == 3 else ("small", "big"),
                    max_in_flight=self.size,
                    capabilities=Capabilities(endpoints=frozenset(("chat",))),  # of one: a set has no order
                )
                for n, name in enumerate(self.ids)
            ],
            max_queue=random.choice((5, 50, 1000)),
            queue_timeout_s=10.0,
            failover=Failover(breaker_failures=3, breaker_open_s=2.0),
            admission=AdmissionPolicy(max_queue_tokens=200_000),
            random=Random(seed).random,
        )
        self.now = 0.0
        self.busy = 0.5
        self.tickets: list[Ticket] = []
        self.beginnings = [random.randbytes(256 * random.randrange(1, 30)) for _ in range(12)]
        self.told: list[str] = []
        self.tells_load = random.random() < 0.7

    def facts(self) -> RequestFacts:
        """Of one request."""
        random = self.random
        text = random.choice(self.beginnings) + random.randbytes(random.choice((10, 300, 3000)))
        size = len(text) // 4
        model = random.choice(("small", "small", "big", "alias"))
        return RequestFacts(
            request_id="r",
            kind=random.choice(("chat", "chat", "chat", "embeddings")) if random.random() < 0.02 else "chat",
            model=model,
            choices=ALIAS if model == "alias" else (),
            tenant=random.choice(("a", "a", "a", "b", "c")),
            weight=random.choice((1.0, 1.0, 2.0)),
            backend=random.choice((None, None, None, "gpu")),
            prefer=random.random() < 0.2,
            priority=random.choice(PRIORITIES),
            session=random.choice((None, None, "s", "t", "u")),
            stream=random.random() < 0.7,
            prompt_tokens_estimate=size,
            max_tokens=random.choice((None, 20, 400)),
            body_bytes=len(text),
            needs=frozenset(("tools",)) if random.random() < 0.01 else frozenset(),
            ttft_budget_s=random.choice((0.3, 5.0)) if random.random() < 0.1 else None,
            prefix=chain("t", "m", (), text) if random.random() < 0.8 else (),
        )

    def admit(self) -> Iterator[object]:
        """Somebody asks."""
        place = len(self.tickets)
        ticket = self.router.admit(self.facts(), self.now, lambda: self.told.append(f"told {place}"))
        self.tickets.append(ticket)
        yield from self.of(ticket)

    def of(self, ticket: Ticket) -> Iterator[object]:
        """What was decided."""
        yield ticket.decision if ticket.endpoint is None else ticket.route
        cost = ticket.cost
        yield cost.prompt_tokens, cost.output_tokens, cost.work, ticket.hit_tokens, ticket.scores
        yield ticket.waited_s, ticket.patience_s, ticket.permit

    def act(self) -> Iterator[object]:
        """One thing happens."""
        random, router = self.random, self.router
        open_ones = [t for t in self.tickets[-400:] if not t.closed]
        if len(open_ones) < self.busy * len(self.ids) * self.size and random.random() < 0.8:
            yield from self.admit()
        elif open_ones and random.random() < 0.9:
            yield from self.go_on(random.choice(open_ones))
        elif random.random() < 0.6:
            yield router.expire(self.now)
        elif self.tells_load and random.random() < 0.7:
            router.record_load(random.choice(self.ids), self.reading(), self.now)
        else:
            self.disturb(random.choice(self.ids))

    def go_on(self, ticket: Ticket) -> Iterator[object]:
        """Something happens to a request."""
        random, now = self.random, self.now
        chance = random.random()
        if chance < 0.45:
            ticket.first_token(now)
        elif chance < 0.9:
            prompt = ticket.facts.prompt_tokens_estimate
            usage = Usage(
                prompt_tokens=int(prompt * random.choice((1.0, 1.0, 1.1))),
                completion_tokens=random.choice((1, 10, 100, 900)),
                cached_tokens=random.choice((0, prompt // 2)),
            )
            ticket.settle(now, random.choice((None, usage, usage, usage)))
        elif chance < 0.93:
            ticket.cancel(now)
        elif chance < 0.96:
            ticket.settle(now, None, random.choice(list(FailureClass)))
        else:
            failure = random.choice(list(FailureClass))
            ticket.retry(now, failure, lambda: self.told.append("told again"))
        yield from self.of(ticket)

    def reading(self) -> EngineLoad:
        """An engine's, of which much may be missing."""
        random = self.random

        def perhaps(value: float) -> float | None:
            return value if random.random() < 0.8 else None

        return EngineLoad(
            running=perhaps(random.randrange(self.size + 1)),  # type: ignore[arg-type]
            waiting=perhaps(random.choice((0, 0, 0, 3))),  # type: ignore[arg-type]
            waiting_uncached_tokens=perhaps(random.randrange(3000)),  # type: ignore[arg-type]
            max_running=perhaps(self.size),  # type: ignore[arg-type]
            kv_used_ratio=perhaps(random.random()),
            kv_capacity_tokens=perhaps(100_000),  # type: ignore[arg-type]
            generation_tokens=random.choice((None, int(self.now * 10))),
        )

    def disturb(self, name: str) -> None:
        """Something happens to an endpoint."""
        random, router, now = self.random, self.router, self.now
        which = random.randrange(5)
        if which == 0:
            router.set_health(name, random.random() < 0.8, now)
        elif which == 1:
            router.set_draining(name, random.random() < 0.2, now)
        elif which == 2:
            state = random.choice((None, None, None, BreakerState.OPEN, BreakerState.CLOSED))
            router.force_breaker(name, state, now)
        elif which == 3 and len(self.ids) < 50:
            router.set_models(name, random.choice((("small",), ("small", "big"), ())), now)
        else:
            router.set_quant(name, random.choice(("none", "none", "awq")), now)

    def lines(self, events: int) -> Iterator[str]:
        """All that is decided over so many events."""
        for event in range(events):
            if event % 500 == 0:
                self.busy = self.random.choice(BUSY)
            self.now += self.random.expovariate(10.0) if self.random.random() < 0.3 else 0.0
            for found in self.act():
                yield repr(found)
            yield from self.told
            self.told.clear()
            if event % 100 == 99:
                yield repr(self.router.snapshot())


def digest(engines: int, seed: int, events: int, write: Callable[[str], object] | None) -> str:
    """Of one day."""
    summed = sha256()
    for line in Day(engines, seed).lines(events):
        summed.update(line.encode())
        if write is not None:
            write(line + "\n")
    return summed.hexdigest()[:16]


def main() -> None:
    """Print a digest for every fleet and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--events", type=int, default=4000)
    parser.add_argument("--lines", type=Path)
    options = parser.parse_args()
    with ExitStack() as stack:
        file = None if options.lines is None else stack.enter_context(options.lines.open("w"))
        for engines in FLEETS:
            for seed in range(options.seeds):
                found = digest(engines, seed, options.events, None if file is None else file.write)
                print(f"{engines} endpoints, seed {seed}: {found}")


if __name__ == "__main__":
    main()
