"""All that the server process knows of the model: its names, its tokenizer, its template. No weights."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.server.chat_template import ChatTemplate, load_chat_template
from sluice_worker.server.errors import model_not_found
from sluice_worker.server.generation_defaults import GenerationDefaults, load_generation_defaults
from sluice_worker.server.tokenizer import Tokenizer, load_tokenizer


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model and the names it answers to."""

    names: tuple[str, ...]
    """The first is the one it calls itself."""
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    defaults: GenerationDefaults
    created: int
    """Unix time at which the server began to serve it."""

    def check_name(self, name: str) -> None:
        """Raises `ApiError` 404 for a model that is not this one."""
        if name not in self.names:
            raise model_not_found(name, self.names)


def load_served_model(
    folder: ModelFolder, names: tuple[str, ...], created: int, now: Callable[[], datetime]
) -> ServedModel:
    """Read everything but the weights. Without `names`, the model is called what the folder says.

    Raises `ModelLoadError`.
    """
    tokenizer = load_tokenizer(folder)
    return ServedModel(
        names=names or (folder.name,),
        tokenizer=tokenizer,
        chat_template=load_chat_template(folder, tokenizer, now),
        defaults=load_generation_defaults(folder),
        created=created,
    )
