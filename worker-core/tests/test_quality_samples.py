"""From a corpus to the tokens whose predictions count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from parrot import TEMPLATE, token_ids, write_folder

from sluice_worker.errors import ConfigError
from sluice_worker.loading.model_folder import resolve_model
from sluice_worker.quality import corpus as corpus_module
from sluice_worker.quality.corpus import Document, load_corpus
from sluice_worker.quality.samples import Sample, SampleMaker
from sluice_worker.server.requests import ChatMessage

TALK = Document(messages=[ChatMessage("user", "ab"), ChatMessage("assistant", "cde")])


def parrot(tmp_path: Path, template: str | None, window: int = 100) -> SampleMaker:
    return SampleMaker(resolve_model(str(write_folder(tmp_path / "parrot", template))), window)


def test_the_shipped_corpus_is_the_frozen_one_and_suits_the_bundled_model() -> None:
    corpus = load_corpus(None)
    samples = SampleMaker(resolve_model("sluice-tiny"), 1024).samples(corpus.documents)
    assert (corpus.name, len(corpus.documents), len(samples)) == ("sluice", 120, 120)
    scored = sum(len(sample.token_ids) - sample.first_scored for sample in samples)
    assert scored > 3000


def test_a_changed_corpus_is_not_taken_for_the_shipped_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = tmp_path / "corpus.jsonl"
    changed.write_text('{"text": "x"}\n')
    monkeypatch.setattr(corpus_module, "SHIPPED", changed)
    with pytest.raises(ConfigError, match="not the file that was shipped"):
        load_corpus(None)


def test_a_conversation_counts_with_its_last_answer_and_the_token_that_ends_it() -> None:
    maker = SampleMaker(resolve_model("sluice-tiny"), 1024)
    talk = Document(
        messages=[
            ChatMessage("user", "Hello!"),
            ChatMessage("assistant", "Hello! How can I help you?"),
            ChatMessage("user", "How much is 6 times 7?"),
            ChatMessage("assistant", "It is 42."),
        ]
    )
    [sample] = maker.samples([talk])
    text = maker._tokenizer
    scored = b"".join(map(text.token_bytes, sample.token_ids[sample.first_scored :])).decode()
    prompt = b"".join(map(text.token_bytes, sample.token_ids[: sample.prompt_length])).decode()
    assert scored == "It is 42.<|im_end|>"
    assert prompt.endswith("times 7?<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}"])
def test_without_a_template_that_works_a_conversation_is_plain_text(
    tmp_path: Path, template: str | None
) -> None:
    [sample] = parrot(tmp_path, template).samples([TALK])
    assert sample == Sample(token_ids("ab\ncde"), 3, 3)


def test_a_text_is_cut_into_windows_that_count_from_their_second_token(tmp_path: Path) -> None:
    samples = parrot(tmp_path, TEMPLATE, window=4).samples([Document(text="abcdefghi")])
    assert samples == [Sample(token_ids("abcd"), 1, 2), Sample(token_ids("efgh"), 1, 2)]


def test_conversations_longer_than_the_window_are_left_out(tmp_path: Path) -> None:
    maker = parrot(tmp_path, TEMPLATE, window=5)
    longer = Document(messages=[ChatMessage("user", "ab"), ChatMessage("assistant", "cdef")])
    assert len(maker.samples([longer, TALK])) == 1
    with pytest.raises(ConfigError, match="fits into 5 tokens"):
        maker.samples([longer])


def test_a_corpus_is_a_text_or_documents_on_lines(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_text('{"text": "x"}')
    lines.write_text('{"text": "x"}\n\n{"messages": [{"role": "assistant", "content": "y"}]}\n')
    assert [document.text for document in load_corpus(plain).documents] == ['{"text": "x"}']
    assert [document.text for document in load_corpus(lines).documents] == ["x", ""]
    assert load_corpus(lines).name == "b.jsonl"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no text in it"),
        ("{", "is no corpus"),
        (json.dumps({"text": 1}), "is no corpus"),
        (json.dumps({"messages": [{"role": "user", "content": "x"}]}), "does not end with an assistant"),
    ],
)
def test_a_file_without_usable_text_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_corpus(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no corpus"):
        load_corpus(tmp_path / "none.txt")
