"""The line about waits that a closed loop hid."""

from __future__ import annotations

from sluice_bench.omission_warning import omission_line
from sluice_bench.records import Failure, Phase, RequestRecord

MS = 1_000_000


def record(
    wait_ms: int, *, stream: bool = True, failure: Failure | None = None, phase: Phase = "measured"
) -> RequestRecord:
    return RequestRecord(
        index=0,
        phase=phase,
        stream=stream,
        scheduled_ns=0,
        first_token_ns=wait_ms * MS if stream else None,
        last_token_ns=wait_ms * MS,
        end_ns=wait_ms * MS,
        failure=failure,
    )


STALLED = [record(10)] * 2000 + [record(2000)] * 4


def test_a_stall_that_few_users_saw_is_a_warning() -> None:
    line = omission_line(STALLED, closed_loop=True)
    assert line.startswith("The closed loop hides waits (user TTFT, ms). ")
    assert "the 10 shown" in line and line.endswith("Measure latency with --rate.")


def test_an_open_loop_asked_on_time_and_hides_nothing() -> None:
    assert omission_line(STALLED, closed_loop=False) == ""


def test_even_waits_are_no_reason_to_warn() -> None:
    assert omission_line([record(10), record(11), record(12)] * 50, closed_loop=True) == ""


def test_of_plain_answers_it_is_the_end_that_was_waited_for() -> None:
    plain = [record(10, stream=False)] * 2000 + [record(2000, stream=False)] * 4
    assert "(E2E, ms)" in omission_line(plain, closed_loop=True)


def test_users_who_think_would_have_asked_less_often() -> None:
    assert omission_line(STALLED, closed_loop=True, think_s=5.0) == ""


def test_failures_and_warm_up_are_no_waits() -> None:
    others = [record(2000, failure=Failure.TIMEOUT)] * 50 + [record(2000, phase="warm_up")] * 50
    assert omission_line([record(10)] * 200 + others, closed_loop=True) == ""
    assert omission_line(others, closed_loop=True) == ""
