"""Prompt tokens beside decodes: as many as a step can carry without keeping the others waiting."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from sluice_worker.pacing import LARGEST_CHANGE, MOST_SHARES, SMALLEST, Pacer


def machine(read_s: float, per_row_s: float) -> Callable[[int], float]:
    """Seconds of a step with so many rows: reading weights, or arithmetic where that takes longer."""
    return lambda rows: max(read_s, rows * per_row_s)


def run(
    pacer: Pacer, step_s: Callable[[int], float], steps: int, decodes: int = 1, prompts: int = 1
) -> list[float]:
    """Steps full of prompt tokens after one without; how many times longer than that each took."""
    idle_s = step_s(decodes)
    pacer.observe(decodes, 0, idle_s)
    stretches = []
    for _ in range(steps):
        tokens = pacer.allowance(decodes, prompts)
        duration_s = step_s(decodes + tokens)
        pacer.observe(decodes, tokens, duration_s)
        stretches.append(duration_s / idle_s)
    return stretches


@given(st.floats(0.001, 0.1), st.integers(20, 300), st.integers(1, 12))
def test_steps_settle_at_the_stretch_asked_for(read_s: float, free_rows: int, prompts: int) -> None:
    step_s = machine(read_s, read_s / free_rows)
    stretches = run(Pacer(2.0, largest=4096), step_s, steps=30, prompts=prompts)
    asked = 1 + min(prompts, MOST_SHARES)
    assert all(0.9 * asked < stretch < 1.1 * asked for stretch in stretches[-10:])


def test_steps_get_shorter_at_once_when_fewer_prompts_wait() -> None:
    pacer, step_s = Pacer(2.0, largest=4096), machine(0.05, 0.005)
    run(pacer, step_s, steps=30, prompts=8)
    assert run(pacer, step_s, steps=1, prompts=1)[0] <= 2.2


def test_many_decodes_leave_prompts_as_much_time_as_they_take() -> None:
    pacer, step_s = Pacer(2.0, largest=4096), machine(0.05, 0.005)
    run(pacer, step_s, steps=30, decodes=1)
    tokens = pacer.allowance(20, 1)  # decoding 20 takes 0.1 s, which no step has shown yet
    assert step_s(20 + tokens) / step_s(20) > 1.8


def test_a_machine_without_room_still_gets_on() -> None:
    pacer = Pacer(2.0)
    run(pacer, machine(0.01, 0.01), steps=30)
    assert pacer.allowance(1, 1) == SMALLEST


def test_the_allowance_has_a_largest_value() -> None:
    pacer = Pacer(2.0, largest=256)
    run(pacer, lambda rows: 0.01, steps=30)
    assert pacer.allowance(1, 1) == 256


def test_one_slow_step_changes_little() -> None:
    pacer = Pacer(2.0)
    run(pacer, machine(0.01, 0.0002), steps=30)
    settled = pacer.allowance(1, 1)
    pacer.observe(1, settled, 10.0)
    assert pacer.allowance(1, 1) >= settled / LARGEST_CHANGE - 2


def test_steps_that_were_not_full_change_nothing() -> None:
    pacer = Pacer(2.0)
    run(pacer, machine(0.01, 0.0002), steps=30)
    settled = pacer.allowance(1, 1)
    for _ in range(20):
        pacer.observe(1, 3, 0.01)
    assert pacer.allowance(1, 1) == settled


def test_prefill_alone_teaches_nothing() -> None:
    pacer = Pacer(2.0, start=64)
    pacer.observe(0, 512, 5.0)
    assert pacer.allowance(1, 1) == 64
    pacer.observe(1, 64, 5.0)  # what a step without prompt tokens takes is not known yet
    assert pacer.allowance(1, 1) == 64


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 2000), st.integers(0, 100), st.floats(1e-6, 100)),
        max_size=60,
    )
)
def test_the_allowance_stays_within_bounds(steps: list[tuple[int, int, int, float]]) -> None:
    pacer = Pacer(2.0, largest=512)
    for decodes, prompt_tokens, prompts, duration_s in steps:
        pacer.observe(decodes, prompt_tokens, duration_s)
        assert SMALLEST <= pacer.allowance(decodes, prompts) <= 512
