"""Where run files of experiments and modes lie: `results/<variant>/<timestamp>.parquet`."""

from __future__ import annotations

import datetime
from itertools import count
from pathlib import Path

from sluice_bench.recording.run_record import RunRecord

RESULTS = Path("results")
"""Seen from where the command is run."""


def new_run_file(results: Path, variant: str, started_utc: str) -> Path:
    """A name that is free, from a run's start (ISO 8601, UTC): a second one of that second gets a number."""
    started = datetime.datetime.fromisoformat(started_utc).astimezone(datetime.UTC)
    stamp = f"{started:%Y%m%dT%H%M%SZ}"
    names = (f"{stamp}.parquet" if number == 1 else f"{stamp}-{number}.parquet" for number in count(1))
    return next(path for name in names if not (path := results / variant / name).exists())


def keep(run: RunRecord, results: Path) -> Path:
    """Write a run below its variant's folder; returns where. Raises `OSError`."""
    from sluice_bench.recording.run_file import write_run

    path = new_run_file(results, run.meta.variant, run.meta.started_utc)
    write_run(run, path)
    return path


def run_files(results: Path, variant: str) -> list[Path]:
    """All run files of a variant, the oldest first; empty when there is none."""
    return sorted(results.glob(f"{variant}/*.parquet"), key=_age)


def _age(path: Path) -> tuple[str, int]:
    stamp, _, number = path.stem.partition("-")
    return stamp, int(number or 1)
