"""Many streams at once, some of whose clients hang up at a moment that only the seed knows."""

from __future__ import annotations

import asyncio
import random
from typing import Any, NamedTuple

from .streaming_client import Answer, Client


class Storm(NamedTuple):
    """How it ended."""

    answers: dict[str, Answer]
    """By question, of the clients that stayed."""
    left: int
    """Clients that hung up."""


async def storm(url: str, requests: dict[str, dict[str, Any]], seed: int, leaving: float = 0.2) -> Storm:
    """Send all requests at once; a share `leaving` of the clients hangs up on the way."""
    chance = random.Random(seed)
    leavers = set(chance.sample(sorted(requests), round(len(requests) * leaving)))
    answers: dict[str, Answer] = {}

    async def stay(question: str) -> None:
        client = await Client.ask(url, requests[question])
        answers[question] = await client.read_to_the_end()

    async def leave(question: str, moment: random.Random) -> None:
        client = await Client.ask(url, requests[question])
        way = moment.choice(["at once", "after a while", "after some bytes", "in the middle"])
        if way == "after a while":
            await asyncio.sleep(moment.random() * 0.3)
        elif way == "after some bytes":
            await client.read_some(1)
        elif way == "in the middle":
            await client.read_some(moment.randrange(300, 4000))
        client.leave(politely=moment.random() < 0.5)

    async with asyncio.TaskGroup() as group:
        for question in requests:
            if question in leavers:
                group.create_task(leave(question, random.Random(chance.random())))
            else:
                group.create_task(stay(question))
    return Storm(answers, len(leavers))
