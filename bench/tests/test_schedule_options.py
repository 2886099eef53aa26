"""From options to schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sluice_bench import arrivals
from sluice_bench.schedule_options import ScheduleOptions, make_schedule


@pytest.mark.parametrize(
    ("options", "kind", "offsets"),
    [
        ({"rate": 5.0}, "poisson", arrivals.poisson(5.0, 20, 3)),
        ({"rate": 5.0, "arrival": "constant"}, "constant", arrivals.constant(5.0, 20)),
        ({"rate": 5.0, "arrival": "gamma", "cv": 2.0}, "gamma", arrivals.gamma(5.0, 2.0, 20, 3)),
        ({"ramp": "1:10:4"}, "ramp", arrivals.ramp(1.0, 10.0, 4.0, 20, 3)),
        ({"ramp": "1:10:4:exponential"}, "ramp", arrivals.ramp(1.0, 10.0, 4.0, 20, 3, "exponential")),
    ],
)
def test_each_option_makes_its_schedule(options: dict[str, Any], kind: str, offsets: tuple[int, ...]) -> None:
    schedule = make_schedule(ScheduleOptions(**options), 20, seed=3)
    assert schedule is not None
    assert (schedule.kind, schedule.offsets_ns) == (kind, offsets)
    assert schedule.rate_per_s == options.get("rate")


def test_a_trace_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_text("3\n3.5\n5\n")
    schedule = make_schedule(ScheduleOptions(trace=path), 2, seed=3)
    assert schedule is not None
    assert (schedule.kind, schedule.offsets_ns) == ("trace", (0, 500_000_000))


def test_without_any_of_them_there_is_no_schedule() -> None:
    assert make_schedule(ScheduleOptions(), 20, seed=3) is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rate": 1.0, "arrival": "gamma"}, "belong together"),
        ({"rate": 1.0, "cv": 2.0}, "belong together"),
        ({"arrival": "constant"}, "give it a --rate"),
        ({"ramp": "1:2:3", "arrival": "gamma", "cv": 2.0}, "give it a --rate"),
        ({"ramp": "1:2"}, "FROM:TO:SECONDS"),
        ({"ramp": "1:2:x"}, "FROM:TO:SECONDS"),
        ({"ramp": "1:2:3:cubic"}, "FROM:TO:SECONDS"),
        ({"ramp": "1:2:0"}, "a time above 0 s"),
    ],
)
def test_options_without_sense_get_a_sentence(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make_schedule(ScheduleOptions(**options), 20, seed=3)
