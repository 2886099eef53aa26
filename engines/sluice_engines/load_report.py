"""Load that comes with an answer: an ORCA report in the header `endpoint-load-metrics`.

An engine that knows it adds the header when the request's `endpoint-load-metrics-format` asks for it, as text
or as JSON:

    TEXT cpu_utilization=0.3, named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=2.0
    JSON {"cpu_utilization": 0.3, "named_metrics": {"kv_cache_usage_perc": 0.4}}

Text is asked for: it says a name again for each data-parallel rank, of which a JSON object keeps the last.
How the ranks of one name come together, and which field each is, are `Signal`s as for a Prometheus page; a
report has no labels.

Sources: `OrcaLoadReport` in cncf/xds, xds/data/orca/v3/orca_load_report.proto; the formats as in
vllm/entrypoints/serve/utils/orca_metrics.py of 0.32. The binary format is not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import msgspec

from sluice_engines.adapter import EngineAdapter
from sluice_engines.load_signals import Reading, Signal, load_from
from sluice_router.types import EngineLoad

ASKED = ((b"endpoint-load-metrics-format", b"TEXT"),)
"""What a request says to get a report."""
HEADER = b"endpoint-load-metrics"
"""Where an answer has it."""
MAX_BYTES = 4096
"""A longer one is none: it would be read for every answer."""

Named = tuple[str, float]


class LoadReport:
    """What one engine says in its reports."""

    __slots__ = ("_signals",)

    def __init__(self, signals: Iterable[Signal]) -> None:
        """Of each signal `field`, `names` and `combine` count."""
        self._signals = tuple(signals)

    def read(self, value: bytes) -> EngineLoad:
        """The fields that the report has; the others are unknown. Raises `ValueError` for what is none."""
        told: dict[str, list[float]] = {}
        for name, number in named_values(value):
            told.setdefault(name, []).append(number)
        found: dict[str, Reading] = {}
        for signal in self._signals:
            values = next((told[name] for name in signal.names if name in told), None)
            if values is not None:
                found.setdefault(signal.field, _joined(signal, values))
        return load_from(found)


def _joined(signal: Signal, values: list[float]) -> float:
    return math.fsum(values) / (len(values) if signal.combine == "mean" else 1)


def load_report(adapter: EngineAdapter) -> LoadReport | None:
    """What the adapter knows of its engine's reports: its attribute `load_report`, if it has one."""
    found = getattr(adapter, "load_report", None)
    return found if isinstance(found, LoadReport) else None


def named_values(value: bytes) -> list[Named]:
    """A report's numbers under their names, `named_metrics.x` for one of a map, in order and with repeats.

    Raises `ValueError` for what is no report, or holds a value that is no finite number.
    """
    if len(value) > MAX_BYTES:
        raise ValueError(f"the report has more than {MAX_BYTES} bytes")
    kind, _, rest = value.strip().partition(b" ")
    if kind.upper() == b"TEXT":
        found = list(_of_text(rest))
    elif kind.upper() == b"JSON":
        found = list(_of_json(rest))
    else:
        raise ValueError("the report is neither TEXT nor JSON")
    if not all(math.isfinite(number) for _, number in found):
        raise ValueError("the report has a value that is not a finite number")
    return found


def _of_text(pairs: bytes) -> Iterator[Named]:
    """`name=value` between commas; `float` raises `ValueError` for what is no number."""
    for pair in pairs.decode("ascii").split(","):
        name, equals, number = pair.partition("=")
        if name.strip() and equals:
            yield name.strip(), float(number)
        elif pair.strip():
            raise ValueError(f"{pair.strip()!r} is not name=value")


def _of_json(text: bytes) -> Iterator[Named]:
    """Numbers, and maps of them, as the report's own JSON has them; what else stands there says no load."""
    try:
        report = msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the report is not JSON: {error}") from error
    for name, value in report.items():
        for full, one in _flat(name, value):
            if isinstance(one, int | float) and not isinstance(one, bool):
                yield full, _as_float(one)


def _flat(name: str, value: object) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        return iter([(name, value)])
    return ((f"{name}.{key}", one) for key, one in value.items())


def _as_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf
