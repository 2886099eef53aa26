"""Measures the quality of one backend, or of one beside a reference, through the public API.

Both read the same windows, which the reference's tokenizer cut, and answer the same prompts. Nothing here is
timed.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import msgspec

from sluice_bench.api_calls import Server, token_ids
from sluice_bench.quality.bleu import bleu_interval
from sluice_bench.quality.divergence import diverge
from sluice_bench.quality.greedy import Agreement, agree, greedy_answers
from sluice_bench.quality.passages import Text, Window, spread, windows_of_text, windows_of_tokens
from sluice_bench.quality.perplexity import Windows, perplexity
from sluice_bench.quality.prompt_logprobs import predictions
from sluice_bench.quality.quality_record import BackendQuality, QualityRecord
from sluice_bench.stats.estimate import Estimate

Progress = Callable[[str], None]


class Task(msgspec.Struct, frozen=True):
    """Something to answer, and what a good answer is."""

    prompt: str
    reference: str


class Backend(msgspec.Struct, frozen=True):
    """One to measure."""

    variant: str
    server: Server


class QualitySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured."""

    backend: Backend
    reference: Backend | None = None
    text: Text
    window: int = 512
    most_windows: int = 64
    alternatives: int = 20
    prompts: Sequence[str] = ()
    """That two backends answer greedily."""
    max_tokens: int = 48
    tasks: Sequence[Task] = ()
    """For BLEU."""
    seed: int = 1
    command: str = ""


def number_of_steps(settings: QualitySettings) -> int:
    """How many times `measure_quality` tells its progress."""
    backends = 1 if settings.reference is None else 2
    return 1 + backends * (1 + bool(settings.tasks)) + (2 if settings.reference is not None else 0)


def measure_quality(settings: QualitySettings, on_step: Progress) -> QualityRecord:
    """Carry it out. Raises `ApiFailed` when a server cannot do it, `NotComparable` when the two do not read
    the same tokens, `ValueError` when the text is too short."""
    started = datetime.datetime.now(datetime.UTC)
    source = Random(settings.seed)
    on_step("cutting the text")
    windows, by_tokens = _cut(settings)
    read = _read(settings.backend, windows, settings, on_step)
    measured = _quality(settings.backend, read, settings, source, on_step)
    record = QualityRecord(
        command=settings.command,
        started_utc=started.isoformat(timespec="seconds"),
        text=settings.text.name,
        text_sha256=settings.text.sha256,
        window=settings.window,
        cut_by="tokens" if by_tokens else "characters",
        windows=len(windows),
        scored_tokens=sum(map(len, read)),
        backend=measured,
    )
    if settings.reference is None:
        return record
    expected = _read(settings.reference, windows, settings, on_step)
    divergence = diverge(expected, read, settings.alternatives, source)
    return msgspec.structs.replace(
        record,
        reference=_quality(settings.reference, expected, settings, source, on_step),
        divergence=divergence,
        agreement=_agreement(settings, settings.reference, source, on_step),
    )


def _cut(settings: QualitySettings) -> tuple[list[Window], bool]:
    """The windows, and whether a tokenizer cut them. Raises `ValueError` when the text is too short."""
    server, documents = (settings.reference or settings.backend).server, settings.text.documents
    tokens = token_ids(server, documents, special=True)
    windows: list[Window] = []
    if tokens is None:
        windows += [window for text in documents for window in windows_of_text(text, settings.window)]
    else:
        windows += [window for ids in tokens for window in windows_of_tokens(ids, settings.window)]
    if not windows:
        raise ValueError(f"{settings.text.name} is too short: a window needs two tokens")
    return spread(windows, settings.most_windows), tokens is not None


def _read(
    backend: Backend, windows: Sequence[Window], settings: QualitySettings, on_step: Progress
) -> Windows:
    on_step(f"{backend.variant}: reading {len(windows)} windows")
    return predictions(backend.server, windows, settings.alternatives)


def _quality(
    backend: Backend, read: Windows, settings: QualitySettings, source: Random, on_step: Progress
) -> BackendQuality:
    return BackendQuality(
        variant=backend.variant,
        url=backend.server.target.url,
        model=backend.server.model,
        perplexity=perplexity(read, source),
        bleu=_bleu(backend, settings, source, on_step) if settings.tasks else None,
    )


def _bleu(backend: Backend, settings: QualitySettings, source: Random, on_step: Progress) -> Estimate:
    on_step(f"{backend.variant}: answering {len(settings.tasks)} tasks")
    prompts = [task.prompt for task in settings.tasks]
    found = greedy_answers(backend.server, prompts, settings.max_tokens)
    pairs = [(answer.text, task.reference) for answer, task in zip(found, settings.tasks, strict=True)]
    return bleu_interval(pairs, source)


def _agreement(settings: QualitySettings, reference: Backend, source: Random, on_step: Progress) -> Agreement:
    answers = []
    for backend in (reference, settings.backend):
        on_step(f"{backend.variant}: answering {len(settings.prompts)} prompts")
        answers.append(greedy_answers(backend.server, settings.prompts, settings.max_tokens))
    return agree(answers[0], answers[1], settings.max_tokens, source)


def tasks_of_file(path: Path) -> tuple[Task, ...]:
    """From JSON lines with `prompt` and `reference`. Raises `OSError`, and `ValueError` for a bad line."""
    tasks = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            tasks.append(msgspec.json.decode(line, type=Task))
        except msgspec.DecodeError as error:
            raise ValueError(
                f'line {number} of {path} is not {{"prompt": "…", "reference": "…"}}: {error}'
            ) from error
    if not tasks:
        raise ValueError(f"{path} has no tasks")
    return tuple(tasks)
