"""What every endpoint needs, put together once at start and passed in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from sluice_worker.async_engine import AsyncEngine
from sluice_worker.outputs import ModelInfo
from sluice_worker.server.errors import engine_unavailable
from sluice_worker.server.metrics import Metrics
from sluice_worker.server.served_model import ServedModel


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a running server."""

    engine: AsyncEngine
    model: ServedModel
    metrics: Metrics
    clock: Callable[[], float]
    """Monotonic seconds, for durations."""
    wall_clock: Callable[[], float]
    """Unix seconds, for the `created` field."""
    random_bits: Callable[[int], int]
    """So many random bits as an integer: ids, and seeds that the client left open."""
    max_body_bytes: int
    keep_alive_s: float
    """Silence after which a stream sends a comment."""

    def loaded_model(self) -> ModelInfo:
        """What the engine has loaded. Raises `ApiError` 503 while it loads and after it has died."""
        if not self.engine.healthy:
            raise engine_unavailable("The inference engine has stopped. The server is about to restart.")
        if self.engine.model_info is None:
            raise engine_unavailable("The model is still being loaded. Retry in a moment.")
        return self.engine.model_info

    def new_id(self, prefix: str) -> str:
        """A fresh id such as `chatcmpl-4f..`."""
        return f"{prefix}-{self.random_bits(128):032x}"

    def fingerprint(self) -> str:
        """`system_fingerprint`: another one means that the same seed may give another text."""
        digest = hashlib.sha256(msgspec.json.encode(self.loaded_model())).hexdigest()
        return f"fp_{digest[:12]}"
