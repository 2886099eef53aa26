"""Any server that speaks OpenAI's API, of which nothing else is known.

What such a server can do is for itself to say, so nothing is refused on its behalf. It is alive when it lists
its models: no other path is common to all of them.

Adapters of engines that are known better derive from this one and say what they know as data. Their load is
read from a Prometheus page by the table of `signals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from sluice_engines.adapter import ClientRequest, LoadPage, Quirk, VersionPage
from sluice_engines.base_url import join_base_url
from sluice_engines.http_headers import upstream_headers
from sluice_engines.load_report import ASKED, LoadReport
from sluice_engines.load_signals import Signal, SignalTable
from sluice_engines.options import refuse_options
from sluice_engines.transport import Transport, UpstreamRequest
from sluice_router.types import Capabilities, EngineLoad


class OpenAICompatibleAdapter:
    """Passes requests on as they are. Base for engines that differ only in their data."""

    name = "openai_compatible"
    title = "OpenAI-compatible server"
    default_port = 80
    capabilities = Capabilities(
        endpoints=frozenset({"chat", "completions", "embeddings"}),
        prompt_logprobs=True,
        tools=True,
        tool_calls=True,
        json_schema=True,
        images=True,
    )
    health_path = "/v1/models"
    ready_path = "/v1/models"
    metrics_path: str | None = None
    metrics_missing = ""
    """What to do when there is no page at `metrics_path`; see `LoadPage`."""
    signals: ClassVar[tuple[Signal, ...]] = ()
    """What is read from the page at `metrics_path`."""
    load_report: LoadReport | None = None
    """What its answers tell of its load when they are asked to; see `load_report.py`."""
    version: VersionPage | None = None
    quirks: tuple[Quirk, ...] = ()

    def __init__(self, options: Mapping[str, object] = MappingProxyType({})) -> None:
        """It has no options; raises `ValueError` when given any."""
        refuse_options(self.name, options)
        self._table = SignalTable(self.signals) if self.signals else None

    @property
    def load_pages(self) -> tuple[LoadPage, ...]:
        """The Prometheus page, if anything is read from it."""
        if self._table is None or self.metrics_path is None:
            return ()
        return (LoadPage(path=self.metrics_path, missing=self.metrics_missing),)

    def prepare(self, request: ClientRequest, base_url: str, api_key: str | None) -> UpstreamRequest:
        """The client's own bytes, with the engine's credential."""
        origin, path = join_base_url(base_url, request.path)
        headers = upstream_headers(request.headers, api_key)
        return UpstreamRequest(
            base_url=origin,
            path=path,
            headers=headers if self.load_report is None else headers + ASKED,
            body=request.body,
        )

    def parse_load(self, pages: Mapping[str, bytes]) -> EngineLoad:
        """What `signals` find on the Prometheus page; nothing without them."""
        page = pages.get(self.metrics_path or "")
        return EngineLoad() if page is None or self._table is None else self._table.read(page)

    def transport(self) -> Transport | None:
        """It is reached over HTTP."""
        return None

    def over(self, http: Transport) -> Transport:
        """The gateway's own client: there is nothing to translate."""
        return http
