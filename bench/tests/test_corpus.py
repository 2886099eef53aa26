"""The frozen corpus: made by the generator, small, ours, and complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app
from sluice_bench.workloads.corpus import CORPUS_FILE, Corpus, CorpusError, decode, encode, load_corpus
from sluice_bench.workloads.corpus_generator import corpus_lines
from sluice_bench.workloads.phrases import COMMON, TOPICS, Draw, fill, prose
from sluice_bench.workloads.suites import NEEDS

DIGEST = "4d07e2583358bfd3dc71c15a6201c4c3eaacd1b367ea93ff5aee60129e7db20a"

runner = CliRunner()


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def test_the_file_is_what_the_generator_makes_every_time() -> None:
    made = encode(corpus_lines())
    assert made == encode(corpus_lines())
    assert made == CORPUS_FILE.read_bytes(), "write it anew: sluice-bench prompts"


def test_the_corpus_has_not_changed(corpus: Corpus) -> None:
    """A change makes every earlier run incomparable: it is one to announce, with this digest."""
    assert corpus.sha256 == DIGEST


def test_the_file_is_small_and_reads_back_to_itself(corpus: Corpus) -> None:
    assert CORPUS_FILE.stat().st_size < 1_000_000
    lines = [*corpus.shared.values(), *corpus.prompts]
    assert sorted(encode(lines).splitlines()) == sorted(CORPUS_FILE.read_bytes().splitlines())


def test_every_suite_has_prompts_with_ids_of_their_own(corpus: Corpus) -> None:
    ids = [prompt.id for prompt in corpus.prompts]
    assert len(set(ids)) == len(ids)
    for name in NEEDS:
        assert [prompt.id for prompt in corpus.suite(name)] == [
            f"{name}-{index:04d}" for index in range(len(corpus.suite(name)))
        ]
        assert len(corpus.suite(name)) >= 24


def test_prompts_are_well_formed(corpus: Corpus) -> None:
    for prompt in corpus.prompts:
        assert len(prompt.turns) % 2 == 1, "user begins and ends"
        assert len(prompt.think_ms) == len(prompt.turns) // 2
        assert all(turn.strip() == turn and turn for turn in prompt.turns)
        assert not any(re.search(r"[{}]", turn) for turn in prompt.turns), "no slot left open"
        assert not prompt.shared or prompt.shared in corpus.shared


def test_no_two_prompts_of_a_suite_are_equal(corpus: Corpus) -> None:
    for name in NEEDS:
        turns = [prompt.turns for prompt in corpus.suite(name)]
        assert len(set(turns)) == len(turns), name


def test_an_edit_is_of_something_that_is_there(corpus: Corpus) -> None:
    edits = [p.turns[0] for p in corpus.suite("rag-edit") if p.turns[0].startswith("Give this text back")]
    assert len(edits) == len(corpus.suite("rag-edit")) // 2
    for asked in edits:
        order, _, text = asked.partition("\n\n")
        new, old = re.findall(r"with (\w+) in every place of (\w+)", order)[0]
        assert old in text
        assert new not in text


def test_a_pattern_never_uses_a_word_twice() -> None:
    draw = Draw("test")
    for _ in range(200):
        first, second = fill("{person}, {person}", TOPICS[0], draw).split(", ")
        assert first != second
        assert first in COMMON["person"]


def test_prose_has_the_words_asked_for_and_one_sentence_more_at_most() -> None:
    for words in (1, 20, 300):
        text = prose(words, TOPICS[1], Draw("test"))
        assert words <= len(text.split()) < words + 25


def test_the_command_writes_once_and_then_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data" / "prompts.jsonl"
    first = runner.invoke(app, ["prompts", "--output", str(path)])
    stamp = path.stat().st_mtime_ns
    second = runner.invoke(app, ["prompts", "--output", str(path)])
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "written" in first.output
    assert "up to date" in second.output
    assert DIGEST in second.output
    assert path.stat().st_mtime_ns == stamp
    assert path.read_bytes() == CORPUS_FILE.read_bytes()


def test_a_check_finds_drift_and_mends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    edited = CORPUS_FILE.read_bytes().replace(b"orchard", b"vineyard", 1)
    path.write_bytes(edited)
    assert runner.invoke(app, ["prompts", "--check"]).exit_code == 0
    for wrong in (path, tmp_path / "none.jsonl"):
        result = runner.invoke(app, ["prompts", "--check", "--output", str(wrong)])
        assert result.exit_code == 1
        assert "sluice-bench prompts" in result.output
    assert path.read_bytes() == edited


def test_a_corpus_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="write it with: sluice-bench prompts"):
        load_corpus(tmp_path / "none.jsonl")
    with pytest.raises(CorpusError, match="damaged"):
        decode(b'{"kind":"prompt","id":3}\n')
