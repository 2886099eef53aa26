"""The formats that runs can be converted to and from, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from sluice_bench.convert import aiperf, guidellm, vllm
from sluice_bench.convert.field_map import BadForeignFile, Exported
from sluice_bench.convert.imported_run import Imported
from sluice_bench.recording.run_record import RunRecord

FormatName = Literal["vllm", "guidellm", "aiperf"]

_EXPORTS: Mapping[FormatName, Callable[[RunRecord], Exported]] = {
    "vllm": vllm.export_run,
    "guidellm": guidellm.export_run,
    "aiperf": aiperf.export_run,
}

SUFFIXES: Mapping[FormatName, str] = {"vllm": ".json", "guidellm": ".json", "aiperf": ".jsonl"}


def export_as(name: FormatName, run: RunRecord) -> Exported:
    """A run in another tool's format. Raises `BadForeignFile` when it has no measured requests."""
    if not any(record.phase == "measured" for record in run.requests):
        raise BadForeignFile("the run has no measured requests")
    return _EXPORTS[name](run)


def import_from(name: FormatName, data: bytes, benchmark: int | None = None) -> Imported:
    """What another tool's file says of its requests. Raises `BadForeignFile`.

    `benchmark` chooses one of several in a report of GuideLLM.
    """
    if benchmark is not None and name != "guidellm":
        raise BadForeignFile("--benchmark is for reports of guidellm, which may have several")
    try:
        if name == "guidellm":
            return guidellm.import_run(data, benchmark)
        return vllm.import_run(data) if name == "vllm" else aiperf.import_run(data)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadForeignFile(f"this is not what {name} writes ({type(error).__name__}: {error})") from error
