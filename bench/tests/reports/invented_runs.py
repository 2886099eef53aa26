"""Runs for reports: a closed loop with so many users, made of numbers alone."""

from __future__ import annotations

import random

import msgspec

from sluice_bench.recording.run_record import RunRecord, recorded
from sluice_bench.records import Chunk, Failure, RequestRecord, TokenSource

from ..recording.invented_run import MS, START_NS, run_of

EVIL = "<script>alert('x')</script>"


def streamed(index: int, scheduled_ns: int, tokens: int, source: random.Random) -> RequestRecord:
    """First token after 30 to 90 ms, then one about every 20 ms."""
    arrived = scheduled_ns + source.randrange(30 * MS, 90 * MS)
    chunks = []
    for _ in range(tokens):
        chunks.append(Chunk(arrived, 1, 190))
        arrived += source.randrange(15 * MS, 25 * MS)
    last = chunks[-1].arrived_ns
    return RequestRecord(
        index=index,
        stream=True,
        scheduled_ns=scheduled_ns,
        dispatched_ns=scheduled_ns + 1_000,
        connected_ns=scheduled_ns + 2_000,
        written_ns=scheduled_ns + 3_000,
        first_byte_ns=chunks[0].arrived_ns,
        first_token_ns=chunks[0].arrived_ns,
        last_token_ns=last,
        end_ns=last + MS,
        status=200,
        reused_connection=True,
        chunks=tuple(chunks),
        token_source=TokenSource.LOGPROBS,
        prompt_tokens=40,
        output_tokens=tokens,
        cached_tokens=0,
    )


def closed_run(
    users: int = 2,
    requests: int = 40,
    tokens: int = 8,
    variant: str = "test",
    model: str = "m",
    failing: int | None = None,
) -> RunRecord:
    """Requests follow each other, one at a time for each user; the one numbered `failing` times out."""
    source = random.Random(users * 1000 + requests)
    free = [START_NS] * users
    records = []
    for index in range(requests):
        user = min(range(users), key=free.__getitem__)
        record = streamed(index, free[user], tokens, source)
        if index == failing:
            record = msgspec.structs.replace(record, failure=Failure.TIMEOUT, message=EVIL)
        records.append(record)
        free[user] = (record.end_ns or 0) + MS
    meta = run_of(records[0]).meta
    meta = msgspec.structs.replace(
        meta,
        variant=variant,
        load=msgspec.structs.replace(meta.load, concurrency=users),
        server=msgspec.structs.replace(meta.server, model=model),
    )
    return recorded(meta, tuple(records))
