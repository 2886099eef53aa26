"""The engine model is found again from runs of an engine that is exactly it, and errors are told."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from sluice_bench.arrivals import NS_PER_S, poisson
from sluice_bench.cli import app
from sluice_bench.recording.run_file import read_run
from sluice_bench.simulator.engine_shape import EngineShape
from sluice_bench.simulator.fit import compare, fit
from sluice_bench.simulator.replay import Replay, Sent, replay_of, simulated
from sluice_bench.simulator.simplex import minimise

RUNS = Path(__file__).parents[2] / "data" / "runs"
TRUE = EngineShape(
    prefill_tokens_per_s=3000, step_s=0.012, sequence_s=0.003, chunk_tokens=256, max_running=16,
    kv_tokens=100_000, overhead_s=0.03,
)  # fmt: skip


def invented(seed: int, users: int | None = None, count: int = 80) -> Replay:
    """A run of an engine that is the model itself."""
    source = random.Random(seed)
    blank = Replay(
        sent=tuple(
            Sent(
                at_s=at / NS_PER_S,
                prompt=source.randint(20, 900),
                output=source.randint(2, 60),
                ttft_s=1.0,
                itl_s=1.0,
            )
            for at in poisson(4.0, count, seed)
        ),
        users=users,
    )
    found = simulated(blank, TRUE)
    sent = tuple(
        msgspec.structs.replace(one, ttft_s=ours.ttft_s, itl_s=ours.itl_s)
        for one, ours in zip(blank.sent, found, strict=True)
    )
    return Replay(sent=sent, users=users)


@pytest.mark.parametrize("users", [None, 6])
def test_a_fit_foretells_another_run_of_the_same_engine(users: int | None) -> None:
    shape = fit(invented(1, users), max_running=16, kv_tokens=100_000)
    foretold = compare(invented(2, users), shape)

    assert abs(foretold.ttft_p90_error) < 0.1
    assert abs(foretold.itl_error) < 0.05
    slower = msgspec.structs.replace(shape, step_s=2 * shape.step_s, prefill_tokens_per_s=500)
    assert compare(invented(2, users), slower).ttft_p90_error > 0.5


def test_more_users_at_a_time_wait_longer_for_each_token() -> None:
    few, many = (simulated(invented(1, users), TRUE) for users in (1, 12))

    assert sum(one.itl_s or 0 for one in many) > 1.5 * sum(one.itl_s or 0 for one in few)


def test_the_simplex_finds_a_valley() -> None:
    def valley(point: object) -> float:
        x, y = point  # type: ignore[misc]
        return float(100 * (y - x * x) ** 2 + (1 - x) ** 2)

    assert minimise(valley, [-1.2, 1.0], 0.5, 400) == pytest.approx([1.0, 1.0], abs=1e-2)


def test_a_recorded_run_is_replayed_as_it_was_sent() -> None:
    run = read_run(RUNS / "closed-streams.parquet")
    replay = replay_of(run)

    assert replay.users == run.meta.load.concurrency
    assert len(replay.sent) == len(run.measured)
    assert replay.sent[0].at_s == 0.0
    assert all(one.ttft_s > 0 for one in replay.sent)


def test_the_command_fits_and_foretells() -> None:
    run = str(RUNS / "closed-streams.parquet")
    result = CliRunner().invoke(app, ["simulate", "--calibrate", run, "--against", run])

    assert result.exit_code in (0, 1), result.output
    assert "fitted to" in result.output
    assert "foretold" in result.output
    assert "tokens/s, ITL" in result.output


def test_a_run_without_streams_cannot_be_fitted_to() -> None:
    result = CliRunner().invoke(app, ["simulate", "--calibrate", str(RUNS / "plain.parquet")])

    assert result.exit_code == 1
    assert "a fit needs at least 10 streamed requests" in result.output.replace("\n", " ")
