"""The splitter against a naive twin that sees the whole stream at once."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_gateway.sse import MAX_EVENT_BYTES, Splitter, event_data

STREAMS = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"\n\n", b"data: ", b"data:x", b": note", b"event: e", b"\xc3\xa9"]
    ),
    max_size=30,
).map(b"".join)


def twin(stream: bytes) -> list[bytes]:
    """Events by reading whole lines: an event ends with an empty line that is not its first."""
    events, lines = [], []
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", stream):
        lines.append(line)
        if len(lines) > 1 and line.strip(b"\r\n") == b"":
            events.append(b"".join(lines))
            lines = []
    return [*events, b"".join(lines)] if lines else events


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    splitter = Splitter()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    events = []
    for start, end in itertools.pairwise(edges):
        events += splitter.feed(stream[start:end])
    rest = splitter.flush()
    return [*events, rest] if rest else events


@given(STREAMS, st.lists(st.integers(0, 200), max_size=8))
def test_however_it_is_cut_the_events_are_the_twins(stream: bytes, cuts: list[int]) -> None:
    assert split(stream, cuts) == twin(stream)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_no_byte_is_lost_or_changed(stream: bytes, cuts: list[int]) -> None:
    assert b"".join(split(stream, cuts)) == stream


def test_an_event_is_given_out_as_soon_as_it_is_complete() -> None:
    splitter = Splitter()
    assert splitter.feed(b"data: a\n\ndata: b\n") == [b"data: a\n\n"]
    assert splitter.feed(b"\n") == [b"data: b\n\n"]
    assert splitter.flush() == b""


def test_an_endless_event_does_not_fill_the_memory() -> None:
    splitter = Splitter()
    given_out = sum(len(event) for _ in range(40) for event in splitter.feed(b"x" * 100_000))
    assert given_out >= 4_000_000 - MAX_EVENT_BYTES - 100_000


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data:  x\n\n", b" x"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\r\ndata: b\r\n\r\n", b"a\nb"),
        (b"event: e\nid: 1\ndata: a\n\n", b"a"),
        (b"data\n\n", b""),
        (b": comment\n\n", None),
        (b"retry: 5\n\n", None),
        (b"database: x\n\n", None),
        (b"", None),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert event_data(event) == data
