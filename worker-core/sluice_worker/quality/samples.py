"""Documents as token sequences: what the model reads, which of its predictions count, where it may go on.

Of a conversation counts what the assistant says last, with the token that ends it: models are trained to
write answers, not questions. Of a text counts everything but the first token of each window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from sluice_worker.errors import ConfigError
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.quality.corpus import Document
from sluice_worker.server.chat_template import ChatTemplate, load_chat_template
from sluice_worker.server.errors import ApiError
from sluice_worker.server.tokenizer import Tokenizer, load_tokenizer

_DATE = datetime(2026, 1, 1)
"""For templates that print one: the same text on every day."""


class Sample(NamedTuple):
    """One sequence to compute."""

    token_ids: list[int]
    first_scored: int
    """The first token whose prediction counts; at least 1."""
    prompt_length: int
    """Leading tokens from which the model may go on by itself."""


class SampleMaker:
    """Turns documents into samples with one model's tokenizer and chat template."""

    def __init__(self, folder: ModelFolder, window: int) -> None:
        """`window`: the most tokens of a sample. Raises `ModelLoadError`."""
        self._tokenizer: Tokenizer = load_tokenizer(folder)
        self._template: ChatTemplate | None = load_chat_template(folder, self._tokenizer, lambda: _DATE)
        self._window = window

    def samples(self, documents: Sequence[Document]) -> list[Sample]:
        """All samples in order. A conversation longer than the window is left out.

        Raises `ConfigError` when nothing is left.
        """
        found = [sample for document in documents for sample in self._of(document)]
        if not found:
            raise ConfigError(
                f"No conversation of the corpus fits into {self._window} tokens. Choose a larger --window or "
                "another --corpus."
            )
        return found

    def _of(self, document: Document) -> Iterator[Sample]:
        if document.messages:
            sample = self._conversation(document)
            if len(sample.token_ids) <= self._window:
                yield sample
        else:
            yield from self._windows(self._tokenizer.encode_prompt(document.text))

    def _windows(self, token_ids: list[int]) -> Iterator[Sample]:
        for start in range(0, len(token_ids), self._window):
            part = token_ids[start : start + self._window]
            if len(part) > 1:
                yield Sample(part, 1, -(-len(part) // 2))

    def _conversation(self, document: Document) -> Sample:
        prompt, answer = self._rendered(document)
        prompt_ids = self._tokenizer.encode_rendered(prompt)
        token_ids = prompt_ids + self._tokenizer.encode_rendered(answer)
        return Sample(token_ids, max(1, len(prompt_ids)), max(1, len(prompt_ids)))

    def _rendered(self, document: Document) -> tuple[str, str]:
        """The text before the last answer, and that answer with its end. Without a template, plain text."""
        *before, last = document.messages
        if self._template is not None:
            try:
                prompt = self._template.render(before, document.tools)
                whole = self._template.render(
                    document.messages, document.tools, add_generation_prompt=False
                ).rstrip()
            except ApiError:
                whole = prompt = ""  # a template without tools or system turns, for instance
            if prompt and whole.startswith(prompt):
                return prompt, whole[len(prompt) :]
        texts = [str(message.content or "") for message in before]
        return "".join(f"{text}\n" for text in texts), str(last.content or "")
