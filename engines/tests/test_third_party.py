"""A worked example: how another package adds an engine.

The engine, "Parrot", has its own path for chat and calls its gauges by its own names. Everything else it does
as OpenAI does, so its adapter says only what differs. In the package's `pyproject.toml`:

    [project.entry-points."sluice.engines"]
    parrot = "parrot_sluice:ParrotAdapter"
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sluice_engines.adapter import ClientRequest, EngineAdapter
from sluice_engines.load_signals import gauge
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.registry import create_adapter, load_adapters
from sluice_engines.transport import UpstreamRequest
from sluice_router.types import Capabilities, EngineLoad


class ParrotAdapter(OpenAICompatibleAdapter):
    """Parrot's dialect."""

    name = "parrot"
    title = "Parrot"
    default_port = 9000
    capabilities = Capabilities(endpoints=frozenset({"chat"}), logprobs=False)
    health_path = "/healthz"
    ready_path = "/healthz"
    metrics_path = "/metrics"
    signals = (gauge("running", "parrot_talking"), gauge("waiting", "parrot_queue"))

    def prepare(self, request: ClientRequest, base_url: str, api_key: str | None) -> UpstreamRequest:
        """Parrot listens on `/talk`."""
        prepared = super().prepare(request, base_url, api_key)
        return msgspec.structs.replace(prepared, path="/talk")


@pytest.fixture
def parrot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineAdapter:
    """The adapter, found and made as the gateway does it."""
    info = tmp_path / "parrot_sluice-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot-sluice\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sluice.engines]\nparrot = parrot_sluice:ParrotAdapter\n")
    (tmp_path / "parrot_sluice.py").write_text("ParrotAdapter = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    import parrot_sluice

    monkeypatch.setattr(parrot_sluice, "ParrotAdapter", ParrotAdapter)
    return create_adapter(load_adapters(["parrot"])["parrot"])


def test_the_gateway_finds_it_by_its_name(parrot: EngineAdapter):
    assert isinstance(parrot, ParrotAdapter)


def test_requests_reach_it_in_its_dialect(parrot: EngineAdapter):
    request = ClientRequest(kind="chat", path="/v1/chat/completions", body=b"{}")

    prepared = parrot.prepare(request, "http://127.0.0.1:9000", "secret")

    assert (prepared.base_url, prepared.path) == ("http://127.0.0.1:9000", "/talk")
    assert prepared.headers == ((b"authorization", b"Bearer secret"),)


def test_its_load_is_read_from_its_gauges(parrot: EngineAdapter):
    assert parrot.parse_load({"/metrics": b"parrot_talking 2\nparrot_queue 5\n"}) == EngineLoad(
        running=2, waiting=5
    )
