from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_worker.server.stop_strings import StopStringFilter


def naive(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The slow twin: read one character at a time, and cut off the longest stop string that ends there."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))], True
    return text, False


# Two letters, so that stop strings occur, overlap and begin inside one another all the time.
words = st.text(alphabet="ab", max_size=12)
stop_sets = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=4).map(tuple)


@given(pieces=st.lists(words, max_size=8), stops=stop_sets)
@settings(max_examples=1000, deadline=None)
def test_pieces_give_what_the_whole_text_gives(pieces: list[str], stops: tuple[str, ...]) -> None:
    stop_filter = StopStringFilter(stops)
    text, stopped = "", False
    for piece in pieces:
        released = stop_filter.feed(piece)
        text += released.text
        if released.stopped:
            stopped = True
            break
    if not stopped:
        text += stop_filter.flush()

    assert (text, stopped) == naive("".join(pieces), stops)


@given(pieces=st.lists(words, max_size=8), stops=stop_sets)
@settings(max_examples=300, deadline=None)
def test_nothing_is_held_that_could_not_begin_a_stop_string(
    pieces: list[str], stops: tuple[str, ...]
) -> None:
    stop_filter = StopStringFilter(stops)
    for piece in pieces:
        if stop_filter.feed(piece).stopped:
            return
        assert not stop_filter.held or any(stop.startswith(stop_filter.held) for stop in stops)


def test_a_stop_string_across_three_pieces_is_never_shown() -> None:
    stop_filter = StopStringFilter(("</tool>",))

    assert stop_filter.feed("call <") == ("call ", False)
    assert stop_filter.feed("/too") == ("", False)
    assert stop_filter.feed("l> and more") == ("", True)


def test_what_only_looked_like_a_stop_string_is_let_out() -> None:
    stop_filter = StopStringFilter(("\n\n",))

    assert stop_filter.feed("one\n") == ("one", False)
    assert stop_filter.feed("two") == ("\ntwo", False)
