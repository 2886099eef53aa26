"""`docs/configuration.md`, rendered from the settings' own types and descriptions.

A test compares the file with this text, so neither can be changed without the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta

from sluice_gateway.settings import Settings

_INTRO = """# Configuration

`sluice serve` reads the file given with `--config`, else the one that `SLUICE_CONFIG` names, else
`./sluice.yaml`, else none: then the bundled worker serves the bundled model on
127.0.0.1:8000. An unknown key, a wrong type or a value out of range is an error that names file,
line and key; `sluice config check` looks without serving.
[sluice.example.yaml](../sluice.example.yaml) shows every section. `sluice config reference` prints this page.

Flags win over environment variables, these over the file.
"""

_VARIABLES = (
    ("`SLUICE_CONFIG`", "configuration file for `sluice serve` and `uvicorn sluice_gateway.main:app`"),
    ("`SLUICE_HOST`", "wins over `server.host`"),
    ("`SLUICE_PORT`", "wins over `server.port`"),
    ("`SLUICE_STORE_URL`", "wins over `store.url`"),
    (
        "`SLUICE_STORE_PASSWORD_FILE`",
        "a file with the password of the user that the store's URL names, wins over one in it; empty: none",
    ),
    ("`SLUICE_OTLP_ENDPOINT`", "wins over `tracing.otlp_endpoint`"),
    (
        "`SLUICE_BOOTSTRAP_KEY_FILE`",
        "a file with the secret of the first key, which may do everything; while there is no key, a file that"
        " is not there, or empty, gets a new secret",
    ),
)

REQUEST_HEADERS = (
    ("`Authorization: Bearer KEY`", "the API key"),
    ("`x-api-key: KEY`", "the same; one valid key of the two is enough"),
    (
        "`X-Backend: NAME`",
        "serve from this backend; unknown: 400 naming the valid ones; absent: the router chooses",
    ),
    ("`X-Quant: none, awq, int8, int4 or fp8`", "serve from a backend with this quantization"),
    (
        "`X-Route: require or prefer`",
        "whether the two above must be met (the default), or may be left out where no healthy engine meets"
        " them",
    ),
    (
        "`X-Priority: interactive, default or bulk`",
        "who goes first when requests wait; nobody waits for ever: a `default` request lets newer"
        " `interactive` ones go first for 8 seconds, a `bulk` one for about 5 minutes (the differences of the"
        " times in `admission`); within a class tenants share by weight, see [router.md](router.md)",
    ),
    (
        "`X-Session-Id: ANYTHING`",
        "requests with the same one go to the same engine while it is healthy and has room; absent: the"
        " body's `prompt_cache_key`",
    ),
    (
        "`X-SLO-TTFT-Ms: MILLISECONDS`",
        "the first token is worth nothing later than this; overrides what the request's priority has in"
        " `admission`. When no engine can keep it, by what was measured, the answer is 429 at once."
        " `x-llm-d-slo-ttft-ms` is the same",
    ),
    ("`x-request-id: ID`", "the id to use, if it is short and plain"),
    ("`traceparent`, `tracestate`, `baggage`", "passed on to the engine"),
    (
        "`Idempotency-Key: NAME`",
        "a repeated request with this name (1 to 255 characters) and the same body is not done again: it gets"
        " the answer that was made, or joins the one being made; with another body: 400; while it cannot be"
        " joined: 409 with `retry-after`",
    ),
    (
        "`Cache-Control: no-store, no-cache, max-age=SECONDS`",
        "with *cache* on: pass it by; take no kept answer; take none that is older",
    ),
)

RESPONSE_HEADERS = (
    ("`x-request-id`", "the request's id, also in the log"),
    ("`request-id`", "the same, for Anthropic's clients"),
    ("`x-sluice-backend`", "the backend that served, or was tried last"),
    (
        "`x-sluice-route`",
        "the decision: `model=M; backend=B; endpoint=E; reason=R`. The reasons: `least_loaded`, `affinity`"
        " (the session's engine), `prefix_hit` (its cache should have the prompt's beginning), `prefix_hash`"
        " (where prompts with this beginning belong), `spill` (none of these had room, or soon enough);"
        " before it `retry:N` (the Nth attempt), `fallback:N` (the alias's Nth fallback), `relaxed` (not all"
        " of what was preferred)",
    ),
    (
        "`server-timing`",
        "milliseconds until the head of the answer: waiting for an engine (`queue`), the engine (`upstream`),"
        " the gateway's own (`overhead`)",
    ),
    ("`openai-processing-ms`", "milliseconds until the head of the answer"),
    ("`openai-version`", "always `2020-10-01`"),
    (
        "`x-ratelimit-limit-requests`, `x-ratelimit-remaining-requests`, `x-ratelimit-reset-requests`",
        "the requests per minute that are closest to their limit: of the key, its tenant or the model; reset"
        " is the time until all of it is free again, e.g. `6m0s`",
    ),
    (
        "`x-ratelimit-limit-tokens`, `x-ratelimit-remaining-tokens`, `x-ratelimit-reset-tokens`",
        "the same for tokens",
    ),
    (
        "`anthropic-ratelimit-requests-limit`, `anthropic-ratelimit-requests-remaining`,"
        " `anthropic-ratelimit-requests-reset`",
        "what Anthropic's clients get instead; reset is a time, e.g. `2030-01-31T12:00:00Z`",
    ),
    (
        "`anthropic-ratelimit-tokens-limit`, `anthropic-ratelimit-tokens-remaining`,"
        " `anthropic-ratelimit-tokens-reset`",
        "the same for tokens",
    ),
    (
        "`x-sluice-limits`",
        "only while Redis cannot be asked: `local`, `open` or `closed`, as *when_redis_is_down* says",
    ),
    ("`x-should-retry`", "`false` when a budget is spent: soon is too soon"),
    ("`retry-after`, `retry-after-ms`", "on 429 and 503, and with some 409: when to try again"),
    ("`idempotent-replayed`", "`true` when the answer was made for an earlier request of the same name"),
    ("`x-sluice-cache`, `age`", "with *cache* on: `hit` or `miss`; seconds since a kept answer was made"),
)


def render() -> str:
    """The whole page, without a trailing newline."""
    parts = [_INTRO, _table(("variable", "meaning"), _VARIABLES)]
    parts += [_section(name, struct) for name, struct in sections()]
    parts.append("## Request headers\n\n" + _table(("header", "meaning"), REQUEST_HEADERS))
    parts.append("## Response headers\n\n" + _table(("header", "meaning"), RESPONSE_HEADERS))
    return "\n".join(parts).rstrip("\n")


def sections() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Every struct of the settings, once, with the key it is found under first, the top level first."""
    queue: list[tuple[str, type[msgspec.Struct]]] = [("Top level", Settings)]
    seen: dict[type[msgspec.Struct], str] = {}
    while queue:
        name, struct = queue.pop(0)
        if struct in seen:
            continue
        seen[struct] = name
        yield name, struct
        for field in msgspec.structs.fields(struct):
            inner = _inner_struct(field.type)
            if inner is not None:
                key = field.encode_name
                taken = {*seen.values(), *(other for other, _ in queue)}
                queue.append((f"{name}.{key}" if key in taken else key, inner))


def _section(name: str, struct: type[msgspec.Struct]) -> str:
    rows = [
        (f"`{field.encode_name}`", f"{_type_name(field.type)}", _default(field), meaning(field.type))
        for field in msgspec.structs.fields(struct)
    ]
    return f"## {name}\n\n{_prose(struct)}\n\n{_table(('key', 'type', 'default', 'meaning'), rows)}"


def _prose(struct: type[msgspec.Struct]) -> str:
    """Its docstring, on one line."""
    return " ".join((struct.__doc__ or "").split())


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def meaning(annotation: Any) -> str:
    """The text of the outermost `Meta` that has one."""
    for meta in getattr(annotation, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.description:
            return meta.description
    return ""


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if value is NODEFAULT and field.default_factory is not NODEFAULT:
        value = field.default_factory()
    if value is NODEFAULT:
        return "required"
    if value is None or value == () or value == {} or isinstance(value, msgspec.Struct):
        return ""
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type_name(annotation: Any) -> str:
    annotation = _bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is Union or isinstance(annotation, type(int | None)):
        return " or ".join(_type_name(a) for a in arguments if a is not type(None))
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return "section"
    return {
        str: "text",
        int: "integer",
        float: "number",
        bool: "`true`, `false`",
        datetime: "date and time with zone",
    }[annotation]


def _bare(annotation: Any) -> Any:
    """Without `Annotated`."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    return annotation


def _inner_struct(annotation: Any) -> type[msgspec.Struct] | None:
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    found = (inner for a in get_args(annotation) if (inner := _inner_struct(a)) is not None)
    return next(found, None)
