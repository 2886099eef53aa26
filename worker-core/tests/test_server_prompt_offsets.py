"""Where the tokens of an echoed prompt begin in its text."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from parrot import BEGIN, byte_tokenizer, token_ids
from tokenizers import decoders, models, normalizers

from sluice_worker.server.prompts import Prompt, prompt_offsets
from sluice_worker.server.tokenizer import Tokenizer, TokenizerConfig

BYTES = Tokenizer(byte_tokenizer(), TokenizerConfig())


def sentencepiece() -> Tokenizer:
    """Llama 2's way: a beginning-of-text token, and a space before the first word."""
    words = ["<unk>", "<s>", "▁a", "▁", "a", "b", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={word: i for i, word in enumerate(words)},
            merges=[("▁", "a")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>"])
    return Tokenizer(tokenizer, TokenizerConfig(add_bos_token=True, special_tokens={"bos_token": "<s>"}))


@given(st.text(alphabet="aé東🦊 ", max_size=12))
def test_a_byte_stands_where_its_character_does(text: str) -> None:
    expected = [i for i, character in enumerate(text) for _ in character.encode()]
    assert prompt_offsets(Prompt(token_ids(text), text), BYTES) == expected


@pytest.mark.parametrize(
    ("text", "offsets"), [("a ab", [0, 0, 1, 3]), (" a", [0, 0, 0]), ("éa", [0, 0, 0, 0, 1]), ("", [0])]
)
def test_what_the_tokenizer_puts_in_front_has_no_place_in_the_text(text: str, offsets: list[int]) -> None:
    tokenizer = sentencepiece()
    ids = tokenizer.encode_prompt(text)
    assert prompt_offsets(Prompt(ids, text), tokenizer) == offsets


def test_special_tokens_in_the_text_count_as_they_are_written() -> None:
    assert prompt_offsets(Prompt([1, 100, 1], f"{BEGIN}a{BEGIN}"), BYTES) == [0, len(BEGIN), len(BEGIN) + 1]


def test_bytes_that_are_no_text_do_not_lead_outside_it() -> None:
    ids = [0xFF + 3, 0xE2 + 3, ord("a") + 3]
    text = b"\xff\xe2a".decode(errors="replace")
    assert prompt_offsets(Prompt(ids, text), BYTES) == [0, 1, 1]
    assert prompt_offsets(Prompt(ids, ""), BYTES) == [0, 0, 0]
