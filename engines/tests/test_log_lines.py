"""Output in whatever pieces becomes lines."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from sluice_engines.log_lines import LineSplitter, forward_lines


@given(st.text(alphabet="aé\n"), st.lists(st.integers(1, 7)))
def test_pieces_do_not_matter(text, sizes):
    data, splitter, lines = text.encode(), LineSplitter(), []

    for size in sizes:
        lines += splitter.decode(data[:size])
        data = data[size:]
    lines += splitter.decode(data) + splitter.flush()

    expected = text.split("\n")
    assert lines == (expected if expected[-1] else expected[:-1])


def test_a_line_without_end_is_passed_on_in_pieces():
    splitter = LineSplitter(max_line_bytes=4)

    assert splitter.decode(b"abcdefghij") == ["abcd", "efgh"]
    assert splitter.decode(b"\n") == ["ij"]


def test_carriage_returns_and_broken_utf8_do_no_harm():
    assert LineSplitter().decode(b"a\r\n\xff\n") == ["a", "\N{REPLACEMENT CHARACTER}"]


async def test_a_pipe_is_forwarded_to_its_end_and_closed():
    reader, writer = os.pipe()
    os.write(writer, b"one\ntwo")
    os.close(writer)
    lines: list[str] = []

    await forward_lines(reader, lines.append)

    assert lines == ["one", "two"]
