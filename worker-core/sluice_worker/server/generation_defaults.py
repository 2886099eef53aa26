"""Sampling defaults that a model ships in `generation_config.json`.

What a request says wins; then what the model's authors recommend here; then OpenAI's defaults. A file that
says `do_sample: false` recommends greedy decoding.
"""

from __future__ import annotations

import msgspec

from sluice_worker.errors import CheckpointError
from sluice_worker.loading.model_folder import ModelFolder


class GenerationDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """Values for what a request leaves out."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


class _GenerationConfig(msgspec.Struct, frozen=True):
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


def load_generation_defaults(folder: ModelFolder) -> GenerationDefaults:
    """Read the file, if there is one. Raises `CheckpointError` when it cannot be read."""
    if folder.generation_config is None:
        return GenerationDefaults()
    try:
        found = msgspec.json.decode(folder.generation_config.read_bytes(), type=_GenerationConfig)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{folder.generation_config} cannot be read: {error}.") from error
    greedy = {"temperature": 0.0} if found.do_sample is False else {}
    recommended = {
        name: value
        for name in GenerationDefaults.__struct_fields__
        if (value := getattr(found, name)) is not None
    }
    return msgspec.structs.replace(GenerationDefaults(), **recommended, **greedy)
