"""What is learned of an engine's speed, against numpy and against engines whose speed is known."""

from __future__ import annotations

import random

import numpy as np
import pytest
from least_squares_twin import LeastSquares

from sluice_router.latency_model import FORGETTING, MEASURED, LatencyModel
from sluice_router.least_squares import Line, Plane


def twin(rows: list[tuple[float, ...]], ys: list[float], forgetting: float) -> np.ndarray:
    """Least squares over everything, each row weighted by its age."""
    weights = np.sqrt(forgetting ** np.arange(len(ys) - 1, -1, -1.0))
    return np.linalg.lstsq(np.array(rows) * weights[:, None], np.array(ys) * weights, rcond=None)[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("true", [(0.02, 0.2), (0.02, 0.2, 0.15, 0.004)])
def test_the_recursion_finds_what_a_weighted_fit_to_everything_finds(seed, true):
    rng = random.Random(seed)
    model = LeastSquares(len(true), FORGETTING)
    rows, ys = [], []
    for _ in range(200):
        row = (1.0, *(rng.uniform(0.1, 4.0) for _ in true[1:]))
        y = sum(c * x for c, x in zip(true, row, strict=True)) + rng.gauss(0.0, 0.0005)
        model.learn(row, y)
        rows.append(row)
        ys.append(y)

    exact = twin(rows, ys, FORGETTING)
    assert min(exact) > 0, "the bound at 0 is not what is tested here"
    assert model.coefficients() == pytest.approx(exact, rel=1e-3)
    probe = (1.0, *(2.0 for _ in true[1:]))
    assert model.predict(probe) == pytest.approx(float(exact @ np.array(probe)), rel=1e-4)


def test_a_coefficient_below_zero_is_left_out_and_the_rest_is_fitted_without_it():
    model, rows, ys = LeastSquares(2, 1.0), [], []
    for x in (1.0, 2.0, 3.0, 4.0):
        model.learn((1.0, x), 5.0 - x)
        rows.append((1.0,))
        ys.append(5.0 - x)

    assert model.coefficients() == pytest.approx([float(twin(rows, ys, 1.0)[0]), 0.0], rel=1e-4)


def test_what_never_varies_is_not_blown_up_by_forgetting():
    model = LeastSquares(2, 0.9)
    for _ in range(5000):
        model.learn((1.0, 2.0), 3.0)

    assert model.predict((1.0, 2.0)) == pytest.approx(3.0, rel=1e-4)
    assert max(model.coefficients()) < 10.0


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_out_gives_the_same_bits_as_the_loops(seed):
    rng = random.Random(seed)
    plane, line, loops, short = Plane(0.98), Line(0.98), LeastSquares(4, 0.98), LeastSquares(2, 0.98)
    below = 0
    for _ in range(200):
        u, v = rng.choice((0.0, 1.0, 8 * rng.random())), rng.choice((0.0, 5 * rng.random()))
        w = (u + v) * rng.randrange(9)
        y = rng.gauss(1.0 + rng.choice((0.0, -0.3, 0.3)) * u + rng.choice((0.0, -0.2, 0.3)) * v, 0.5)
        plane.learn(u, v, w, y)
        loops.learn((1.0, u, v, w), y)
        line.learn(u, y)
        short.learn((1.0, u), y)
        assert list(plane.coefficients()) == loops.coefficients()
        assert list(line.coefficients()) == short.coefficients()
        assert plane.predict(u, v, w) == loops.predict((1.0, u, v, w))
        assert line.predict(u) == short.predict((1.0, u))
        below += 0.0 in plane.coefficients()
    assert below, "no coefficient had to be left out: that is not tested"


def test_nothing_is_predicted_before_there_are_enough_measurements():
    model = LatencyModel()
    for number in range(MEASURED - 1):
        model.learn_ttft(100 * number, 0, 0, 0.1)
        model.learn_itl(1.0, 0.01)

    assert model.ttft_s(100, 0, 0) is None
    assert model.itl_s(1.0) is None
    assert model.prefill_tokens_per_s(0) is None
    assert model.queue_s(100_000, 0) == 0.0


def serial(new: int, ahead: int, running: int) -> float:
    """One prompt after the other, 5,000 tokens a second, slower by 1 % for each request in the batch."""
    return 0.01 + (new + ahead) / 5000.0 * (1 + 0.01 * running)


def side_by_side(new: int, ahead: int, running: int) -> float:
    """A large service: half a second, and nobody waits for anybody."""
    return 0.5 + new / 20_000.0


def teach(model: LatencyModel, engine, answers: int, seed: int = 0) -> None:
    rng = random.Random(seed)
    for _ in range(answers):
        new, ahead, running = (
            rng.randint(10, 4000),
            rng.choice([0, rng.randint(10, 20_000)]),
            rng.randint(0, 30),
        )
        model.learn_ttft(new, ahead, running, engine(new, ahead, running) * rng.uniform(0.95, 1.05))


def test_an_engine_that_computes_one_prompt_after_the_other_is_known_after_some_answers():
    model = LatencyModel()
    teach(model, serial, 60)

    for asked in ((500, 0, 0), (2000, 10_000, 20), (100, 18_000, 5)):
        assert model.ttft_s(*asked) == pytest.approx(serial(*asked), rel=0.1)
    assert model.queue_s(5000, 0) == pytest.approx(1.0, rel=0.1)
    assert model.prefill_tokens_per_s(0) == pytest.approx(5000, rel=0.15)


def test_a_service_that_computes_side_by_side_is_not_believed_to_queue():
    model = LatencyModel()
    teach(model, side_by_side, 60)

    assert model.queue_s(20_000, 10) < 0.1
    assert model.ttft_s(1000, 20_000, 10) == pytest.approx(0.55, rel=0.1)


def test_an_engine_that_slows_down_is_known_as_slow_within_some_tens_of_answers():
    model = LatencyModel()
    teach(model, serial, 100)
    teach(model, lambda *asked: 5 * serial(*asked), 60, seed=1)

    assert model.ttft_s(2000, 5000, 10) > 3.5 * serial(2000, 5000, 10)


def test_a_single_pause_does_not_make_an_engine_look_broken():
    model = LatencyModel()
    teach(model, serial, 100)
    before = model.ttft_s(2000, 5000, 10)
    model.learn_ttft(2000, 5000, 10, 600.0)

    assert model.ttft_s(2000, 5000, 10) < 2 * before


def test_the_time_between_tokens_is_a_line_in_the_batch():
    model = LatencyModel()
    for batch in (1, 2, 4, 8, 16, 24, 3, 12, 20, 6):
        model.learn_itl(float(batch), 0.006 + 0.00035 * batch)

    assert model.itl_s(32.0) == pytest.approx(0.006 + 0.00035 * 32, rel=1e-2)


def test_a_new_engine_is_learned_anew():
    model = LatencyModel()
    teach(model, serial, 60)
    model.reset()

    assert model.ttft_s(100, 0, 0) is None
    assert model.ttft_measured == 0
