"""Cutting a text into windows."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice_bench.quality.passages import (
    CHARACTERS_A_TOKEN,
    Text,
    spread,
    text_of_corpus,
    text_of_file,
    windows_of_text,
    windows_of_tokens,
)
from sluice_bench.workloads.corpus import load_corpus


def test_windows_of_tokens_cover_all_but_a_last_one_that_predicts_nothing() -> None:
    assert list(windows_of_tokens(range(8), 3)) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert list(windows_of_tokens(range(7), 3)) == [[0, 1, 2], [3, 4, 5]]


def test_windows_of_text_are_the_text_and_end_between_words() -> None:
    text = "The quick brown fox jumps over the lazy dog and runs away."

    windows = list(windows_of_text(text, 5))

    assert "".join(windows) == text
    assert all(len(window) <= 5 * CHARACTERS_A_TOKEN for window in windows)
    assert all(window.startswith(" ") for window in windows[1:])


def test_a_word_longer_than_a_window_is_cut_all_the_same() -> None:
    assert list(windows_of_text("x" * 20, 3)) == ["x" * 9, "x" * 9, "x" * 2]


def test_some_windows_of_many_are_spread_over_the_text() -> None:
    windows = [[number, number] for number in range(10)]

    assert spread(windows, 3) == [[0, 0], [3, 3], [6, 6]]
    assert spread(windows, 10) == windows


def test_the_default_text_is_the_frozen_corpus() -> None:
    text = text_of_corpus(load_corpus())

    assert len(text.documents) == 112
    assert text.sha256 == text_of_corpus(load_corpus()).sha256
    assert Text(name="", documents=text.documents[1:]).sha256 != text.sha256


def test_a_file_must_have_text(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff\xfe")

    with pytest.raises(ValueError, match="no text"):
        text_of_file(empty)
    with pytest.raises(ValueError, match="not UTF-8"):
        text_of_file(binary)
