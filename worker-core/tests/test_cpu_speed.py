"""`sluice-worker bench-kernels`: what it counts, and that every case runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cpu_variants import forced_kernels

from sluice_worker.kernels.cpu import speed
from sluice_worker.kernels.cpu.speed import Case, Figure


def test_cases_take_turns_and_give_their_median() -> None:
    seconds = {"slow": iter([9.0, 1.0, 5.0, 2.0]), "fast": iter([9.0, 0.5, 0.25, 0.125])}
    now, order = 0.0, []

    def case(name: str) -> Case:
        def run() -> None:
            nonlocal now
            now += next(seconds[name])
            order.append(name)

        return Case(name, run, num_bytes=4e9)

    figures = speed.measure([case("slow"), case("fast")], 3, clock=lambda: now)
    assert order == ["slow", "fast"] * 4
    assert [figure.seconds for figure in figures] == [2.0, 0.25]
    assert [figure.best_s for figure in figures] == [1.0, 0.125]
    assert [figure.gb_s for figure in figures] == [2.0, 16.0]


def test_shares_are_of_the_fastest_reading() -> None:
    figures = [
        Figure(Case("read (sum)", lambda: None, 10e9), 1.0, 0.5),
        Figure(Case("read (product)", lambda: None, 20e9), 1.0, 0.5),
        Figure(Case("linear", lambda: None, 5e9, flops=3e12), 1.0, 0.5),
    ]
    assert "| linear | 1,000,000 | 500,000 | 5.0 | 25% | 3,000 |" in speed.render(figures)


def test_every_case_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "COLD_BYTES", 4096 * 4)
    monkeypatch.setattr(speed, "INNER", 64)
    monkeypatch.setattr(speed, "ROWS", (1, 5))
    cases = speed.all_cases(forced_kernels("plain"))
    for case in cases:
        case.run()
    assert len({case.name for case in cases}) == len(cases)


def test_an_unknown_instruction_set_is_one_line() -> None:
    command = [sys.executable, "-m", "sluice_worker", "bench-kernels", "--isa", "mmx"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("sluice-worker: --isa is 'mmx'")
