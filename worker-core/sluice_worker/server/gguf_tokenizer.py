"""The tokenizer inside a GGUF file, as the one that the same model's `tokenizer.json` would describe.

Two kinds: `gpt2` is byte-level BPE with a list of merges, split into words by a pattern that goes by a name
(`tokenizer.ggml.pre`); `llama` is SentencePiece BPE, whose merges follow from the scores of the tokens. The
patterns are those of llama.cpp (`src/llama-vocab.cpp`), which has them from the models' own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.gguf_file import GgufFile

WHOLE_TOKENIZER = "tokenizer.huggingface.json"
"""The metadata key of a whole `tokenizer.json`, where a file has it; it needs nothing of this module."""

_CONTROL, _USER_DEFINED = 3, 4
"""`tokenizer.ggml.token_type` of tokens that are added beside the vocabulary."""

_SPACE = "\u2581"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_PATTERNS = {
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "qwen2": _QWEN2,
}
_PATTERNS["deepseek-r1-qwen"] = _QWEN2
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def build_tokenizer(file: GgufFile) -> Tokenizer:
    """Raises `UnsupportedModelError` for a kind or a pattern that is not known, `CheckpointError` for a
    vocabulary that cannot be, `KeyError` when the file has no tokenizer."""
    metadata = file.metadata
    kind = metadata["tokenizer.ggml.model"]
    if kind == "gpt2":
        tokenizer = _byte_level(metadata, file)
    elif kind == "llama":
        tokenizer = _sentencepiece(metadata)
    else:
        raise UnsupportedModelError(
            f"{file.path} has a tokenizer of kind {kind}; gpt2 and llama are supported."
        )
    types = metadata.get("tokenizer.ggml.token_type", [])
    added = zip(metadata["tokenizer.ggml.tokens"], types, strict=False)
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in added
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    return tokenizer


def special_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    """By role, as `tokenizer_config.json` names them."""
    ids = {ours: metadata.get(f"tokenizer.ggml.{theirs}_token_id") for theirs, ours in _SPECIAL.items()}
    tokens = metadata["tokenizer.ggml.tokens"]
    return {role: tokens[index] for role, index in ids.items() if index is not None and index < len(tokens)}


def adds_bos(metadata: Mapping[str, Any]) -> bool:
    """Whether a plain prompt begins with the beginning-of-text token."""
    return bool(metadata.get("tokenizer.ggml.add_bos_token", metadata["tokenizer.ggml.model"] == "llama"))


def _byte_level(metadata: Mapping[str, Any], file: GgufFile) -> Tokenizer:
    name = str(metadata.get("tokenizer.ggml.pre", "default"))
    words = _pre_tokenizer(name, file)
    vocabulary = {token: index for index, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    split = (pair.partition(" ") for pair in metadata["tokenizer.ggml.merges"])
    merges = [(first, second) for first, _, second in split]
    for first, second in merges:
        if not {first, second, first + second} <= vocabulary.keys():  # the library would panic
            raise CheckpointError(f"{file.path} merges {first!r} and {second!r}, which is no token of it.")
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, ignore_merges=_PATTERNS.get(name) is _LLAMA3)
    )
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    if _PATTERNS.get(name) is _QWEN2:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _pre_tokenizer(name: str, file: GgufFile) -> pre_tokenizers.PreTokenizer:
    if name in _PATTERNS:
        split = pre_tokenizers.Split(Regex(_PATTERNS[name]), behavior="isolated")
        return pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name in ("default", "gpt-2"):
        return words
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    known = ", ".join([*_PATTERNS, "smollm", "gpt-2"])
    raise UnsupportedModelError(
        f"{file.path} splits words in the way called {name}; known are {known}. Put the model's "
        "tokenizer.json beside the file."
    )


def _sentencepiece(metadata: Mapping[str, Any]) -> Tokenizer:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = tokens[int(metadata.get("tokenizer.ggml.unknown_token_id", 0))]
    merges = list(_merges(vocabulary, metadata["tokenizer.ggml.scores"]))
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    steps = [normalizers.Prepend(_SPACE)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    strip = [decoders.Strip(content=" ", left=1, right=0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges(vocabulary: Mapping[str, int], scores: list[float]) -> Iterator[tuple[str, str]]:
    """All ways to make a token of two others, the best tokens first."""
    by_score = sorted(vocabulary.items(), key=lambda entry: -scores[entry[1]])
    for token, _ in by_score:
        pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = (pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary)
        yield from sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
