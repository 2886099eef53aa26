"""Saying what a URL is, by looking only: which engine, version, models and limits.

All pages that any fingerprint knows are asked for at once, and each engine's clues are weighed. The heaviest
wins; a server that lists models and gives nothing else away is OpenAI-compatible, and what does not even do
that is not known. The fingerprints are data, in `fingerprints.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from sluice_engines.fingerprints import FINGERPRINTS, MODELS_PATH, OPENAI_COMPATIBLE, Clue, Fingerprint
from sluice_engines.page import Page
from sluice_engines.probe import Fetch, ProbeFailed, fetcher
from sluice_engines.transport import Transport

_NOTHING = object()


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL turned out to be."""

    engine: str | None = None
    """Name of the fingerprint; `None` when nothing is known of it."""
    title: str = ""
    adapter: str | None = None
    """What a backend for it needs."""
    version: str | None = None
    models: tuple[str, ...] | None = None
    """Served model ids; `None` when it does not list any."""
    limits: dict[str, int] = {}
    seen: tuple[str, ...] = ()
    """The pages that gave it away."""
    problem: str | None = None
    """Why it is not known, or what of it could not be read."""


async def identify(
    transport: Transport, base_url: str, api_key: str | None = None, *, timeout_s: float = 2.0
) -> Identity:
    """Look at a URL. Never raises for what the server does; `timeout_s` holds for all pages together, since
    they are asked for at once."""
    paths = _paths((*FINGERPRINTS, OPENAI_COMPATIBLE))
    fetch = fetcher(transport, base_url, api_key, timeout_s)
    answers = await asyncio.gather(*(_answer(fetch, path) for path in paths))
    pages = {path: answer for path, answer in zip(paths, answers, strict=True) if isinstance(answer, Page)}
    if not pages:
        failure = answers[paths.index(MODELS_PATH)]
        return Identity(problem=f"Nothing answers there: {failure}.")
    return judge(pages)


def judge(pages: Mapping[str, Page]) -> Identity:
    """What the answers amount to."""
    documents = {path: _document(page) for path, page in pages.items() if page.is_success}
    weighed = [(_weight(documents, fingerprint), fingerprint) for fingerprint in FINGERPRINTS]
    weight, found = max(weighed, key=lambda pair: pair[0])
    if not weight:
        weight, found = _weight(documents, OPENAI_COMPATIBLE), OPENAI_COMPATIBLE
    models = _models(documents.get(MODELS_PATH))
    if not weight:
        return Identity(problem=_unknown(pages))
    return Identity(
        engine=found.name,
        title=found.title,
        adapter=found.adapter,
        version=_version(documents, found),
        models=models,
        limits=_limits(documents, found),
        seen=tuple(dict.fromkeys(clue.path for clue in found.clues if _holds(documents, clue))),
        problem=None if models is not None else _no_models(pages),
    )


def place(document: object, where: str) -> object:
    """What stands at `a/0/b` of a JSON document; `None` when there is nothing."""
    for step in where.split("/"):
        document = _step(document, step)
    return document


def _step(document: object, step: str) -> object:
    if isinstance(document, dict):
        return document.get(step)
    if isinstance(document, list) and step.isdigit() and int(step) < len(document):
        return document[int(step)]
    return None


def _paths(fingerprints: Sequence[Fingerprint]) -> list[str]:
    """Every page that is of use, once."""
    paths = [MODELS_PATH]
    for fingerprint in fingerprints:
        paths += [clue.path for clue in fingerprint.clues]
        paths += [path for path, _ in fingerprint.version]
        paths += [limit.path for limit in fingerprint.limits]
    return list(dict.fromkeys(paths))


async def _answer(fetch: Fetch, path: str) -> Page | ProbeFailed:
    try:
        return await fetch(path)
    except ProbeFailed as failure:
        return failure


def _document(page: Page) -> object:
    """The page as JSON, or else as text."""
    try:
        return msgspec.json.decode(page.body)
    except (msgspec.DecodeError, RecursionError):
        return page.body.decode(errors="replace")


def _weight(documents: Mapping[str, object], fingerprint: Fingerprint) -> int:
    return sum(clue.weight for clue in fingerprint.clues if _holds(documents, clue))


def _holds(documents: Mapping[str, object], clue: Clue) -> bool:
    document = documents.get(clue.path, _NOTHING)
    if document is _NOTHING:
        return False
    if clue.begins and not (isinstance(document, str) and document.startswith(clue.begins)):
        return False
    if any(place(document, where) is None for where in clue.has):
        return False
    return all(place(document, where) == text for where, text in clue.says)


def _version(documents: Mapping[str, object], fingerprint: Fingerprint) -> str | None:
    for path, where in fingerprint.version:
        said = place(documents.get(path), where)
        if isinstance(said, str):
            return said
    return None


def _limits(documents: Mapping[str, object], fingerprint: Fingerprint) -> dict[str, int]:
    found: dict[str, int] = {}
    for limit in fingerprint.limits:
        said = place(documents.get(limit.path), limit.place)
        if isinstance(said, int) and not isinstance(said, bool):
            found.setdefault(limit.name, said)
    return found


def _models(document: object) -> tuple[str, ...] | None:
    listed = place(document, "data")
    if not isinstance(listed, list):
        return None
    names = (place(model, "id") for model in listed)
    return tuple(name for name in names if isinstance(name, str))


def _no_models(pages: Mapping[str, Page]) -> str:
    page = pages.get(MODELS_PATH)
    said = "did not answer" if page is None else f"answered {page.status}"
    return f"{MODELS_PATH} {said}"


def _unknown(pages: Mapping[str, Page]) -> str:
    page = pages.get(MODELS_PATH)
    if page is not None and page.status in (401, 403):
        return f"{MODELS_PATH} answered {page.status}: it wants an API key."
    return f"It is no engine that is known here: {_no_models(pages)}."
