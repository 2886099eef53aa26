"""The engine model takes, in few events, the decisions of one that is simulated step by step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_bench.arrivals import NS_PER_S, poisson
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
        shared = draw(st.sampled_from([0, 8, prompt // 2, prompt]))
        shared = min(shared, prompt)
        output = draw(st.integers(1, 160 - prompt if prompt > 120 else 60))
        jobs.append(TwinJob(at, draw(st.integers(0, 2)), shared, prompt, output))
    return jobs


@settings(max_examples=150, deadline=None)
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


def test_without_batching_it_is_the_queue_of_the_textbooks() -> None:
    """M/D/1: the mean wait is rho * s / (2 * (1 - rho))."""
    shape = EngineShape(
        prefill_tokens_per_s=1000, step_s=0.02, sequence_s=0.0, chunk_tokens=200, max_running=1, kv_tokens=400
    )
    service_s, rho = 0.02 + 0.08, 0.7
    offsets = poisson(rho / service_s, 20_000, seed=5)
    jobs = [TwinJob(at / NS_PER_S, 0, 0, 80, 1) for at in offsets]
    _, watched = run(shape, jobs)

    waits = [(done.first_at or 0) - job.at - service_s for job, done in zip(jobs, watched, strict=True)]
    assert sum(waits) / len(waits) == pytest.approx(rho * service_s / (2 * (1 - rho)), rel=0.06)
    assert min(waits) > -1e-9


def test_decoding_shares_the_processor() -> None:
    """n answers of m tokens: m - 1 steps of a + b n."""
    jobs = [TwinJob(0.001 * place, 0, 0, 1, 21) for place in range(5)]
    _, watched = run(SHAPE, jobs)

    last = watched[-1]
    assert last.first_at is not None
    assert last.ended_at is not None
    alone = 0.01 + 0.001
    assert 20 * alone < last.ended_at - last.first_at <= 20 * (0.01 + 0.001 * 5) + 1e-9


def test_what_a_client_that_left_held_is_free_again() -> None:
    events = Events()
    engine = EngineModel(SHAPE, events)
    jobs = [Watched(events, 1, 40, 60, 30) for _ in range(4)]
    for place, job in enumerate(jobs):
        events.at(0.001 * place, engine.submit, job)
    events.at(0.05, engine.abort, jobs[0])
    events.at(0.09, engine.abort, jobs[3])
    events.run()

    assert [job.ended_at is not None for job in jobs] == [False, True, True, False]
    assert engine.kv.held(engine.step) == engine.queued_tokens == engine.running == 0


def test_what_can_never_fit_is_refused() -> None:
    events = Events()
    engine = EngineModel(SHAPE, events)
    with pytest.raises(ValueError, match="longer than"):
        engine.submit(Watched(events, -1, 0, 150, 11))
    engine.kill()
    with pytest.raises(RuntimeError, match="dead"):
        engine.submit(Watched(events, -1, 0, 1, 1))
