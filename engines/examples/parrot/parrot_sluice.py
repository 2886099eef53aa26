"""Parrot for Sluice: an engine with a path and metric names of its own, and OpenAI's bodies."""

import msgspec

from sluice_engines.adapter import ClientRequest, Quirk, VersionPage
from sluice_engines.load_signals import gauge
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.transport import UpstreamRequest
from sluice_router.types import Capabilities


class ParrotAdapter(OpenAICompatibleAdapter):
    """What differs from a server that speaks OpenAI's API and of which nothing else is known."""

    name = "parrot"
    title = "Parrot"
    default_port = 9000
    capabilities = Capabilities(endpoints=frozenset({"chat"}), logprobs=False)
    health_path = "/healthz"
    ready_path = "/healthz"
    metrics_path = "/metrics"
    metrics_missing = "start it with --gauges"
    signals = (gauge("running", "parrot_talking"), gauge("waiting", "parrot_queue"))
    version = VersionPage(path="/about", field="version")
    quirks = (Quirk(about="It says everything twice after midnight.", source="its manual, page 7"),)

    def prepare(self, request: ClientRequest, base_url: str, api_key: str | None) -> UpstreamRequest:
        """Parrot listens on `/talk`."""
        prepared = super().prepare(request, base_url, api_key)
        return msgspec.structs.replace(prepared, path="/talk")
