"""What an engine is to the gateway: data first, code only where an engine differs.

An adapter is stateless. It knows the engine's dialect (paths, metric names, quirks), never a socket:
`prepare` turns the client's request into upstream bytes, `parse_load` reads a metrics page. Engines that
answer in OpenAI's own format need no translation, and their bytes are relayed untouched.

Third parties register a factory under the entry-point group `sluice.engines`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from sluice_engines.transport import Transport, UpstreamRequest
from sluice_router.types import Capabilities, EngineLoad


class ClientRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The client's request as an adapter sees it."""

    kind: str
    """`chat`, `completions` or `embeddings`."""
    path: str
    """The OpenAI path the client called, e.g. `/v1/chat/completions`."""
    body: bytes
    """Original bytes, already rewritten where the gateway had to."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Headers to pass on (content type, request id, trace context); never the client's credentials."""


class EngineAdapter(Protocol):
    """One engine's dialect."""

    name: str
    """Adapter name, e.g. `worker`, `echo`, `openai_compatible`."""
    default_port: int
    capabilities: Capabilities
    health_path: str
    """Answers 2xx while the process lives."""
    ready_path: str
    """Answers 2xx when it can serve."""
    metrics_path: str | None
    """Prometheus page, or `None` when the engine has none."""

    def prepare(self, request: ClientRequest, base_url: str, api_key: str | None) -> UpstreamRequest:
        """The bytes for the engine. `api_key` is the engine's own credential from the config."""
        ...

    def parse_load(self, page: str) -> EngineLoad:
        """Gauges out of a metrics page; a missing gauge stays `None`."""
        ...

    def transport(self) -> Transport | None:
        """An in-process transport (the echo engine), or `None` to be reached over HTTP."""
        ...
