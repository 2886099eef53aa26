"""llama.cpp's server (`llama-server --metrics`).

Its Prometheus page knows requests but no longer the KV cache. What slots hold is at `/slots`, and how much
they could hold is there and at `/props`: the estimate is the tokens of slots at work over the tokens of all
slots. A slot at rest keeps its last tokens as a cached prefix, which the next request may overwrite: it is
free. Formats are those of `tools/server/README.md` and `tools/server/server-context.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

import msgspec

from sluice_engines.adapter import LoadPage, Quirk, VersionPage
from sluice_engines.load_signals import Reading, SignalTable, counter, gauge, load_from, ratio
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.options import convert_options
from sluice_engines.start_command import StartCommand
from sluice_router.types import Capabilities, EngineLoad

METRICS_PATH, SLOTS_PATH, PROPS_PATH = "/metrics", "/slots", "/props"
_PROPS_EVERY_S = 30.0


class LlamaCppOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the adapter."""

    slots: bool = True
    """Read `/slots`, for the KV estimate. Switch off for a server with `--sleep-idle-seconds`: the question
    would keep it awake."""


class LlamaCppAdapter(OpenAICompatibleAdapter):
    """llama.cpp."""

    name = "llamacpp"
    title = "llama.cpp"
    default_port = 8007
    capabilities = Capabilities(
        endpoints=frozenset({"chat", "completions", "responses", "messages", "count_tokens"}),
        tools=True,
        tool_calls=True,
        json_schema=True,
        images=True,
        continues_chat=True,
    )
    health_path = "/health"
    ready_path = "/health"
    metrics_path = METRICS_PATH
    metrics_missing = "start llama-server with --metrics"
    version = VersionPage(path=PROPS_PATH, field="build_info")
    start = StartCommand(
        program="llama-server",
        arguments=("--host", "127.0.0.1", "--port", "{port}", "--metrics", "--slots"),
        install="build or download llama.cpp, or give its program as 'command'",
        needs_args="[--model, FILE.gguf]",
    )
    signals = (
        gauge("running", "llamacpp:requests_processing"),
        gauge("waiting", "llamacpp:requests_deferred"),
        ratio("kv_used_ratio", "llamacpp:kv_cache_usage_ratio"),
        counter("prompt_tokens", "llamacpp:prompt_tokens"),
        counter("prefix_hit_tokens", "llamacpp:prompt_tokens_cached"),
        counter("generation_tokens", "llamacpp:tokens_predicted"),
        counter("draft_tokens", "llamacpp:spec_decode_num_draft_tokens"),
        counter("accepted_tokens", "llamacpp:spec_decode_num_accepted_tokens"),
    )
    quirks = (
        Quirk(
            about="The KV gauges (`kv_cache_usage_ratio`, `kv_cache_tokens`) are gone from newer builds; the"
            " use is estimated from `/slots`. With a unified KV cache every slot counts the whole of it, and"
            " the estimate is too low.",
            source="ggml-org/llama.cpp, tools/server/README.md",
        ),
        Quirk(
            about="`prompt_tokens_seconds` and `predicted_tokens_seconds` are means since they were last"
            " read, by whomever; the adapter reads neither, but its looks shorten the period that Prometheus"
            " sees.",
            source="ggml-org/llama.cpp, tools/server/server-context.cpp",
        ),
        Quirk(
            about="Asking `/slots` wakes a server that went to sleep (`--sleep-idle-seconds`);"
            " `options: {slots: false}` leaves it alone.",
            source="ggml-org/llama.cpp, tools/server/server-context.cpp",
        ),
        Quirk(
            about="Its `/tokenize` and `/detokenize` have fields of their own (`content`), so that they are"
            " not offered as vLLM's. Embeddings and rerank need `--embeddings` and `--rerank`, and"
            " `endpoints` in the configuration.",
            source="ggml-org/llama.cpp, tools/server/README.md",
        ),
        Quirk(
            about="It answers for any model name, and has no log-probabilities of prompts.",
            source="ggml-org/llama.cpp PRs 27174, 15189, 17935; measured",
        ),
        Quirk(
            about="Some builds went on generating after the client had left.",
            source="ggml-org/llama.cpp issues 24496, 11720",
        ),
    )

    def __init__(self, options: Mapping[str, object] = MappingProxyType({})) -> None:
        """`options` are the fields of `LlamaCppOptions`; raises `ValueError` on a wrong one."""
        self._options = convert_options(self.name, options, LlamaCppOptions)
        super().__init__()
        self._metrics = SignalTable(self.signals)

    @property
    def load_pages(self) -> tuple[LoadPage, ...]:
        """Metrics, slots and properties."""
        slots = LoadPage(path=SLOTS_PATH, missing="start llama-server without --no-slots")
        return (
            LoadPage(path=METRICS_PATH, missing=self.metrics_missing),
            *((slots,) if self._options.slots else ()),
            LoadPage(path=PROPS_PATH, every_s=_PROPS_EVERY_S),
        )

    def parse_load(self, pages: Mapping[str, bytes]) -> EngineLoad:
        """What each page that is there adds; the engine's own gauges count more than estimates."""
        readings: dict[str, Reading] = {}
        if PROPS_PATH in pages:
            readings |= _of_properties(pages[PROPS_PATH])
        if SLOTS_PATH in pages:
            readings |= _of_slots(pages[SLOTS_PATH])
        if METRICS_PATH in pages:
            readings |= self._metrics.readings(pages[METRICS_PATH])
        return load_from(_with_queried(readings))


class _NextToken(msgspec.Struct):
    n_decoded: int = 0


class _Slot(msgspec.Struct):
    is_processing: bool = False
    n_ctx: int = 0
    n_prompt_tokens: int | None = None
    n_prompt_tokens_processed: int = 0
    n_prompt_tokens_cache: int = 0
    next_token: list[_NextToken] | _NextToken | None = None
    """One object in older builds, a list of one in newer ones."""

    @property
    def held_tokens(self) -> int | None:
        """Tokens of its request in the cache; `None` when the build does not tell.

        `n_prompt_tokens` is the prompt in some builds and the prompt with what was generated in others, so
        that adding `n_decoded` to it would count that twice.
        """
        if not self.is_processing:
            return 0
        if self.n_prompt_tokens is None:
            return None
        tokens = self.next_token if isinstance(self.next_token, list) else [self.next_token]
        decoded = sum(token.n_decoded for token in tokens if token is not None)
        computed = self.n_prompt_tokens_processed + self.n_prompt_tokens_cache
        return max(self.n_prompt_tokens, computed + decoded)


class _Generation(msgspec.Struct):
    n_ctx: int | None = None


class _Properties(msgspec.Struct):
    total_slots: int | None = None
    is_sleeping: bool | None = None
    default_generation_settings: _Generation | None = None


def _of_slots(page: bytes) -> dict[str, Reading]:
    """Raises `ValueError`."""
    slots = _decoded(page, list[_Slot])
    found: dict[str, Reading] = {
        "running": float(sum(slot.is_processing for slot in slots)),
        "max_running": float(len(slots)),
    }
    if all(slot.n_ctx for slot in slots):
        found["kv_capacity_tokens"] = float(sum(slot.n_ctx for slot in slots))
    held = [slot.held_tokens for slot in slots]
    if None not in held:
        found["kv_tokens_used"] = float(sum(tokens or 0 for tokens in held))
    return found


def _of_properties(page: bytes) -> dict[str, Reading]:
    """Raises `ValueError`."""
    properties = _decoded(page, _Properties)
    found: dict[str, Reading] = {}
    if properties.is_sleeping is not None:
        found["awake"] = float(not properties.is_sleeping)
    if properties.total_slots:
        found["max_running"] = float(properties.total_slots)
        generation = properties.default_generation_settings
        if generation is not None and generation.n_ctx:
            found["kv_capacity_tokens"] = float(properties.total_slots * generation.n_ctx)
    return found


def _with_queried(readings: dict[str, Reading]) -> dict[str, Reading]:
    """`prompt_tokens` here are those that were computed: with the cached ones they are all of them."""
    computed, cached = readings.get("prompt_tokens"), readings.get("prefix_hit_tokens")
    if computed is None or cached is None:
        return readings
    whole = float(computed) + float(cached)
    return readings | {"prompt_tokens": whole, "prefix_queried_tokens": whole}


_T = TypeVar("_T")


def _decoded(page: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(page, type=kind)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
