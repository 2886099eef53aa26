"""Events out of a stream, with every line ending and every kind of noise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice_bench.sse import events

lines = st.binary(max_size=12).filter(lambda b: b"\r" not in b and b"\n" not in b)
endings = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.lists(lines, min_size=1, max_size=3), max_size=5), endings)
def test_data_comes_back_whatever_ends_the_lines(blocks: list[list[bytes]], ending: bytes) -> None:
    body = b"".join(b"".join(b"data: " + line + ending for line in block) + ending for block in blocks)
    found = list(events(body))
    assert [event.data for event in found] == [b"\n".join(block) for block in blocks]
    assert sum(event.n_bytes for event in found) == len(body)


def test_comments_and_other_fields_are_no_data() -> None:
    body = b": keep-alive\n\nid: 3\nretry: 10\n\nevent: error\ndata:x\n\n"
    (event,) = events(body)
    assert (event.data, event.name) == (b"x", b"error")
    assert event.end == len(body) - 1


def test_an_event_cut_before_its_blank_line_is_dropped() -> None:
    assert [event.data for event in events(b"data: whole\n\ndata: half\n")] == [b"whole"]


def test_a_byte_order_mark_is_skipped() -> None:
    assert [event.data for event in events(b"\xef\xbb\xbfdata: x\n\n")] == [b"x"]
