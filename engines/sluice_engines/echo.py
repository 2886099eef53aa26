"""An engine inside the gateway's own process that says again what it was told.

For front-end work, examples and tests: no model, no process, no port, but OpenAI's exact shapes, a pace that
can be set, and faults on demand. It never pretends to be a model: its model is called `echo`.

Settings come from the backend's options, and each request may override them: by a header
(`X-Echo-Delay-S: 0.5`, `X-Echo-Tokens-Per-S`, `X-Echo-Status`, `X-Echo-Lose-After`, `X-Echo-Fail-After`,
`X-Echo-Fault-Rate`), or in the body (`"x_echo": {"delay_s": 0.5}`), which wins.
"""

from __future__ import annotations

import asyncio
import random as chance
import time
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType

from sluice_engines.adapter import ClientRequest, LoadPage, Quirk, VersionPage
from sluice_engines.echo_transport import Clock, EchoSettings, EchoTransport, Random, Sleep
from sluice_engines.http_headers import upstream_headers
from sluice_engines.options import convert_options
from sluice_engines.transport import Transport, UpstreamRequest
from sluice_router.types import Capabilities, EngineLoad


class EchoAdapter:
    """The echo engine's dialect: OpenAI's, over a transport of its own."""

    name = "echo"
    title = "Echo"
    default_port = 0
    capabilities = Capabilities(
        endpoints=frozenset({"chat", "completions", "embeddings"}),
        logprobs=False,
        multiple_choices=True,
        continues_text=False,
    )
    health_path = "/health"
    ready_path = "/ready"
    metrics_path: str | None = None
    load_pages: tuple[LoadPage, ...] = ()
    version: VersionPage | None = None
    quirks: tuple[Quirk, ...] = ()

    def __init__(
        self,
        options: Mapping[str, object] = MappingProxyType({}),
        *,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        random: Random = chance.random,
    ) -> None:
        """`options` are the fields of `EchoSettings`; raises `ValueError` on a wrong one."""
        settings = convert_options(self.name, options, EchoSettings)
        self._transport = EchoTransport(settings, sleep=sleep, clock=clock, new_id=new_id, random=random)

    def prepare(self, request: ClientRequest, base_url: str, api_key: str | None) -> UpstreamRequest:
        """The request as it is."""
        headers = upstream_headers(request.headers, api_key)
        return UpstreamRequest(base_url=base_url, path=request.path, headers=headers, body=request.body)

    def parse_load(self, pages: Mapping[str, bytes]) -> EngineLoad:
        """It has no metrics: nothing ever waits in it."""
        return EngineLoad()

    def transport(self) -> Transport | None:
        """The same transport at every call."""
        return self._transport

    def over(self, http: Transport) -> Transport:
        """It is reached over its own."""
        return self._transport
