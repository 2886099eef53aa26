"""What an engine is to the gateway: data first, code only where an engine differs.

An adapter is stateless. It knows the engine's dialect (paths, metric names, quirks), never a socket:
`prepare` turns the client's request into upstream bytes, `parse_load` reads the pages that show its load.
Engines that answer in OpenAI's own format need no translation, and their bytes are relayed untouched. One
that has a format of its own is translated below the gateway, which then meets OpenAI's only: `prepare` names
the engine's own path, and the transport that `over` puts around the gateway's turns requests and answers.

Third parties register a factory under the entry-point group `sluice.engines`.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class LoadPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page from which an engine's load is read."""

    path: str
    missing: str = ""
    """What to do when the engine does not have it, as the end of a sentence: `start it with --metrics`."""
    every_s: float = 0.0
    """What is on it changes so rarely that it need not be read more often."""


class VersionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine says its version."""

    path: str
    field: str
    """Key of the JSON object there."""


class Quirk(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine is not as one would think, and what is done about it here."""

    about: str
    """One or two sentences for the guide."""
    source: str
    """Where it is documented: a thread, a source file or a manual."""


class EngineAdapter(Protocol):
    """One engine's dialect."""

    name: str
    """Adapter name, e.g. `worker`, `echo`, `openai_compatible`."""
    title: str
    """What the engine calls itself, for people."""
    default_port: int
    capabilities: Capabilities
    health_path: str
    """Answers 2xx while the process lives."""
    ready_path: str
    """Answers 2xx when it can serve."""
    metrics_path: str | None
    """Prometheus page, or `None` when the engine has none."""
    load_pages: tuple[LoadPage, ...]
    """What `parse_load` reads; empty when nothing is known of its load."""
    version: VersionPage | None
    quirks: tuple[Quirk, ...]

    def prepare(self, request: ClientRequest, base_url: str, api_key: str | None) -> UpstreamRequest:
        """The bytes for the engine. `api_key` is the engine's own credential from the config."""
        ...

    def parse_load(self, pages: Mapping[str, bytes]) -> EngineLoad:
        """The load, from the `load_pages` that could be read, by path; at least one is there.

        A missing gauge stays `None`. Raises `ValueError` when a page is not what it should be.
        """
        ...

    def transport(self) -> Transport | None:
        """An in-process transport (the echo engine), or `None` to be reached over HTTP."""
        ...

    def over(self, http: Transport) -> Transport:
        """What its requests go over: the gateway's client, or one around it that translates.

        The same `http` may serve other engines, and is not closed by what is around it.
        """
        ...
