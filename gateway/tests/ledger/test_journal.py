"""Rows on disk: what was appended is read back, or only the tail of it is missing."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_gateway.ledger.journal import MAGIC, Journal, parse, rows_of
from sluice_gateway.ledger.row import Row

MIB = 1_048_576

values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20)
rows = st.lists(st.lists(values, min_size=1, max_size=6).map(tuple), min_size=1, max_size=8)


def opened(folder: Path, writer: int = 1, max_bytes: int = MIB) -> Journal:
    journal = Journal(folder, writer, max_bytes)
    journal.open()
    return journal


def waiting(journal: Journal) -> list[Row]:
    """Everything in the journal, oldest first; it is empty afterwards."""
    found: list[Row] = []
    journal.seal()
    while (segment := journal.oldest()) is not None:
        found += rows_in(journal.read(segment))
        journal.forget(segment)
    return found


def rows_in(payloads: list[bytes]) -> list[Row]:
    return [row for payload in payloads for row in rows_of(payload)]


def segment_of(groups: list[list[Row]]) -> bytes:
    """The bytes of one segment that groups were appended to."""
    with tempfile.TemporaryDirectory() as folder:
        journal = opened(Path(folder))
        for group in groups:
            journal.append(group)
        journal.seal()
        segment = journal.oldest()
        assert segment is not None
        return segment.read_bytes()


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append([(1, "a", None, True)])
    journal.append([(2, "b", 0, False), (3, "c", -1, True)])

    assert waiting(journal) == [(1, "a", None, True), (2, "b", 0, False), (3, "c", -1, True)]
    assert journal.size_bytes == 0


def test_a_large_group_is_kept_whole(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    group = [(number, "x" * 50) for number in range(3000)]
    journal.append(group)
    assert waiting(journal) == group


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=5), st.data())
def test_a_torn_tail_costs_at_most_the_groups_it_tore(groups: list[list[Row]], data: st.DataObject) -> None:
    whole = segment_of(groups)
    ends = [len(segment_of(groups[: count + 1])) for count in range(len(groups))]
    cut = data.draw(st.integers(0, len(whole)))

    found, end = parse(whole[:cut])

    kept = sum(1 for group_end in ends if group_end <= cut)
    assert rows_in(found) == [row for group in groups[:kept] for row in group]
    assert end <= cut


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=5), st.data())
def test_damage_costs_nothing_that_came_before_it(groups: list[list[Row]], data: st.DataObject) -> None:
    whole = bytearray(segment_of(groups))
    ends = [len(segment_of(groups[: count + 1])) for count in range(len(groups))]
    place = data.draw(st.integers(len(MAGIC), len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))

    found, _ = parse(bytes(whole))

    undamaged = sum(1 for group_end in ends if group_end <= place)
    assert rows_in(found) == [row for group in groups[:undamaged] for row in group]


def test_a_torn_tail_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(tmp_path)
    journal.append([(1,)])
    journal.append([(2,)])
    journal.seal()
    segment = journal.oldest()
    assert segment is not None
    segment.write_bytes(segment.read_bytes()[:-1])

    with caplog.at_level(logging.WARNING, "sluice"):
        assert rows_in(journal.read(segment)) == [(1,)]
    assert "torn" in caplog.text


def test_a_segment_of_another_version_is_kept_aside(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append([(1,)])
    journal.seal()
    segment = journal.oldest()
    assert segment is not None
    segment.write_bytes(b"SLCUSE99" + b"whatever")

    assert waiting(journal) == []
    assert [path.suffix for path in tmp_path.glob("*.unreadable")] == [".unreadable"]


def test_the_next_run_adopts_what_an_ended_run_left(tmp_path: Path) -> None:
    first = opened(tmp_path, writer=1)
    first.append([(1,)])
    first.seal()
    first.append([(2,)])
    first.close()

    second = opened(tmp_path, writer=2)

    second.append([(3,)])
    assert waiting(second) == [(1,), (2,), (3,)]


def test_a_living_run_keeps_its_rows(tmp_path: Path) -> None:
    first = opened(tmp_path, writer=1)
    first.append([(1,)])

    second = opened(tmp_path, writer=2)

    assert waiting(second) == []
    assert waiting(first) == [(1,)]


def test_past_the_bound_the_oldest_segments_go(tmp_path: Path) -> None:
    journal = opened(tmp_path, max_bytes=MIB)
    appended = [(number, "x" * 1000) for number in range(2000)]
    lost = 0
    for begin in range(0, len(appended), 20):
        journal.append(appended[begin : begin + 20])
        lost += journal.shrink()
        assert journal.size_bytes <= MIB

    assert lost > 0
    assert waiting(journal) == appended[lost:]


def test_synced_segments_are_still_there(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append([(1,)])
    journal.seal()
    journal.sync()
    journal.sync()
    assert waiting(journal) == [(1,)]


def test_a_run_that_left_nothing_leaves_no_files(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append([(1,)])
    waiting(journal)
    journal.close()
    assert list(tmp_path.iterdir()) == []
