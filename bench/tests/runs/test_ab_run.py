"""Blocks: who is measured when, and what becomes of one in which something went wrong."""

from __future__ import annotations

import pytest

from sluice_bench.runs.ab_run import AbPlan, PlannedSlot, SlotResult, run_ab

from .invented_slots import slot_result


def steady(slot: PlannedSlot) -> SlotResult:
    """B takes a tenth longer, with some noise of the block."""
    return slot_result(slot, ttft_p50=(1.1 if slot.variant == "b" else 1.0) * (100 + slot.block % 3))


def test_blocks_are_abba_or_baab_and_both_halves_ask_a_and_b_for_the_same() -> None:
    asked: list[PlannedSlot] = []

    def measure(slot: PlannedSlot) -> SlotResult:
        asked.append(slot)
        return steady(slot)

    run = run_ab(AbPlan(blocks=30), measure)
    orders = {"".join(slot.variant for slot in asked[start : start + 4]) for start in range(0, 120, 4)}
    assert orders == {"abba", "baab"}
    halves = [sorted(slot.variant for slot in asked if slot.half == half) for half in range(60)]
    assert halves == [["a", "b"]] * 60
    assert all(first.half == second.half for first, second in zip(asked[::2], asked[1::2], strict=True))
    assert run.complete and run.sound_blocks == 30
    [comparison] = run.comparisons
    assert comparison.verdict == "slower"
    assert comparison.ratio.value == pytest.approx(1.1)


def test_another_seed_tosses_other_coins_and_the_same_seed_the_same() -> None:
    def order(seed: int) -> list[str]:
        return [slot.variant for slot in run_ab(AbPlan(blocks=12, seed=seed), steady).slots]

    assert order(3) == order(3) != order(4)


@pytest.mark.parametrize(
    ("defect", "reason"),
    [({"void": True}, "void"), ({"failures": {"http_status": 2}}, "B failed: http_status")],
)
def test_a_block_with_a_bad_slot_is_set_aside_whole_and_measured_anew(
    defect: dict[str, object], reason: str
) -> None:
    def measure(slot: PlannedSlot) -> SlotResult:
        if slot.block == 3 and slot.variant == "b":
            return slot_result(slot, ttft_p50=1.0, **defect)  # type: ignore[arg-type]
        return steady(slot)

    run = run_ab(AbPlan(blocks=7), measure)
    assert list(run.set_aside) == [3]
    assert run.set_aside[3].startswith(reason)
    assert run.complete and run.sound_blocks == 7
    assert {slot.block for slot in run.slots} == set(range(8))
    assert sum(slot.block == 3 for slot in run.slots) < 4  # the rest of it would be for nothing
    assert run.comparisons[0].ratio.value == pytest.approx(1.1)
    assert run.failed("b") == (2 if "failures" in defect else 0)
    assert run.failed("a") == 0


def test_when_too_much_goes_wrong_measuring_ends_without_a_verdict() -> None:
    run = run_ab(AbPlan(blocks=8), lambda slot: slot_result(slot, void=True, ttft_p50=1.0))
    assert not run.complete
    assert (run.sound_blocks, len(run.set_aside), run.comparisons) == (0, 5, ())


def test_a_figure_that_some_slot_lacks_is_left_out_with_the_reason() -> None:
    def measure(slot: PlannedSlot) -> SlotResult:
        tpot = None if slot.block == 2 else 10.0
        return slot_result(slot, ttft_p50=100.0 + slot.block, tpot_p50=tpot, goodput=0.0)

    run = run_ab(AbPlan(blocks=7), measure)
    assert [found.metric for found in run.comparisons] == ["ttft-p50"]
    assert "none in block 3" in run.not_compared["tpot-p50"]
    assert "no basis of a ratio" in run.not_compared["goodput"]


def test_more_tokens_per_second_are_faster() -> None:
    run = run_ab(
        AbPlan(blocks=7, primary="tokens-per-s"),
        lambda slot: slot_result(slot, tokens_per_s=(120.0 if slot.variant == "b" else 100.0) + slot.block),
    )
    assert run.comparisons[0].verdict == "faster"


def noisy(slot: PlannedSlot) -> SlotResult:
    return slot_result(slot, ttft_p50=100.0 * (1.1 if (slot.block + slot.position) % 3 == 0 else 1.0))


def test_the_noise_of_a_pilot_decides_how_many_blocks_there_are() -> None:
    told: list[int] = []
    fine = run_ab(AbPlan(blocks=8, effect=0.5), noisy, told.append)
    assert (fine.wanted_blocks, fine.sound_blocks, told) == (8, 8, [8, 8])
    finer = run_ab(AbPlan(blocks=8, effect=0.05, most_blocks=500), noisy)
    assert finer.needed_blocks == finer.wanted_blocks == finer.sound_blocks
    assert finer.wanted_blocks > 8
    capped = run_ab(AbPlan(blocks=8, effect=0.01, most_blocks=20), noisy)
    assert (capped.wanted_blocks, capped.sound_blocks) == (20, 20)
    assert (capped.needed_blocks or 0) > 20


def test_too_few_blocks_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(ValueError, match="at least 7 blocks"):
        run_ab(AbPlan(blocks=6), lambda slot: pytest.fail("measured"))
