from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from parrot import BEGIN, byte_tokenizer, token_ids, write_folder

from sluice_worker.errors import CheckpointError
from sluice_worker.loading.model_folder import open_folder
from sluice_worker.server.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer

BOS = TokenizerConfig(add_bos_token=True, special_tokens={"bos_token": BEGIN})


def with_template(template: str) -> tokenizers.Tokenizer:
    tokenizer = byte_tokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=template, special_tokens=[(BEGIN, 1)]
    )
    return tokenizer


def test_a_prompt_gets_what_the_post_processor_adds_and_a_rendered_chat_does_not() -> None:
    tokenizer = Tokenizer(with_template(f"{BEGIN} $A"), TokenizerConfig())

    assert tokenizer.encode_prompt("hi") == [1, *token_ids("hi")]
    assert tokenizer.encode_rendered("hi") == token_ids("hi")


def test_bos_is_added_once_when_the_config_asks_for_it() -> None:
    plain = Tokenizer(byte_tokenizer(), BOS)
    already = Tokenizer(with_template(f"{BEGIN} $A"), BOS)

    assert plain.encode_prompt("hi") == [1, *token_ids("hi")]
    assert already.encode_prompt("hi") == [1, *token_ids("hi")]
    assert plain.encode_rendered("hi") == token_ids("hi")


def test_special_tokens_written_in_a_rendered_chat_become_tokens() -> None:
    assert Tokenizer(byte_tokenizer(), BOS).encode_rendered(f"{BEGIN}a") == [1, *token_ids("a")]


def test_special_tokens_are_read_as_strings_and_as_objects(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(open_folder(write_folder(tmp_path), "parrot"))

    assert tokenizer.special_tokens == {"eos_token": "<|end|>", "bos_token": BEGIN}
    assert tokenizer.bos_id == 1


def test_an_id_beyond_the_vocabulary_has_no_bytes() -> None:
    assert Tokenizer(byte_tokenizer(), BOS).token_bytes(100_000) == b""


def test_truncation_set_in_the_file_is_ignored(tmp_path: Path) -> None:
    write_folder(tmp_path)
    truncating = byte_tokenizer()
    truncating.enable_truncation(3)
    truncating.save(str(tmp_path / "tokenizer.json"))

    tokenizer = load_tokenizer(open_folder(tmp_path, "parrot"))

    assert tokenizer.encode_prompt("longer than three") == token_ids("longer than three")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{}", "not a readable tokenizer"),
        ("tokenizer_config.json", "[]", "cannot be read"),
    ],
)
def test_a_broken_folder_is_an_error_that_names_the_file(
    tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    write_folder(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)

    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(open_folder(tmp_path, "parrot"))
