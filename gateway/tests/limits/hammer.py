"""One of several processes that ask one Redis for leave as fast as they can, on the event loop that serves.

Prints what it was given.

    python hammer.py URL PREFIX CLIENTS SECONDS LIMIT_JSON PROMPT OUTPUT PRICE

`LIMIT_JSON` are the fields of `LimitValues` of the one key. A request takes 2 ms and uses half of its output.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

import uvloop

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key, LimitValues
from sluice_gateway.limits.redis import RedisLimiter
from sluice_gateway.limits.redis_address import parse_address
from sluice_gateway.limits.settings import Limits
from sluice_gateway.limits.types import Demand, Price
from sluice_router.types import Usage


async def hammer(
    limiter: RedisLimiter, clients: int, seconds: float, key: Key, demand: Demand
) -> dict[str, float]:
    admitted = tokens = degraded = 0
    first_s = last_s = 0.0
    usage = Usage(prompt_tokens=demand.prompt_tokens, completion_tokens=(demand.max_tokens or 0) // 2)
    stop_s = time.time() + seconds

    async def client() -> None:
        nonlocal admitted, tokens, degraded, first_s, last_s
        while time.time() < stop_s:
            found = await limiter.reserve(key, demand)
            degraded += limiter.counters.mode != "redis"
            if isinstance(found, Problem):
                await asyncio.sleep(min(0.02, found.retry_after_s or 0.02) * (0.5 + random.random()))
                continue
            last_s = found.state.at_us / 1e6
            first_s = first_s or last_s
            admitted += 1
            await asyncio.sleep(0.002)
            limiter.settle(found, usage)
            tokens += usage.prompt_tokens + usage.completion_tokens

    await asyncio.gather(*(client() for _ in range(clients)))
    return {
        "admitted": admitted,
        "tokens": tokens,
        "degraded": degraded,
        "first_s": first_s,
        "last_s": last_s,
        "in_use": limiter.in_use,
    }


async def main(url: str, prefix: str, clients: str, seconds: str, limit: str, *asking: str) -> None:
    limiter = RedisLimiter(
        Limits(),
        parse_address(url),
        lambda: time.time_ns() // 1000,
        timeout_s=5.0,
        prefix=prefix,
        random=random.random,
    )
    prompt, output, price = asking
    demand = Demand(
        model="m", prompt_tokens=int(prompt), max_tokens=int(output), price=Price(output=float(price))
    )
    key = Key(id="alice", limits=LimitValues(**json.loads(limit)))
    await limiter.start()
    found = await hammer(limiter, int(clients), float(seconds), key, demand)
    await limiter.aclose()
    print(json.dumps(found))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
