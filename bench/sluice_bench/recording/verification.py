"""Does a recorded run still say what it said? What is derived is derived again and compared bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sluice_bench.recording.digest import figures_json, records_sha256, sha256
from sluice_bench.recording.run_record import RunRecord

Figures = dict[str, object]


def complaints(run: RunRecord) -> list[str]:
    """One sentence for each thing that does not add up; none when all does."""
    return list(_complaints(run))


def number_of_figures(run: RunRecord) -> int:
    """How many figures the file states."""
    return len(_flat(_decoded(run.figures)))


def _complaints(run: RunRecord) -> Iterator[str]:
    found = records_sha256(run.requests)
    if found != run.meta.records_sha256:
        yield f"the requests have the digest {found}, and the file says {run.meta.records_sha256}"
    found = sha256(run.figures)
    if found != run.meta.figures_sha256:
        yield f"the figures have the digest {found}, and the file says {run.meta.figures_sha256}"
    if not run.requests:
        yield "there are no requests"
        return
    stated, derived = _flat(_decoded(run.figures)), _flat(_decoded(figures_json(run.summary)))
    for name, value in stated.items():
        if name not in derived:
            yield f"{name} is {value!r} in the file, and its requests do not give it"
        elif repr(derived[name]) != repr(value):
            yield f"{name} is {value!r} in the file, and {derived[name]!r} from its requests"


def _decoded(figures: bytes) -> Figures:
    try:
        return msgspec.json.decode(figures, type=Figures)
    except msgspec.DecodeError:
        return {}


def _flat(figures: Figures, prefix: str = "") -> Figures:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: Figures = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
