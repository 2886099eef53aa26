"""What gateway and warden say to each other."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_engines.warden import read_start_message, start_message

arguments = st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20), min_size=1)


def through_a_pipe(data: bytes) -> list[str]:
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        return read_start_message(reader)
    finally:
        os.close(reader)


@given(arguments)
def test_any_argument_list_arrives_as_it_was_sent(argv):
    assert through_a_pipe(start_message(argv)) == argv


@given(arguments, st.data())
def test_a_gateway_that_dies_while_it_speaks_starts_nothing(argv, data):
    message = start_message(argv)
    cut = data.draw(st.integers(0, len(message) - 1))

    with pytest.raises(EOFError):
        through_a_pipe(message[:cut])
