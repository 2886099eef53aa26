"""From an engine's own metric names to one `EngineLoad`: a table of signals, and the rules for reading it.

What an engine calls its gauges is data of its adapter. The rules are the same for all of them:

- A name that is not on the page is unknown, never zero; so is a value that is no finite number.
- Engines rename metrics between versions. Of several signals for one field, and of several names of one
  signal, the first that is on the page counts: newest first.
- Data-parallel ranks give one series each: counts are added up, ratios averaged. Series that say the same
  thing again (tensor-parallel ranks of one data-parallel rank) count once.
- A counter's `_total` is on the wire even where an engine's source leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from sluice_engines.metrics_page import PageReader, Sample, labels
from sluice_router.types import QUANTS, EngineLoad

Combine = Literal["sum", "mean", "newest"]
Reading = float | str

_REMEMBERED = 256
"""Sets of labels of one signal whose meaning is kept."""


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """Where one field of `EngineLoad` is to be found."""

    field: str
    """Of `EngineLoad`, or one of the steps on the way to one: `kv_blocks`, `kv_blocks_used`,
    `kv_tokens_used`, `awake`."""
    names: tuple[str, ...]
    """Metric names, newest first."""
    counter: bool = False
    """Each of the names may have a further `_total`."""
    combine: Combine = "sum"
    """What several series amount to; `newest` takes the one with the largest value, which is a time."""
    where: tuple[tuple[str, str], ...] = ()
    """Labels that a series must have with these values; one that is not there counts as empty."""
    per: str | None = None
    """Series that agree on this label say the same; the largest of them counts."""
    label: str | None = None
    """The reading is this label's value instead of the sample's."""

    @property
    def wire_names(self) -> tuple[str, ...]:
        """All names that it may have on a page, in the order of preference."""
        if not self.counter:
            return self.names
        return tuple(name for base in self.names for name in (f"{base}_total", base))


def gauge(field: str, *names: str, **more: Any) -> Signal:
    """A count that several ranks have between them."""
    return Signal(field=field, names=names, **more)


def ratio(field: str, *names: str, **more: Any) -> Signal:
    """A share, 0 to 1."""
    return Signal(field=field, names=names, combine="mean", **more)


def counter(field: str, *names: str, **more: Any) -> Signal:
    """Something that only grows."""
    return Signal(field=field, names=names, counter=True, **more)


def histogram(field: str, name: str, **more: Any) -> tuple[Signal, Signal]:
    """Sum and count of a histogram, as `<field>_sum_s` and `<field>_count`."""
    return (
        Signal(field=f"{field}_sum_s", names=(f"{name}_sum",), **more),
        Signal(field=f"{field}_count", names=(f"{name}_count",), **more),
    )


class SignalTable:
    """The signals of one engine, ready to read its pages."""

    def __init__(self, signals: Iterable[Signal]) -> None:
        """Raises `ValueError` for a signal whose field there is not."""
        self._lookups = [_Lookup(signal) for signal in signals]
        unknown = {lookup.field for lookup in self._lookups} - _FIELDS
        if unknown:
            raise ValueError(f"EngineLoad has no field '{min(unknown)}'.")
        self._reader = PageReader(name.decode() for lookup in self._lookups for name in lookup.names)

    def read(self, page: bytes) -> EngineLoad:
        """The load on a page. Raises `ValueError` when it is not in Prometheus' text format."""
        return load_from(self.readings(page))

    def readings(self, page: bytes) -> dict[str, Reading]:
        """What the page says, by field; for adapters that know more from elsewhere."""
        return {field: value for field, (_, value) in self._found(page).items()}

    def sources(self, page: bytes) -> dict[str, str]:
        """The metric that each field's reading comes from: which dialect the engine speaks."""
        return {field: name.decode() for field, (name, _) in self._found(page).items()}

    def _found(self, page: bytes) -> dict[str, tuple[bytes, Reading]]:
        samples = self._reader.read(page)
        found: dict[str, tuple[bytes, Reading]] = {}
        for lookup in self._lookups:
            if lookup.field in found:
                continue
            for name in lookup.names:
                if name in samples:
                    value = lookup.value(samples[name])
                    if value is not None and (isinstance(value, str) or math.isfinite(value)):
                        found[lookup.field] = (name, value)
                        break
        return found


class _Series(NamedTuple):
    """What a series' labels mean to a signal."""

    counts: bool
    """It has the labels that it must have."""
    group: str | None
    """Series of one group say the same; `None`: it is by itself."""
    labelled: Reading | None
    """The reading that stands in its labels, for signals that ask for it."""


class _Lookup:
    """Makes one reading of the series that a signal names. Labels hardly ever change, so that what they mean
    is worked out once."""

    __slots__ = ("_combine", "_plain", "_signal", "_understood", "field", "names")

    def __init__(self, signal: Signal) -> None:
        self.field = signal.field
        self.names = tuple(name.encode() for name in signal.wire_names)
        self._signal = signal
        self._combine = signal.combine
        self._plain = not signal.where and signal.label is None
        self._understood: dict[bytes, _Series] = {}

    def value(self, samples: list[Sample]) -> Reading | None:
        """The reading; `None` when no series counts, or what counts is unknown."""
        if self._plain:
            if len(samples) == 1:
                return samples[0][1]
            if self._signal.per is None:
                return self._joined([value for _, value in samples])
        chosen = self._chosen(samples)
        if not chosen:
            return None
        if self._signal.label is None:
            return self._joined([value for _, value in chosen])
        if self._combine == "newest":
            return max(chosen, key=lambda pair: pair[1])[0].labelled
        said = [series.labelled for series, _ in chosen]
        numbers = [value for value in said if isinstance(value, float)]
        return self._joined(numbers) if len(numbers) == len(said) else said[0]

    def _joined(self, values: list[float]) -> float:
        return math.fsum(values) / (len(values) if self._combine == "mean" else 1)

    def _chosen(self, samples: list[Sample]) -> list[tuple[_Series, float]]:
        """The series that count, the largest of each group."""
        chosen: dict[object, tuple[_Series, float]] = {}
        for index, (raw_labels, value) in enumerate(samples):
            series = self._understood.get(raw_labels) or self._understand(raw_labels)
            if not series.counts:
                continue
            key = index if series.group is None else series.group
            if key not in chosen or chosen[key][1] < value:
                chosen[key] = (series, value)
        return list(chosen.values())

    def _understand(self, raw_labels: bytes) -> _Series:
        signal, decoded = self._signal, labels(raw_labels)
        series = _Series(
            counts=all(decoded.get(name, "") == value for name, value in signal.where),
            group=None if signal.per is None else decoded.get(signal.per, ""),
            labelled=None if signal.label is None else _labelled(signal, decoded.get(signal.label)),
        )
        if len(self._understood) >= _REMEMBERED:
            self._understood.clear()
        self._understood[raw_labels] = series
        return series


def load_from(readings: dict[str, Reading]) -> EngineLoad:
    """Readings by field, put into an `EngineLoad`; steps on the way are turned into what they lead to."""
    known: dict[str, Any] = {}
    for field, value in readings.items():
        if field in _WHOLE:
            known[field] = round(float(value))
        elif field in _SHARES:
            known[field] = min(1.0, max(0.0, float(value)))
        elif field in _PLAIN:
            known[field] = value
    _derive(readings, known)
    return EngineLoad(**known)


_WHOLE = frozenset(field.name for field in msgspec.structs.fields(EngineLoad) if field.type == (int | None))
_SHARES = frozenset({"kv_used_ratio", "prefix_hit_ratio"})
_PLAIN = frozenset({"ttft_sum_s", "queue_time_sum_s"})
_STEPS = frozenset({"kv_blocks", "kv_blocks_used", "kv_tokens_used", "awake", "quant", "loras"})
_FIELDS = _WHOLE | _SHARES | _PLAIN | _STEPS


def _derive(readings: dict[str, Reading], known: dict[str, Any]) -> None:
    blocks, block_tokens = readings.get("kv_blocks"), readings.get("kv_block_tokens")
    if "kv_capacity_tokens" not in known and blocks is not None and block_tokens is not None:
        known["kv_capacity_tokens"] = round(float(blocks) * float(block_tokens))
    if "kv_used_ratio" not in known:
        for used, whole in (
            (readings.get("kv_blocks_used"), blocks),
            (readings.get("kv_tokens_used"), readings.get("kv_capacity_tokens")),
        ):
            if used is not None and whole:
                known["kv_used_ratio"] = min(1.0, max(0.0, float(used) / float(whole)))
    if "awake" in readings:
        known["asleep"] = readings["awake"] == 0
    if readings.get("quant") in QUANTS:
        known["quant"] = readings["quant"]
    if "loras" in readings:
        known["loras"] = tuple(name for name in str(readings["loras"]).split(",") if name)


def _labelled(signal: Signal, text: str | None) -> Reading | None:
    """A label's value: a number where the field is one; `None` when it is not there, or no number."""
    if text is None or signal.field in ("quant", "loras"):
        return text
    try:
        return float(text)
    except ValueError:
        return None
