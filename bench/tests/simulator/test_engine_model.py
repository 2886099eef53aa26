"""The engine model takes, in few events, the decisions of one that is simulated step by step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_bench.simulator.engine_model import EngineModel
from sluice_bench.simulator.engine_shape import EngineShape
from sluice_bench.simulator.events import Events
from sluice_bench.simulator.job import Job

from .step_twin import StepTwin, TwinJob

SHAPE = EngineShape(
    prefill_tokens_per_s=1000, step_s=0.01, sequence_s=0.001, chunk_tokens=32, max_running=6, kv_tokens=160,
    block_tokens=4,
)  # fmt: skip


class Watched(Job):
    """Notes when it was told what."""

    __slots__ = ("ended_at", "events", "first_at", "was_broken")

    def __init__(self, events: Events, stream: int, shared: int, prompt: int, output: int) -> None:
        super().__init__(stream, shared, prompt, output)
        self.events = events
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self.was_broken = False

    def first_token(self, now: float) -> None:
        assert self.first_at is None
        self.first_at = now

    def finished(self, now: float) -> None:
        assert self.first_at is not None
        assert self.ended_at is None
        self.ended_at = now

    def broken(self, now: float) -> None:
        self.was_broken = True


def run(shape: EngineShape, jobs: list[TwinJob]) -> tuple[EngineModel, list[Watched]]:
    events = Events()
    engine = EngineModel(shape, events)
    watched = []
    for job in jobs:
        watched.append(Watched(events, job.stream, job.shared, job.prompt, job.output))
        events.at(job.at, engine.submit, watched[-1])
    events.run()
    return engine, watched


@st.composite
def loads(draw: st.DrawFn) -> list[TwinJob]:
    jobs, at = [], 0.0
    for _ in range(draw(st.integers(1, 14))):
        at += draw(st.floats(1e-5, 0.4).map(lambda gap: gap * gap + 1e-5))
        prompt = draw(st.integers(1, 90))
        shared = draw(st.sampled_from([0, prompt // 2, prompt]))
        output = draw(st.integers(1, 160 - prompt if prompt > 120 else 60))
        jobs.append(TwinJob(at, draw(st.integers(0, 2)), shared, prompt, output))
    return jobs


@settings(max_examples=300, deadline=None)
@given(loads())
def test_many_steps_at_once_are_the_same_as_one_by_one(jobs: list[TwinJob]) -> None:
    twin = StepTwin(SHAPE, list(jobs))
    twin.run()
    engine, watched = run(SHAPE, jobs)
    for slow, quick in zip(jobs, watched, strict=True):
        assert quick.first_at == pytest.approx(slow.first_at, rel=1e-6)
        assert quick.ended_at == pytest.approx(slow.ended_at, rel=1e-6)
        assert quick.hit == slow.hit
    assert engine.preemptions == twin.preemptions
    assert engine.kv.cached == len(twin.idle)
    assert {key: engine.kv.stream_tokens(key) // 4 for key in twin.streams} == twin.streams
    assert engine.kv.held(engine.step) == engine.running == len(engine.waiting) == engine.queued_tokens == 0
