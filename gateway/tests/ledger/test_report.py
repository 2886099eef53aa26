"""Sums and single requests out of the ledger."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sluice_gateway.errors import Failure
from sluice_gateway.exchange import Exchange
from sluice_gateway.ledger.archive import Archive
from sluice_gateway.ledger.period import PeriodError, format_time, parse_time
from sluice_gateway.ledger.report import CursorError, Dimension, Selection, UsageReport
from sluice_gateway.ledger.row import row_of
from sluice_gateway.store.database import Database
from sluice_router.types import Usage

from .requests import NOON, request

HOUR = 3600
DAY = 24 * HOUR
EVER = Selection(since_ms=0, until_ms=2**60)


async def given(database: Database, *ended: tuple[float, Exchange]) -> UsageReport:
    """A report on requests that ended at these times."""
    rows = [row_of(exchange, 1, number, time_s) for number, (time_s, exchange) in enumerate(ended)]
    await Archive(database).insert(rows)
    return UsageReport(database)


async def groups(
    report: UsageReport, by: Sequence[Dimension], selection: Selection = EVER
) -> dict[tuple[str, ...], int]:
    """Requests by the values of dimensions."""
    page = await report.sums(selection, by)
    return {tuple(line.group.values()): line.requests for line in page.data}


async def test_sums_add_up_tokens_money_and_failures(database: Database) -> None:
    usage = Usage(prompt_tokens=100, cached_tokens=40, completion_tokens=10)
    cached = request(usage=Usage(prompt_tokens=0, completion_tokens=0))
    cached.cache = "hit"
    report = await given(
        database,
        (NOON, request(usage=usage, cost=0.1)),
        (NOON, request(usage=usage, cost=0.2, failure=Failure.UPSTREAM_LOST)),
        (NOON, cached),
    )

    (line,) = (await report.sums(EVER, ["tenant"])).data

    assert line.group == {"tenant": "acme"}
    assert (line.requests, line.failed, line.from_cache) == (3, 1, 1)
    assert (line.prompt_tokens, line.cached_tokens, line.completion_tokens) == (200, 80, 20)
    assert line.cost == 0.3
    assert (line.queue_ms, line.first_token_ms, line.total_ms) == (1.0, None, 250.0)


async def test_every_dimension_and_their_combinations(database: Database) -> None:
    report = await given(
        database,
        (NOON, request(tenant="a", key="k1", model="m", backend="x")),
        (NOON + HOUR, request(tenant="a", key="k2", model="m", backend="y")),
        (NOON + DAY, request(tenant="b", key="k3", model="n", backend="y")),
    )

    assert await groups(report, ["tenant"]) == {("a",): 2, ("b",): 1}
    assert await groups(report, ["key"]) == {("k1",): 1, ("k2",): 1, ("k3",): 1}
    assert await groups(report, ["model", "backend"]) == {("m", "x"): 1, ("m", "y"): 1, ("n", "y"): 1}
    assert await groups(report, ["day"]) == {("2026-01-01",): 2, ("2026-01-02",): 1}
    assert await groups(report, ["hour", "tenant"]) == {
        ("2026-01-01T12:00Z", "a"): 1,
        ("2026-01-01T13:00Z", "a"): 1,
        ("2026-01-02T12:00Z", "b"): 1,
    }
    assert await groups(report, ["kind", "quant"]) == {("chat", ""): 3}
    assert await groups(report, []) == {(): 3}


async def test_a_selection_narrows_by_time_and_names(database: Database) -> None:
    report = await given(
        database,
        (NOON, request(tenant="a", model="m")),
        (NOON + 1, request(tenant="a", model="n")),
        (NOON + 2, request(tenant="b", model="m")),
    )
    since = int((NOON + 1) * 1000)

    assert await groups(report, ["tenant"], Selection(since_ms=since, until_ms=2**60)) == {
        ("a",): 1,
        ("b",): 1,
    }
    assert await groups(report, ["tenant"], Selection(since_ms=0, until_ms=since)) == {("a",): 1}
    assert await groups(report, ["model"], Selection(since_ms=0, until_ms=2**60, tenant="a", model="n")) == {
        ("n",): 1
    }


async def test_nothing_is_no_sum(database: Database) -> None:
    report = await given(database)
    assert (await report.sums(EVER, [])).data == []
    assert (await report.sums(EVER, ["day"])).data == []
    assert (await report.requests(EVER)).data == []


async def test_sums_come_in_pages(database: Database) -> None:
    report = await given(database, *((NOON, request(model=f"m{number}")) for number in range(5)))
    seen, offset = [], 0
    for _ in range(3):
        page = await report.sums(EVER, ["model"], limit=2, offset=offset)
        seen += [line.group["model"] for line in page.data]
        if page.next_offset is None:
            break
        offset = page.next_offset
    assert seen == ["m0", "m1", "m2", "m3", "m4"]


async def test_single_requests_come_newest_first_in_pages_that_new_ones_do_not_shift(
    database: Database,
) -> None:
    report = await given(database, *((NOON + n // 2, request(f"req_{n}")) for n in range(5)))

    first = await report.requests(EVER, limit=2)
    await Archive(database).insert([row_of(request("late"), 2, 0, NOON + 99)])
    second = await report.requests(EVER, limit=2, after=first.next_cursor)
    third = await report.requests(EVER, limit=2, after=second.next_cursor)

    pages = [[record.request_id for record in page.data] for page in (first, second, third)]
    assert pages == [["req_4", "req_3"], ["req_2", "req_1"], ["req_0"]]
    assert third.next_cursor is None
    assert first.data[0].time == "2026-01-01T12:00:02.000Z"


@pytest.mark.parametrize("cursor", ["", "1", "a-b-c", "1-2-3-4", "-1-2-3", f"{2**70}-1-1"])
async def test_a_cursor_of_nobody_is_refused(sqlite: Database, cursor: str) -> None:
    with pytest.raises(CursorError):
        await UsageReport(sqlite).requests(EVER, after=cursor)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", NOON - 7 * DAY),
        ("30m", NOON - 1800),
        ("2w", NOON - 14 * DAY),
        ("2026-01-01", NOON - 12 * HOUR),
        ("2026-01-01T12:00:00Z", NOON),
        ("2026-01-01T13:00:00+01:00", NOON),
        ("1900-01-01", 0),
    ],
)
def test_times_as_people_write_them(text: str, expected: float) -> None:
    assert parse_time(text, NOON) == expected * 1000


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7y", "2026-13-01", "-7d", "9" * 40])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(PeriodError, match="is no time"):
        parse_time(text, NOON)


def test_times_are_written_in_utc() -> None:
    assert format_time(1_767_268_800_250) == "2026-01-01T12:00:00.250Z"
