from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from parrot import BEGIN, FIRST_BYTE, byte_tokenizer, token_ids
from tokenizers import decoders, models, pre_tokenizers

from sluice_worker.errors import UnsupportedModelError
from sluice_worker.server.detokenizer import Detokenizer
from sluice_worker.server.tokenizer import Tokenizer, TokenizerConfig


def merged_tokenizer() -> tokenizers.Tokenizer:
    """Byte-level, with merges that cut through characters: half an euro sign and two bytes of an emoji."""
    tokenizer = byte_tokenizer()
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = tokenizer.pre_tokenizer
    trained.decoder = tokenizer.decoder
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[BEGIN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(
        ["the €uro and the €mpire 😀😃😄 the cat", "naïve façade 日本語日本"] * 20, trainer
    )
    return trained


def sentencepiece_tokenizer() -> tokenizers.Tokenizer:
    """As Llama 2's: spaces are U+2581, a first word gets one, unknown characters fall back to bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "▁the", "t", "h", "e", "▁t", "th", "▁th", "c", "a", "ca"]
    merges = [("▁", "t"), ("t", "h"), ("▁t", "h"), ("▁th", "e"), ("c", "a")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


BYTES, MERGED, PIECES = byte_tokenizer(), merged_tokenizer(), sentencepiece_tokenizer()


def detokenize(tokenizer: tokenizers.Tokenizer, ids: list[int], *, skip: bool = True) -> list[str]:
    wrapped = Tokenizer(tokenizer, TokenizerConfig())
    detokenizer = Detokenizer(wrapped, skip_special_tokens=skip, strip_first_space=True)
    return [*(detokenizer.add(token_id) for token_id in ids), detokenizer.flush()]


@given(ids=st.lists(st.integers(0, 258), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_as_they_do_all_at_once(ids: list[int]) -> None:
    assert "".join(detokenize(BYTES, ids)) == BYTES.decode(ids, skip_special_tokens=True)
    assert "".join(detokenize(BYTES, ids, skip=False)) == BYTES.decode(ids, skip_special_tokens=False)


@given(ids=st.lists(st.integers(0, MERGED.get_vocab_size() - 1), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_merged_tokens_decode_as_they_do_all_at_once(ids: list[int]) -> None:
    assert "".join(detokenize(MERGED, ids)) == MERGED.decode(ids, skip_special_tokens=True)


@given(text=st.text(alphabet=st.sampled_from("the ca€😀\n"), max_size=20))
@settings(max_examples=300, deadline=None)
def test_sentencepiece_texts_decode_as_they_do_all_at_once(text: str) -> None:
    ids = PIECES.encode(text).ids

    assert "".join(detokenize(PIECES, ids)) == PIECES.decode(ids) == text


@given(text=st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_characters_are_never_split(text: str) -> None:
    pieces = detokenize(BYTES, token_ids(text))

    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_an_unfinished_character_is_shown_as_broken_only_at_the_end() -> None:
    euro = [byte + FIRST_BYTE for byte in "€".encode()]

    assert detokenize(BYTES, euro) == ["", "", "€", ""]
    assert detokenize(BYTES, euro[:2]) == ["", "", "\ufffd"]


def test_a_continuation_keeps_its_first_space() -> None:
    wrapped = Tokenizer(PIECES, TokenizerConfig())
    ids = PIECES.encode("the").ids

    chat = Detokenizer(wrapped, skip_special_tokens=True, strip_first_space=True)
    completion = Detokenizer(wrapped, skip_special_tokens=True, strip_first_space=False)

    assert chat.add(ids[0]) == "the"
    assert completion.add(ids[0]) == " the"


def test_a_vocabulary_that_cannot_be_read_as_bytes_is_refused() -> None:
    wordpiece = tokenizers.Tokenizer(models.WordPiece(vocab={"[UNK]": 0}, unk_token="[UNK]"))
    wordpiece.decoder = decoders.WordPiece()

    with pytest.raises(UnsupportedModelError, match="WordPiece"):
        Tokenizer(wordpiece, TokenizerConfig())
