"""Text Generation Inference, of one GPU or of several (`--num-shard`), from 1.4 to 3.3.7, its last release.

Completions go over its native API, by huggingface-hub's client, for its own `/v1/completions` has neither
log-probabilities nor grammars. Chat goes over its Messages API. The translation is in
`tgi_native`, how its load is read in `tgi_load.py`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType

import msgspec

from sluice_engines.adapter import ClientRequest, LoadPage, Quirk, VersionPage
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.options import convert_options
from sluice_engines.tgi_load import INFO_PATH, METRICS_PATH, TGI_LOAD_PAGES, TGI_SIGNALS, TgiLoad
from sluice_engines.transport import Transport, UpstreamRequest
from sluice_router.types import Capabilities, EngineLoad

_COMPLETIONS, _GENERATE = "/v1/completions", "/generate"
_CLIENT = "huggingface_hub"


class TgiOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the adapter."""

    max_batch_total_tokens: int | None = None
    """As the server was started with: from 2.x on it does not tell, and without it the use of the KV cache is
    unknown."""
    loras: tuple[str, ...] = ()
    """Adapters that the server was started with (`LORA_ADAPTERS`): models of these names are asked for as
    such."""


class TgiAdapter(OpenAICompatibleAdapter):
    """Text Generation Inference."""

    name = "tgi"
    title = "Text Generation Inference"
    default_port = 8003
    capabilities = Capabilities(
        endpoints=frozenset({"chat", "completions"}),
        prompt_logprobs=True,
        tools=True,
        tool_calls=True,
        json_schema=True,
        images=True,
        multiple_choices=False,
    )
    health_path = "/health"
    ready_path = "/health"
    metrics_path = METRICS_PATH
    signals = TGI_SIGNALS
    version = VersionPage(path=INFO_PATH, field="version")
    quirks = (
        Quirk(
            about="It is archived upstream: the last release is 3.3.7, and its readme sends users to vLLM,"
            " SGLang and llama.cpp. The adapter is kept working for those who run it.",
            source="huggingface/text-generation-inference PR 3345",
        ),
        Quirk(
            about="From 2.x on `/info` does not tell the KV budget; set `options:"
            " {max_batch_total_tokens: N}` to what the server was started with, or the use stays unknown.",
            source="huggingface/text-generation-inference, router/src/lib.rs at v1.4.5, v2.4.1, v3.3.7",
        ),
        Quirk(
            about="It leaves the stop string in its text, and stops only when one ends a token's text; the"
            " adapter cuts before the first, wherever it is. A stream that is cut inside a token gets no"
            " count of its prompt: the adapter asks `/tokenize` where usage is wanted, and a version that"
            " lacks it leaves the stream without.",
            source="huggingface/text-generation-inference, server/text_generation_server/utils/tokens.py",
        ),
        Quirk(
            about="A `presence_penalty` p in chat becomes a repetition penalty of 2 + p, 0 included; the"
            " adapter leaves 0 out and refuses others.",
            source="huggingface/text-generation-inference, router/src/lib.rs at v3.3.7",
        ),
        Quirk(
            about="A temperature of 0, a `top_p` of 1 and `max_tokens: 0` are errors there; the adapter says"
            " the same in its words.",
            source="huggingface/text-generation-inference, router/src/validation.rs at v3.3.7",
        ),
        Quirk(
            about="`n`, `logit_bias` and parameters that it does not know are ignored without a word; the"
            " adapter refuses them.",
            source="huggingface/text-generation-inference, router/src/lib.rs at v3.3.7",
        ),
        Quirk(
            about="Errors of a stream come inside it with status 200, and 424 means that generation failed;"
            " the adapter gives them the statuses that OpenAI's clients know.",
            source="huggingface/text-generation-inference issue 2749, PR 2668",
        ),
        Quirk(
            about="Calls of tools: arguments as an object, the id 0 in every answer, no finish reason"
            " `tool_calls`, and `eos_token` as a finish reason; the adapter sends OpenAI's.",
            source="huggingface/text-generation-inference issues 2136, 2461, 2794, 2954, PR 2344",
        ),
        Quirk(
            about="`response_format` has a form of its own, and a schema needs `properties`; the adapter"
            " translates `json_schema` and refuses `json_object`.",
            source="huggingface/text-generation-inference issue 3058, router/src/validation.rs",
        ),
        Quirk(
            about="Before 2.4 it lists no models at `/v1/models`; the adapter names the one of `/info`.",
            source="huggingface/text-generation-inference, router/src/server.rs at v2.2.0, v2.4.1",
        ),
    )

    def __init__(
        self,
        options: Mapping[str, object] = MappingProxyType({}),
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """`options` are the fields of `TgiOptions`; raises `ValueError` on a wrong one, and when the client
        is not installed."""
        self._options = convert_options(self.name, options, TgiOptions)
        if find_spec(_CLIENT) is None:
            raise ValueError(
                "Adapter 'tgi' needs huggingface-hub; install it with: pip install 'sluice-engines[tgi]'."
            )
        self._clock = clock
        self._new_id = new_id
        self._load = TgiLoad(self._options.max_batch_total_tokens)
        super().__init__()

    @property
    def load_pages(self) -> tuple[LoadPage, ...]:
        """Metrics and bounds."""
        return TGI_LOAD_PAGES

    def prepare(self, request: ClientRequest, base_url: str, api_key: str | None) -> UpstreamRequest:
        """OpenAI's body, at the native path where there is one; `over` translates."""
        prepared = super().prepare(request, base_url, api_key)
        if request.path != _COMPLETIONS:
            return prepared
        return msgspec.structs.replace(prepared, path=prepared.path.removesuffix(_COMPLETIONS) + _GENERATE)

    def parse_load(self, pages: Mapping[str, bytes]) -> EngineLoad:
        """From both pages."""
        return self._load.read(pages)

    def over(self, http: Transport) -> Transport:
        """A translation over the gateway's client."""
        # The client weighs some megabytes, and only those who run this engine carry them.
        from sluice_engines.tgi_native.transport import TgiTransport

        return TgiTransport(http, loras=self._options.loras, clock=self._clock, new_id=self._new_id)
