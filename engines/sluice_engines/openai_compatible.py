"""Any server that speaks OpenAI's API, of which nothing else is known.

What such a server can do is for itself to say, so nothing is refused on its behalf. It is alive when it lists
its models: no other path is common to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sluice_engines.adapter import ClientRequest
from sluice_engines.base_url import join_base_url
from sluice_engines.http_headers import upstream_headers
from sluice_engines.options import refuse_options
from sluice_engines.transport import Transport, UpstreamRequest
from sluice_router.types import Capabilities, EngineLoad


class OpenAICompatibleAdapter:
    """Passes requests on as they are. Base for engines that differ only in their data."""

    name = "openai_compatible"
    default_port = 80
    capabilities = Capabilities(
        endpoints=frozenset({"chat", "completions", "embeddings"}),
        tools=True,
        tool_calls=True,
        json_schema=True,
        images=True,
    )
    health_path = "/v1/models"
    ready_path = "/v1/models"
    metrics_path: str | None = None

    def __init__(self, options: Mapping[str, object] = MappingProxyType({})) -> None:
        """It has no options; raises `ValueError` when given any."""
        refuse_options(self.name, options)

    def prepare(self, request: ClientRequest, base_url: str, api_key: str | None) -> UpstreamRequest:
        """The client's own bytes, with the engine's credential."""
        origin, path = join_base_url(base_url, request.path)
        return UpstreamRequest(
            base_url=origin,
            path=path,
            headers=upstream_headers(request.headers, api_key),
            body=request.body,
        )

    def parse_load(self, page: str) -> EngineLoad:
        """Nothing is known of its metrics."""
        return EngineLoad()

    def transport(self) -> Transport | None:
        """It is reached over HTTP."""
        return None
