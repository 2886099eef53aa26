"""What engines say of their load on `/metrics`, whatever they call it: a sample of one page. Pure.

A gauge that is missing is unknown, never 0. Engines with several ranks or models give a series each: counts
are summed, shares averaged. Names are those of the engines' own documentation and sources.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

_LINE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{.*\})?[ \t]+(\S+)", re.MULTILINE)


class LoadSample(msgspec.Struct, frozen=True, array_like=True):
    """The load that a server reported at one moment; `None` is unknown."""

    at_ns: int
    """When its page had come, on the clock of all stamps."""
    running: float | None
    """Requests that are being computed."""
    waiting: float | None
    """Requests that wait to be."""
    kv_used_ratio: float | None
    """Of the KV cache, 0 to 1."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's names; empty where it has none."""

    engine: str
    running: str
    waiting: str
    kv_used_ratio: tuple[str, ...] = ()
    """Names of the share itself, newest first."""
    kv_used_of_total: tuple[str, str] | None = None
    """Blocks used and blocks in all, where there is no share."""
    running_includes_waiting: bool = False


DIALECTS = (
    Dialect(
        engine="sluice worker",
        running="sluice_worker_requests_running",
        waiting="sluice_worker_requests_waiting",
        kv_used_of_total=("sluice_worker_kv_blocks_used", "sluice_worker_kv_blocks_total"),
    ),
    Dialect(
        engine="sluice gateway",
        running="sluice_gateway_requests_in_flight",
        waiting="sluice_gateway_queue_depth",
        running_includes_waiting=True,
    ),
    Dialect(
        engine="vllm",
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        kv_used_ratio=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    ),
    Dialect(
        engine="sglang",
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        kv_used_ratio=("sglang:token_usage",),
    ),
    Dialect(
        engine="llama.cpp",
        running="llamacpp:requests_processing",
        waiting="llamacpp:requests_deferred",
        kv_used_ratio=("llamacpp:kv_cache_usage_ratio",),
    ),
    Dialect(engine="tgi", running="tgi_batch_current_size", waiting="tgi_queue_size"),
)


def load_sample(page: str, at_ns: int) -> LoadSample | None:
    """From a page of Prometheus text; `None` when no engine that is known wrote it."""
    series = _series(page)
    for dialect in DIALECTS:
        if dialect.running in series:
            return _sample(dialect, series, at_ns)
    return None


def _series(page: str) -> dict[str, list[float]]:
    """Values by name, whatever their labels."""
    found: dict[str, list[float]] = {}
    for name, text in _LINE.findall(page):
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value):
            found.setdefault(name, []).append(value)
    return found


def _sample(dialect: Dialect, series: Mapping[str, list[float]], at_ns: int) -> LoadSample:
    running, waiting = _total(series, dialect.running), _total(series, dialect.waiting)
    if dialect.running_includes_waiting:
        running = None if running is None or waiting is None else max(0.0, running - waiting)
    return LoadSample(at_ns, running, waiting, _kv_used(dialect, series))


def _kv_used(dialect: Dialect, series: Mapping[str, list[float]]) -> float | None:
    for name in dialect.kv_used_ratio:
        if values := series.get(name):
            return math.fsum(values) / len(values)
    if dialect.kv_used_of_total is None:
        return None
    used, size = (_total(series, name) for name in dialect.kv_used_of_total)
    return used / size if used is not None and size else None


def _total(series: Mapping[str, list[float]], name: str) -> float | None:
    values = series.get(name)
    return math.fsum(values) if values else None
