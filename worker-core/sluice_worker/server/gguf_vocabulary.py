"""A `tokenizer.json` as the metadata that GGUF files hold of it: the reverse of `gguf_tokenizer`.

Files name the pattern that splits text into words. One that has no name is written as the named one that
gives the same tokens most often, tried on texts: llama.cpp then splits the rest otherwise. This worker does
not: the whole `tokenizer.json` is in the file too, under the key that the format has for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tokenizers

from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.loading.gguf_file import GgufFile
from sluice_worker.loading.hf_config import read_model_config
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.server.chat_template import template_source
from sluice_worker.server.gguf_tokenizer import WHOLE_TOKENIZER, build_tokenizer
from sluice_worker.server.tokenizer import load_tokenizer

NAMES = ("qwen2", "llama-bpe", "gpt-2", "smollm")
"""Patterns that both llama.cpp and this worker know."""

ENOUGH = 0.95
"""Share of the texts that must give the same tokens."""

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_ROLES = {"bos_token": "bos", "unk_token": "unknown", "pad_token": "padding"}


class Vocabulary(NamedTuple):
    """The metadata, and how well the named pattern fits."""

    metadata: dict[str, Any]
    agreement: float
    """Share of the texts with the same tokens; 1 is all."""

    @property
    def pattern(self) -> str:
        """Its name."""
        return str(self.metadata["tokenizer.ggml.pre"])


def gguf_vocabulary(folder: ModelFolder, texts: list[str]) -> Vocabulary:
    """Of the tokenizer in `folder`.

    Raises `CheckpointError` when there is none, `UnsupportedModelError` for one that GGUF cannot describe.
    """
    if folder.tokenizer is None:
        raise CheckpointError(f"{folder.path} has no tokenizer.json, which a GGUF file must contain.")
    raw = msgspec.json.decode(folder.tokenizer.read_bytes(), type=dict[str, Any])
    _refuse_others(folder, raw)
    config = read_model_config(folder)
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        **_tokens(folder, raw, config.vocab_size),
        **_special(folder, raw, config.eos_token_ids),
    }
    text = folder.tokenizer.read_text(encoding="utf-8")
    found = _with_pattern(folder, metadata, texts)
    return found._replace(metadata={**found.metadata, WHOLE_TOKENIZER: text})


def _refuse_others(folder: ModelFolder, raw: Mapping[str, Any]) -> None:
    model, decoder = raw.get("model") or {}, str(raw.get("decoder"))
    if model.get("type") != "BPE" or model.get("byte_fallback") or "ByteLevel" not in decoder:
        raise UnsupportedModelError(
            f"The tokenizer of {folder.path} is no byte-level BPE, the only kind that is written as GGUF. "
            "Stage the model as it is, or stage a GGUF file that its authors made."
        )


def _tokens(folder: ModelFolder, raw: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Ids without a token get an unused one: llama.cpp wants as many tokens as the table has rows."""
    tokens, kinds = [f"[PAD{index}]" for index in range(size)], [_UNUSED] * size
    try:
        for token, index in raw["model"]["vocab"].items():
            tokens[index], kinds[index] = token, _NORMAL
        for added in raw.get("added_tokens", ()):
            index = added["id"]
            tokens[index], kinds[index] = added["content"], _CONTROL if added["special"] else _USER_DEFINED
    except IndexError as error:
        raise CheckpointError(
            f"The tokenizer of {folder.path} has more tokens than its embedding table has rows ({size})."
        ) from error
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in raw["model"]["merges"]]
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
    }


def _special(folder: ModelFolder, raw: Mapping[str, Any], ends: tuple[int, ...]) -> dict[str, Any]:
    """The end of a turn comes from the settings of generation, which know more of it than the tokenizer."""
    tokenizer = load_tokenizer(folder)
    ids = {added["content"]: added["id"] for added in raw.get("added_tokens", ())}
    ids = {**raw["model"]["vocab"], **ids}
    named = tokenizer.special_tokens
    end = ids.get(named.get("eos_token", ""))
    ordered = [token for token in (end, *ends) if token is not None and (token in ends or not ends)]
    by_role = {theirs: ids.get(named.get(ours, "")) for ours, theirs in _ROLES.items()}
    by_role |= dict(zip(("eos", "eot"), dict.fromkeys(ordered), strict=False))
    first = tokenizer.encode_prompt("a")[:1]
    template = template_source(folder, tokenizer)
    return {
        **{f"tokenizer.ggml.{role}_token_id": id_ for role, id_ in by_role.items() if id_ is not None},
        "tokenizer.ggml.add_bos_token": tokenizer.bos_id is not None and first == [tokenizer.bos_id],
        **({} if template is None else {"tokenizer.chat_template": template}),
    }


def _with_pattern(folder: ModelFolder, metadata: dict[str, Any], texts: list[str]) -> Vocabulary:
    original = tokenizers.Tokenizer.from_file(str(folder.tokenizer))
    wanted = [original.encode(text, add_special_tokens=False).ids for text in texts]
    found = []
    for name in NAMES:
        named = {**metadata, "tokenizer.ggml.pre": name}
        split = build_tokenizer(GgufFile(Path("model.gguf"), named, {}))
        given = [split.encode(text, add_special_tokens=False).ids for text in texts]
        same = sum(ours == theirs for ours, theirs in zip(wanted, given, strict=True))
        found.append(Vocabulary(named, same / len(texts)))
    best = max(found, key=lambda vocabulary: vocabulary.agreement)
    if best.agreement < ENOUGH:
        raise UnsupportedModelError(
            f"The tokenizer of {folder.path} splits text in a way that has no name in GGUF: the nearest, "
            f"{best.pattern}, gives the same tokens for {best.agreement:.0%} of texts. Stage the model as "
            "it is."
        )
    return best
