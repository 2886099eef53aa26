"""`sluice-worker stage`: what the command does once its options are read. Imports torch only to convert."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec

from sluice_worker.errors import ConfigError, StagingError
from sluice_worker.loading.model_folder import BUNDLED_MODELS, bundled_path, is_path, open_folder
from sluice_worker.staging.hub import HubSource
from sluice_worker.staging.manifest import Request
from sluice_worker.staging.reporter import ConsoleReporter, Reporter
from sluice_worker.staging.source import FolderSource, Source
from sluice_worker.staging.stager import Stager, summary
from sluice_worker.staging.workplace import Workplace


def run_stage(request: Request, out: Path, *, rehash: bool, verify_only: bool) -> str:
    """Stage `request` into `out`; returns one line about it. Raises `WorkerError`."""
    reporter = ConsoleReporter(sys.stderr)
    stager, place = make_stager(request, out, reporter)
    outcome = stager.verify() if verify_only else stager.run(rehash=rehash)
    return summary(outcome, place.out)


def make_stager(request: Request, out: Path, reporter: Reporter) -> tuple[Stager, Workplace]:
    """Find out what kind of source the request names. Raises `ConfigError` for options that do not fit it."""
    source = _source(request)
    if isinstance(source, FolderSource):
        _refuse_ineffective(request)
        if request.source not in BUNDLED_MODELS:
            request = msgspec.structs.replace(request, source=source.path)
    place = Workplace(out)
    if isinstance(source, FolderSource) and place.out in (source.root, *source.root.parents):
        raise ConfigError(f"{place.out} holds the model itself. Choose another folder to stage into.")
    convert = partial(_convert, request.source, reporter)
    return Stager(
        request, source, place, convert, reporter, f"sluice-worker {version('sluice-worker')}"
    ), place


def _source(request: Request) -> Source:
    path = Path(os.path.abspath(Path(request.source).expanduser()))  # noqa: PTH100 - links stay as they are
    if path.is_file():
        return FolderSource(request, path.parent, only=path.name)
    if path.is_dir() or is_path(request.source):
        return FolderSource(request, path)
    if request.source in BUNDLED_MODELS:
        return FolderSource(request, bundled_path(request.source))
    return HubSource(request)


def _refuse_ineffective(request: Request) -> None:
    if request.revision is not None:
        raise ConfigError(f"--revision is for models on the Hub, and {request.source} is here. Leave it out.")
    if request.to is not None and (request.include or request.exclude):
        raise ConfigError("A folder that is converted is read as a whole: leave --include and --exclude out.")


def _convert(name: str, reporter: Reporter, model: Path, out: Path, to: str) -> None:
    from safetensors import SafetensorError

    from sluice_worker.quantize_command import convert

    try:
        convert(open_folder(model, name), out, cast(Any, to), replace=True, say=reporter.say)
    except SafetensorError as error:
        raise StagingError(
            f"{out} could not be written: {error}. If there is no room, make some, and run again."
        ) from error
