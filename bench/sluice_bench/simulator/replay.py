"""A recorded run's requests, sent to a simulated engine in the way they were sent to the real one.

An open loop's are sent when they were; a closed loop's when a user's answer before has ended, in the
simulation. What the server had cached of a prompt, by its own word, is left out of it: a fit is about speed,
not about caches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import msgspec

from sluice_bench.metrics import tpot_s, ttft_service_s
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.simulator.engine_model import EngineModel
from sluice_bench.simulator.engine_shape import EngineShape
from sluice_bench.simulator.events import Events
from sluice_bench.simulator.job import Job

_NS = 1e9


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a run: when it was written, what it was, and what came of it."""

    at_s: float
    prompt: int
    """Tokens that the server had to compute."""
    output: int
    ttft_s: float
    itl_s: float | None
    """Mean of the answer; `None` for one token."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A run to be simulated."""

    sent: tuple[Sent, ...]
    users: int | None
    """Of a closed loop."""


def replay_of(run: RunRecord) -> Replay:
    """A run's requests. Raises `ValueError` when it is not one that a model can be fitted to."""
    sent = []
    for record in run.measured:
        if record.failure is not None or not record.stream:
            continue
        ttft, written = ttft_service_s(record), record.written_ns
        if ttft is None or written is None or not record.prompt_tokens or not record.output_tokens:
            continue
        sent.append(
            Sent(
                at_s=(written - run.meta.start_ns) / _NS,
                prompt=max(1, record.prompt_tokens - (record.cached_tokens or 0)),
                output=record.output_tokens,
                ttft_s=ttft,
                itl_s=tpot_s(record) if record.output_tokens > 1 else None,
            )
        )
    if len(sent) < 10:
        raise ValueError(
            f"a fit needs at least 10 streamed requests with usage, and this run has {len(sent)} of "
            f"{len(run.measured)}; record one with sluice-bench run --rate"
        )
    sent.sort(key=lambda one: one.at_s)
    start = sent[0].at_s
    moved = tuple(msgspec.structs.replace(one, at_s=one.at_s - start) for one in sent)
    return Replay(sent=moved, users=run.meta.load.concurrency if run.meta.load.loop == "closed" else None)


class _Watched(Job):
    """Knows when things happened to it."""

    __slots__ = ("ended_at", "first_at", "next_user", "sent_at")

    def __init__(self, one: Sent, next_user: deque[_Watched], engine: EngineModel, events: Events) -> None:
        super().__init__(-1, 0, one.prompt, one.output)
        self.sent_at = self.first_at = self.ended_at = 0.0
        self.next_user = (next_user, engine, events)

    def send(self, engine: EngineModel) -> None:
        """To the engine."""
        self.sent_at = self.next_user[2].now
        engine.submit(self)

    def first_token(self, now: float) -> None:
        """See `Job`."""
        self.first_at = now

    def finished(self, now: float) -> None:
        """See `Job`: its user, if it has one, goes on with the next request."""
        self.ended_at = now
        waiting, engine, _ = self.next_user
        if waiting:
            waiting.popleft().send(engine)


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of one request, seconds."""

    ttft_s: float
    itl_s: float | None


def simulated(replay: Replay, shape: EngineShape) -> list[Simulated]:
    """Of each request, in the order in which they were sent."""
    events = Events()
    engine = EngineModel(shape, events)
    waiting: deque[_Watched] = deque()
    jobs = [_Watched(one, waiting, engine, events) for one in replay.sent]
    if replay.users is None:
        for one, job in zip(replay.sent, jobs, strict=True):
            events.at(one.at_s, _send, job)
    else:
        for job in jobs[: replay.users]:
            events.at(0.0, _send, job)
        waiting.extend(jobs[replay.users :])
    events.run()
    return [_result(job, shape) for job in jobs]


def _send(job: _Watched) -> None:
    job.send(job.next_user[1])


def _result(job: _Watched, shape: EngineShape) -> Simulated:
    decoded = job.output - 1
    return Simulated(
        ttft_s=job.first_at - job.sent_at + shape.overhead_s,
        itl_s=(job.ended_at - job.first_at) / decoded if decoded else None,
    )


class Answer(Protocol):
    """What recorded and simulated answers have in common."""

    @property
    def itl_s(self) -> float | None:
        """Mean of the answer."""
        ...


def mean_itl_s(found: Sequence[Answer], outputs: Sequence[int]) -> float:
    """Mean over all gaps between tokens."""
    gaps = [
        (one.itl_s * (n - 1), n - 1) for one, n in zip(found, outputs, strict=True) if one.itl_s is not None
    ]
    return sum(seconds for seconds, _ in gaps) / max(1, sum(number for _, number in gaps))
