"""The model's tokenizer: text to ids, and each id's bytes.

Ids become text through a table of bytes made once from the vocabulary, so that decoding a token costs a
look-up and log-probabilities can report the exact bytes of half a character. Two families of vocabulary write
bytes in their own way, told apart by the decoder that `tokenizer.json` declares:

    byte-level (GPT-2, Llama 3, Qwen)     every byte is one printable character of GPT-2's table
    SentencePiece (Llama 2, Mistral)      U+2581 for a space, `<0xE2>` for a byte that is no token of its own

Special beginning-of-text handling follows transformers: a plain prompt gets what the tokenizer's
post-processor adds (and BOS when `add_bos_token` asks for it); a rendered chat template is encoded as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import tokenizers

from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.gguf_file import read_gguf
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.server.gguf_tokenizer import WHOLE_TOKENIZER, adds_bos, build_tokenizer, special_tokens

_BYTE_TOKEN = re.compile(r"^<0x([0-9A-Fa-f]{2})>$")
_SPACE = "\u2581"
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TokenizerConfig(msgspec.Struct, frozen=True):
    """The parts of `tokenizer_config.json` that matter here."""

    chat_template: Any = None
    """A template, or a list of `{name, template}`."""
    add_bos_token: bool | None = None
    special_tokens: dict[str, str] = {}
    """By role, e.g. `bos_token`; chat templates refer to them."""


class Tokenizer:
    """Thread-safe: encoding may run in a worker thread."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, config: TokenizerConfig) -> None:
        """Raises `UnsupportedModelError` when the vocabulary is of neither known family."""
        self._tokenizer = tokenizer
        self._config = config
        added = tokenizer.get_added_tokens_decoder()
        self._special_ids = {token_id for token_id, token in added.items() if token.special}
        decoder = msgspec.json.decode(tokenizer.to_str()).get("decoder")
        self._bytes = _byte_table(tokenizer, decoder, {i: token.content for i, token in added.items()})
        self.adds_first_space = _strips_first_space(decoder)
        self.bos_id = self._id_of("bos_token")

    @property
    def chat_template(self) -> Any:
        """As `tokenizer_config.json` has it, or `None`."""
        return self._config.chat_template

    @property
    def special_tokens(self) -> dict[str, str]:
        """Special tokens by role, e.g. `eos_token`."""
        return self._config.special_tokens

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a plain prompt, with the special tokens the model expects before it."""
        ids: list[int] = self._tokenizer.encode(text).ids
        if self._config.add_bos_token and self.bos_id is not None and ids[:1] != [self.bos_id]:
            return [self.bos_id, *ids]
        return ids

    def encode_rendered(self, text: str) -> list[int]:
        """Ids of a rendered chat template, which contains its special tokens already."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def token_name(self, token_id: int) -> str:
        """The token as the vocabulary writes it. Empty for an id without a token."""
        return self._tokenizer.id_to_token(token_id) or ""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of a token; of a special one, its name. Empty for an id without a token."""
        return self._bytes[token_id] if token_id < len(self._bytes) else b""

    def is_special(self, token_id: int) -> bool:
        """Whether the token controls the conversation and is no text."""
        return token_id in self._special_ids

    def _id_of(self, role: str) -> int | None:
        content = self._config.special_tokens.get(role)
        return None if content is None else self._tokenizer.token_to_id(content)


def load_tokenizer(folder: ModelFolder) -> Tokenizer:
    """Read the model's tokenizer: that in the GGUF file if it is one, or a tokenizer.json beside it.

    Raises `CheckpointError` when it is missing or broken, `UnsupportedModelError` when it is of no known
    kind.
    """
    if folder.gguf is not None:
        return _load_from_gguf(folder, folder.gguf)
    return _load_from_files(folder)


def _load_from_gguf(folder: ModelFolder, path: Path) -> Tokenizer:
    file = read_gguf(path)
    try:
        config = TokenizerConfig(
            chat_template=file.metadata.get("tokenizer.chat_template"),
            add_bos_token=adds_bos(file.metadata),
            special_tokens=special_tokens(file.metadata),
        )
        if (own := file.metadata.get(WHOLE_TOKENIZER)) is not None:
            return Tokenizer(_parsed(path, own), config)
        return Tokenizer(build_tokenizer(file), config)
    except KeyError as error:
        raise CheckpointError(f"{path} has no tokenizer: its metadata lack {error}.") from error
    except UnsupportedModelError:
        if folder.tokenizer is None:
            raise
        return _load_from_files(folder)


def _load_from_files(folder: ModelFolder) -> Tokenizer:
    if folder.tokenizer is None:
        raise CheckpointError(
            f"{folder.path} has no tokenizer.json, which is needed to serve text. Save it with transformers' "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...)."
        )
    try:
        text = folder.tokenizer.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder.tokenizer} is not a readable tokenizer: {error}.") from error
    return Tokenizer(_parsed(folder.tokenizer, text), _read_config(folder))


def _parsed(path: Path, text: str) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} is not a readable tokenizer: {error}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_config(folder: ModelFolder) -> TokenizerConfig:
    if folder.tokenizer_config is None:
        return TokenizerConfig()
    try:
        raw = msgspec.json.decode(folder.tokenizer_config.read_bytes(), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{folder.tokenizer_config} cannot be read: {error}.") from error
    contents = {name: _content(raw.get(name)) for name in _SPECIAL_NAMES}
    return TokenizerConfig(
        chat_template=raw.get("chat_template"),
        add_bos_token=raw.get("add_bos_token"),
        special_tokens={name: content for name, content in contents.items() if content is not None},
    )


def _content(token: Any) -> str | None:
    """A special token is written as a string, or as an object with its `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _decoder_types(decoder: Any) -> list[str]:
    if decoder is None:
        return []
    return [part["type"] for part in decoder.get("decoders", [decoder])]


def _strips_first_space(decoder: Any) -> bool:
    return bool({"Strip", "Metaspace"} & set(_decoder_types(decoder)))


def _byte_table(tokenizer: tokenizers.Tokenizer, decoder: Any, added: dict[int, str]) -> list[bytes]:
    types = set(_decoder_types(decoder))
    if "ByteLevel" in types:
        to_bytes = _byte_level_bytes
    elif types & {"Metaspace", "ByteFallback", "Replace"}:
        to_bytes = _sentencepiece_bytes
    else:
        raise UnsupportedModelError(
            f"tokenizer.json has a decoder of type {', '.join(sorted(types)) or 'null'}; byte-level and "
            "SentencePiece vocabularies are supported."
        )
    table = [b""] * (max(tokenizer.get_vocab().values(), default=-1) + 1)
    for token, token_id in tokenizer.get_vocab().items():
        table[token_id] = to_bytes(token)
    for token_id, content in added.items():
        table[token_id] = content.encode()
    return table


def _sentencepiece_bytes(token: str) -> bytes:
    byte = _BYTE_TOKEN.match(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE, " ").encode()


def _byte_level_bytes(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()  # a token that is not written in the table stands for itself


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's table: printable bytes are themselves, the others are moved up past U+0100, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(moved)}


_BYTE_OF = _byte_level_alphabet()
