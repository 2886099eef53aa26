from __future__ import annotations

import pytest

from sluice_bench.journeys.load_shapes import SHAPES, users_at


def curve(shape, most=8, run_s=40.0):
    return [users_at(shape, most, run_s, at_s) for at_s in range(0, 40, 4)]


def test_steady_is_all_of_them():
    assert curve("steady") == [8] * 10


def test_step_has_four_steps():
    assert curve("step") == [2, 2, 2, 4, 4, 6, 6, 6, 8, 8]


def test_spike_is_the_middle_fifth():
    assert curve("spike") == [2, 2, 2, 2, 8, 8, 2, 2, 2, 2]


def test_ramp_goes_up_evenly():
    assert curve("ramp", most=10) == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_end_and_have_somebody(shape):
    assert users_at(shape, 8, 40.0, 40.0) is None
    assert all(1 <= users_at(shape, 1, 40.0, at_s) <= 1 for at_s in range(40))
