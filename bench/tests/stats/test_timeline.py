"""Windows of a run: nothing is lost at their edges, and a partial one is never a rate to quote."""

from __future__ import annotations

from random import Random

import pytest

from sluice_bench.stats.timeline import (
    SECOND_NS,
    count_windows,
    lowest_rate,
    mean_levels,
    peak_rate,
    window_bounds,
)


def test_what_comes_at_an_edge_belongs_to_the_window_that_ends_there() -> None:
    windows = count_windows([(0, 9), (1, 1), (10, 2), (11, 4), (20, 8), (21, 9)], 0, 20, 10)
    assert [window.count for window in windows] == [3, 12]
    assert not any(window.partial for window in windows)


def test_windows_hold_together_what_the_stretch_holds() -> None:
    source = Random(1)
    stamped = [(source.randrange(0, 3_000), source.randrange(5)) for _ in range(500)]
    windows = count_windows(stamped, 100, 2_950, 300)
    assert sum(window.count or 0 for window in windows) == sum(
        count for stamp, count in stamped if 100 < stamp <= 2_950
    )
    assert [window.partial for window in windows] == [False] * 9 + [True]


def test_a_partial_window_is_neither_the_most_nor_the_least() -> None:
    crowded = [(s * SECOND_NS + 1, 100) for s in range(3)] + [(3 * SECOND_NS + 1, 90)]
    windows = count_windows(crowded, 0, 3 * SECOND_NS + SECOND_NS // 10)
    assert windows[-1].rate_per_s == pytest.approx(900)
    assert (peak_rate(windows), lowest_rate(windows)) == (100, 100)
    empty = count_windows(crowded[:3], 0, 3 * SECOND_NS + SECOND_NS // 10)
    assert (empty[-1].count, lowest_rate(empty)) == (0, 100)


def test_a_stretch_shorter_than_a_window_has_no_peak() -> None:
    windows = count_windows([(5, 3)], 0, 10, 100)
    assert (len(windows), windows[0].partial, peak_rate(windows)) == (1, True, None)


def test_an_unknown_count_makes_its_window_and_the_peak_unknown() -> None:
    windows = count_windows([(1, 5), (11, None), (12, 3)], 0, 20, 10)
    assert [window.count for window in windows] == [5, None]
    assert peak_rate(windows) is None and lowest_rate(windows) is None


@pytest.mark.parametrize(("start", "end", "width"), [(5, 5, 1), (6, 5, 1), (0, 5, 0)])
def test_no_windows_of_nothing(start: int, end: int, width: int) -> None:
    with pytest.raises(ValueError, match="no windows"):
        window_bounds(start, end, width)


def test_levels_are_those_of_looking_at_every_instant() -> None:
    source = Random(2)
    spans = [
        (start, start + source.randrange(1, 300)) for start in (source.randrange(900) for _ in range(40))
    ]
    bounds = window_bounds(100, 950, 200)
    slow = [
        sum(start <= instant < end for start, end in spans for instant in range(low, high)) / (high - low)
        for low, high in bounds
    ]
    assert mean_levels(spans, bounds) == pytest.approx(slow)
    assert mean_levels(spans, []) == []
