"""The schema of `sluice.yaml`: every key, its type, its default and what it means.

These structs are the one description of the configuration: `config.py` checks files against them,
`docs/configuration.md` is generated from them. Reading files and the environment is not done here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sluice_gateway.batches.settings import BatchesSettings
from sluice_gateway.files.settings import FilesSettings
from sluice_gateway.keys.settings import JwtSettings, KeySettings, TenantSettings
from sluice_gateway.ledger.settings import LedgerSettings
from sluice_gateway.limits.settings import Limits, Prices, Redis
from sluice_gateway.replay.settings import CacheSettings, IdempotencySettings
from sluice_gateway.responses_api.settings import ResponsesSettings
from sluice_gateway.routes import Kind
from sluice_gateway.routing_settings import (
    AdmissionSettings,
    AliasTarget,
    DecisionLogSettings,
    FailoverSettings,
)
from sluice_gateway.settings_base import BaseUrl, Count, Name, ProxyUrl, Quant, Seconds, Section
from sluice_gateway.store.settings import StoreSettings
from sluice_gateway.tracing.settings import Tracing


class Server(Section, frozen=True, kw_only=True):
    """How clients reach the gateway."""

    host: Annotated[
        str,
        Meta(
            description="Address to listen on. Without `keys` only loopback addresses are allowed."
            " The environment variable `SLUICE_HOST` wins over it."
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Meta(
            ge=1,
            le=65535,
            description="TCP port to listen on. The environment variable `SLUICE_PORT` wins over it.",
        ),
    ] = 8000
    max_body_bytes: Annotated[int, Meta(ge=1024, description="A request with a larger body gets 413.")] = (
        33_554_432
    )
    body_timeout_s: Annotated[
        Seconds, Meta(description="A client that takes longer to send its request's body gets 408.")
    ] = 60.0
    write_timeout_s: Annotated[
        Seconds,
        Meta(
            description="A client that has not read anything for this long is cut off, so that it does"
            " not hold"
            " an engine slot for ever."
        ),
    ] = 30.0
    drain_s: Annotated[
        float,
        Meta(
            ge=0,
            description="On SIGTERM, running requests may go on for this long; new ones get 503. What is left"
            " then ends with an error event. Give whoever stops the gateway (systemd, Docker, Kubernetes) the"
            " same patience.",
        ),
    ] = 600.0
    interrupt_drain_s: Annotated[
        float, Meta(ge=0, description="The same for SIGINT (Ctrl-C), where somebody is waiting.")
    ] = 5.0
    workers: Annotated[
        Count,
        Meta(
            description="Processes that serve. More than one need `redis`, where they share their limits."
            " The option `--workers` wins over it."
        ),
    ] = 1
    worker_timeout_s: Annotated[
        Seconds,
        Meta(
            description="With several processes, one whose event loop has not run for this long is replaced,"
            " after its stack has been logged."
        ),
    ] = 30.0
    metrics_port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(
            description="Another port, on the same address, for `/metrics` alone; with several processes it"
            " answers even when none of them does.",
        ),
    ] = None


class Managed(Section, frozen=True, kw_only=True):
    """A local engine that `sluice serve` starts, watches, and starts again with a growing delay when it
    dies."""

    command: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments. `{port}` is replaced by the port of the backend's `url`,"
            " or by a free one. Some adapters have a default: `worker` the bundled `sluice-worker serve`,"
            " `llamacpp` a `llama-server --metrics` on PATH, `vllm` a `vllm serve` that is installed."
        ),
    ] = ()
    args: Annotated[
        tuple[str, ...],
        Meta(
            description="Further arguments, e.g. `[--model, FOLDER_OR_HUB_NAME]`; for `llamacpp` at least"
            " `[--model, FILE.gguf]`, for `vllm` `[MODEL]`."
        ),
    ] = ()
    start_timeout_s: Annotated[
        Seconds, Meta(description="A child that is not ready after this long is killed and started again.")
    ] = 300.0


class Backend(Section, frozen=True, kw_only=True):
    """One engine."""

    name: Annotated[
        Name, Meta(description="What the `X-Backend` header selects. Unique; letters, digits, `.`, `_`, `-`.")
    ]
    adapter: Annotated[
        str,
        Meta(
            description="The engine's dialect: `worker` (the bundled engine), `vllm`, `sglang`, `trt`"
            " (TensorRT-LLM), `tgi` (Text Generation Inference), `llamacpp`, `transformers` and `onnx` (plain"
            " local servers to compare with), `echo` (answers in process with what it was asked, for"
            " front-end work), `openai_compatible` (anything that speaks OpenAI's API), or one that an"
            " installed package registers. `sluice engines list` names them, `sluice engines probe URL` says"
            " which one a server needs."
        ),
    ]
    url: Annotated[
        BaseUrl | tuple[BaseUrl, ...] | None,
        Meta(
            description="Base URL without `/v1`: `http://host:port`, `https://host` or"
            " `http+unix:///path.sock`;"
            " or a list of them, one per replica."
            " Required unless the backend is `managed` or the adapter is `echo`."
        ),
    ] = None
    options: Annotated[
        dict[str, Any], Meta(description="Settings of the adapter itself; each adapter has its own, or none.")
    ] = msgspec.field(default_factory=dict)
    models: Annotated[
        tuple[str, ...],
        Meta(description="Model ids it serves. Empty: asked from the engine's own `/v1/models`."),
    ] = ()
    endpoints: Annotated[
        tuple[Kind, ...],
        Meta(
            description="Kinds of request it serves. Empty: what the adapter knows its engine to serve, for"
            " `openai_compatible` `chat`, `completions` and `embeddings`. Requests for any other kind go to"
            " backends that declare it. An engine that was started for embeddings, rerank or score has to say"
            " so."
        ),
    ] = ()
    api_key_env: Annotated[
        str | None,
        Meta(description="Name of the environment variable that holds the engine's own API key."),
    ] = None
    max_in_flight: Annotated[
        Count, Meta(description="Requests that may run on it at once; further ones wait in the queue.")
    ] = 64
    quant: Annotated[
        Quant | None,
        Meta(
            description="The quantization it runs, which the `X-Quant` header selects; a backend `vllm-quant`"
            " is adapter `vllm` with one. Absent: what the worker says of itself; other engines count as"
            " `none`."
        ),
    ] = None
    upstream: Annotated[
        Literal["native", "httpx"],
        Meta(description="HTTP client: `native` is the fast one; `httpx` goes through proxies."),
    ] = "native"
    proxy: Annotated[
        ProxyUrl | None,
        Meta(description="Proxy to reach the engine through, `http://host:port`; needs `upstream: httpx`."),
    ] = None
    hedging: Annotated[
        bool | None,
        Meta(
            description="A request whose first token is late here may be sent to another engine as well, and"
            " one that is late elsewhere to this one; the first answer counts, the other is cancelled."
            " Absent: yes for `worker`, `vllm`, `sglang`, `trt`, `tgi` and `llamacpp`, no for all others,"
            " which may charge for both."
        ),
    ] = None
    resuming: Annotated[
        bool,
        Meta(
            description="It may be asked for the rest of a stream that another engine began, if its adapter"
            " knows how: see `failover.resume_streams`. Switch off for a vLLM older than"
            " October 2024, an SGLang older than March 2025, and a llama.cpp older than May 2025, or than May"
            " 2026 if it runs with `--no-prefill-assistant`: those take the beginning of an answer for a"
            " finished one."
        ),
    ] = True
    inject_usage: Annotated[
        bool,
        Meta(
            description="Ask the engine for a stream's token usage when the client did not, and keep the"
            " extra"
            " event from the client. Switch off for engines that refuse `stream_options`."
        ),
    ] = True
    managed: Annotated[
        Managed | None, Meta(description="Start the engine as a child process; see *managed* below.")
    ] = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URLs of all replicas."""
        if isinstance(self.url, str):
            return (self.url,)
        return self.url or ()


class Queue(Section, frozen=True, kw_only=True):
    """Where requests wait while all engines are busy."""

    max_waiting: Annotated[int, Meta(ge=0, description="Requests that may wait; further ones get 429.")] = 256
    max_tokens: Annotated[
        Count | None,
        Meta(description="Prompt tokens that may wait, as estimated. Absent: any number."),
    ] = None
    max_bytes: Annotated[
        Count | None,
        Meta(description="Bytes of requests that may wait: the memory that the queue may take."),
    ] = 268_435_456
    timeout_s: Annotated[
        Seconds,
        Meta(
            description="A request that has waited this long gets 503; a `bulk` one may wait for a tenth more"
            " than `admission.bulk_ttft_s`, if that is longer."
        ),
    ] = 30.0


class Timeouts(Section, frozen=True, kw_only=True):
    """Deadlines on engines."""

    connect_s: Annotated[Seconds, Meta(description="Until the connection to the engine stands.")] = 5.0
    first_token_s: Annotated[
        Seconds,
        Meta(
            description="Until a stream's first content. Keep-alive comments and empty deltas do not count."
        ),
    ] = 120.0
    idle_s: Annotated[Seconds, Meta(description="Between two reads of an answer.")] = 60.0
    total_s: Annotated[Seconds, Meta(description="From sending the request to its last byte.")] = 600.0
    hold_status_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a stream's status waits for the first event, so that an error there"
            " becomes a real status, or goes to another engine. After that the head is sent, and comments"
            " keep the client waiting; another engine may still take over until there is content.",
        ),
    ] = 10.0
    keep_alive_s: Annotated[
        Seconds, Meta(description="A stream that is silent for this long gets a comment.")
    ] = 15.0


class Health(Section, frozen=True, kw_only=True):
    """How engines are watched."""

    interval_s: Annotated[Seconds, Meta(description="Between two probes of an engine.")] = 1.0
    timeout_s: Annotated[Seconds, Meta(description="A probe that takes longer has failed.")] = 2.0
    load_interval_s: Annotated[
        Seconds,
        Meta(
            description="Between two readings of an engine's load: requests running and waiting, KV cache."
            " Each gateway process reads for itself."
        ),
    ] = 0.5
    failures: Annotated[
        Count, Meta(description="Failed probes in a row after which an engine gets no more requests.")
    ] = 2


class Cors(Section, frozen=True, kw_only=True):
    """Which web pages may call the gateway from a browser."""

    allow_origins: Annotated[
        tuple[str, ...],
        Meta(description="Origins such as `https://app.example.com`; `*` allows all."),
    ] = ("http://localhost:3000", "http://127.0.0.1:3000")


class Logs(Section, frozen=True, kw_only=True):
    """What is written to standard error: one line a request, never a secret or a prompt."""

    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="`json` for machines, `text` for people; `auto` is `text` on a terminal."),
    ] = "auto"
    requests: Annotated[bool, Meta(description="Whether each request gets a line.")] = True


class Settings(Section, frozen=True, kw_only=True):
    """The whole of `sluice.yaml`. Every key is optional."""

    server: Annotated[Server, Meta(description="See *server* below.")] = Server()
    backends: Annotated[
        tuple[Backend, ...],
        Meta(description="The engines. Absent: the bundled worker with the bundled model, managed."),
    ] = ()
    keys: Annotated[
        tuple[KeySettings, ...],
        Meta(description="API keys, beside those of the store. With none in either: open, on loopback only."),
    ] = ()
    tenants: Annotated[
        tuple[TenantSettings, ...], Meta(description="Tenants, beside those of the store.")
    ] = ()
    jwt: Annotated[
        JwtSettings | None,
        Meta(description="Signed tokens as credentials, see *jwt* below. Absent: keys only."),
    ] = None
    store: Annotated[StoreSettings, Meta(description="See *store* below.")] = StoreSettings()
    ledger: Annotated[LedgerSettings, Meta(description="See *ledger* below.")] = LedgerSettings()
    idempotency: Annotated[IdempotencySettings, Meta(description="See *idempotency* below.")] = (
        IdempotencySettings()
    )
    cache: Annotated[CacheSettings, Meta(description="See *cache* below.")] = CacheSettings()
    limits: Annotated[Limits, Meta(description="See *limits* below.")] = Limits()
    prices: Annotated[Prices, Meta(description="See *prices* below.")] = Prices()
    redis: Annotated[
        Redis | None,
        Meta(description="See *redis* below. Absent: each process keeps its limits to itself."),
    ] = None
    files: Annotated[FilesSettings, Meta(description="See *files* below.")] = FilesSettings()
    batches: Annotated[BatchesSettings, Meta(description="See *batches* below.")] = BatchesSettings()
    responses: Annotated[ResponsesSettings, Meta(description="See *responses* below.")] = ResponsesSettings()
    queue: Annotated[Queue, Meta(description="See *queue* below.")] = Queue()
    admission: Annotated[AdmissionSettings, Meta(description="See *admission* below.")] = AdmissionSettings()
    failover: Annotated[FailoverSettings, Meta(description="See *failover* below.")] = FailoverSettings()
    decision_log: Annotated[
        DecisionLogSettings | None,
        Meta(description="See *decision_log* below. Absent: decisions are not written down."),
    ] = None
    aliases: Annotated[
        dict[str, tuple[AliasTarget, ...]],
        Meta(
            description="Further model names, each with an ordered list of what it stands for; see *aliases*"
            " below. A name must not be that of a configured model; it hides a discovered one."
        ),
    ] = msgspec.field(default_factory=dict)
    timeouts: Annotated[Timeouts, Meta(description="See *timeouts* below.")] = Timeouts()
    health: Annotated[Health, Meta(description="See *health* below.")] = Health()
    cors: Annotated[Cors, Meta(description="See *cors* below.")] = Cors()
    logs: Annotated[Logs, Meta(description="See *logs* below.")] = Logs()
    tracing: Annotated[Tracing, Meta(description="See *tracing* below.")] = Tracing()


BUNDLED_WORKER = Backend(name="worker", adapter="worker", managed=Managed())
ECHO = Backend(name="echo", adapter="echo", models=("echo",))
