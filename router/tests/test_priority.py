"""Classes: when they are due, and how long they may wait."""

from __future__ import annotations

import pytest

from sluice_router.priority import DEADLINES_S, classes


def test_a_request_is_due_a_classs_deadline_after_it_came():
    found = classes(30.0, DEADLINES_S)

    assert [found.place(name, 100.0, 7) for name in DEADLINES_S] == [(102.0, 7), (110.0, 7), (400.0, 7)]


def test_what_a_request_asks_for_itself_wins():
    assert classes(30.0, DEADLINES_S).place("bulk", 100.0, 7, 0.5) == (100.5, 7)


def test_nobody_waits_longer_than_the_timeout_but_bulk_requests():
    found = classes(30.0, DEADLINES_S)

    assert [found.limit_s(name) for name in DEADLINES_S] == pytest.approx([30.0, 30.0, 330.0])
    assert classes(600.0, DEADLINES_S).limit_s("bulk") == 600.0


@pytest.mark.parametrize("timeout_s", [0.5, 5.0, 30.0, 1000.0])
def test_whoever_waits_is_due_before_the_wait_is_over(timeout_s):
    found = classes(timeout_s, DEADLINES_S)

    for deadline_s, limit_s in zip(found.deadlines_s, found.limits_s, strict=True):
        assert deadline_s * 1.1 <= limit_s + 1e-9
    assert list(found.deadlines_s) == sorted(found.deadlines_s)
