"""How busy Text Generation Inference says it is: its metrics, and the bounds at `/info`.

There is no gauge of its KV cache. What the batch at hand may need (`tgi_batch_current_max_tokens`) over the
tokens that all batches may have (`max_batch_total_tokens`) is the estimate. Up to 1.x `/info` told that
bound; later versions do not, so that it has to be configured, or stays unknown. Names and fields are those of
`docs/source/reference/metrics.md` and `router/src/lib.rs` at v3.3.7, v2.4.1 and v1.4.5.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sluice_engines.adapter import LoadPage
from sluice_engines.load_signals import Reading, Signal, SignalTable, gauge, histogram, load_from
from sluice_router.types import EngineLoad

METRICS_PATH, INFO_PATH = "/metrics", "/info"
_INFO_EVERY_S = 30.0

TGI_LOAD_PAGES = (LoadPage(path=METRICS_PATH), LoadPage(path=INFO_PATH, every_s=_INFO_EVERY_S))
TGI_SIGNALS: tuple[Signal, ...] = (
    gauge("running", "tgi_batch_current_size"),
    gauge("waiting", "tgi_queue_size"),
    gauge("kv_tokens_used", "tgi_batch_current_max_tokens"),
    gauge("prompt_tokens", "tgi_request_input_length_sum"),
    gauge("generation_tokens", "tgi_request_generated_tokens_sum"),
    *histogram("queue_time", "tgi_request_queue_duration"),
)


class TgiInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `/info` tells of bounds; each version has another part of it."""

    max_concurrent_requests: int | None = None
    max_total_tokens: int | None = None
    """Of one request, prompt and output."""
    max_input_tokens: int | None = None
    max_input_length: int | None = None
    """What 1.x calls `max_input_tokens`."""
    max_batch_total_tokens: int | None = None
    """Of all requests of a batch: 1.x only."""


def read_info(page: bytes) -> TgiInfo:
    """Raises `ValueError` when the page is not what `/info` answers."""
    try:
        return msgspec.json.decode(page, type=TgiInfo)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


class TgiLoad:
    """Reads the two pages."""

    def __init__(self, max_batch_total_tokens: int | None = None) -> None:
        """`max_batch_total_tokens` as the server was started with; what `/info` tells wins."""
        self._table = SignalTable(TGI_SIGNALS)
        self._configured = max_batch_total_tokens

    def read(self, pages: Mapping[str, bytes]) -> EngineLoad:
        """The load. Raises `ValueError` for a page that is not what it should be."""
        readings: dict[str, Reading] = {}
        if METRICS_PATH in pages:
            readings |= self._table.readings(pages[METRICS_PATH])
        told = read_info(pages[INFO_PATH]).max_batch_total_tokens if INFO_PATH in pages else None
        capacity = told if told is not None else self._configured
        if capacity is not None:
            readings["kv_capacity_tokens"] = float(capacity)
        return load_from(readings)
