"""What can be asked for: model list, aliases, and from a client's request to the router's facts.

The router's endpoints carry the model ids, configured or discovered; this module only words them for
clients. What no engine could ever serve is told apart from what none can serve now: the first is the
client's mistake (400, 404), the second is ours (503).

A name is looked up among the aliases first. A key's scope on models is on the names that clients write: who
may use an alias may use what it stands for, on the backends and quantizations that the key may use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from sluice_gateway import routing_headers
from sluice_gateway.dialects.opened import TRANSLATED_TO
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.facts import BodyFacts
from sluice_gateway.identity import Key
from sluice_gateway.keys import scopes
from sluice_gateway.prompt_size import BYTES_PER_TOKEN
from sluice_gateway.routes import Kind
from sluice_router.prefix_chain import BLOCK_BYTES, chain
from sluice_router.routing import Routing
from sluice_router.types import Choice, RequestFacts

_FIELDS = {
    "backend": (Failure.UNKNOWN_BACKEND, None),
    "model": (Failure.MODEL_NOT_FOUND, "model"),
    "kind": (Failure.INVALID_REQUEST, None),
    "quant": (Failure.UNKNOWN_QUANT, None),
    "needs": (Failure.UNSUPPORTED, None),
}
_NEEDED_PARAM = {
    "logprobs": "logprobs",
    "prompt_logprobs": "echo",
    "tools": "tools",
    "tool_calls": "tool_choice",
    "json_schema": "response_format",
    "images": "messages",
    "multiple_choices": "n",
}
_PARAM_IN_DIALECT = {
    ("responses", "logprobs"): "include",
    ("responses", "json_schema"): "text.format",
    ("responses", "images"): "input",
    ("messages", "json_schema"): "output_config.format",
    ("count_tokens", "json_schema"): "output_config.format",
}
"""By (kind, feature), where another dialect has another name for what uses the feature."""


_GENERATING: frozenset[Kind] = frozenset({"chat", "completions", "messages", "responses"})
"""Kinds whose engines keep a prompt's KV cache for the next one."""


_REPEATABLE: frozenset[Kind] = frozenset({"chat", "completions", "embeddings", "rerank", "score"})
"""Kinds that leave nothing behind in an engine, so that one request may be computed twice."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `/v1/models`: what OpenAI's clients read, then what Anthropic's do."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "sluice"
    type: str = "model"
    display_name: str
    created_at: str


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """`/v1/models`, with the keys that Anthropic's clients look for too."""

    data: Sequence[Model]
    first_id: str | None
    last_id: str | None
    object: str = "list"
    has_more: bool = False


class Catalog:
    """The models, and what a request's headers may select."""

    def __init__(
        self, router: Routing, started_at: int, aliases: Mapping[str, tuple[Choice, ...]] | None = None
    ) -> None:
        """`started_at`, seconds since 1970, is what models claim as their creation: they have no other."""
        self._router = router
        self._created = started_at
        self._created_at = datetime.fromtimestamp(started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._aliases = aliases or {}
        self._backends = router.backends()
        self._has_choice = router.endpoints > 1

    def models(self, key: Key) -> ModelList:
        """The models that the key's holder may use, then the aliases."""
        allowed = key.scopes.backends
        served = (
            m for b in self._backends if allowed is None or b in allowed for m in self._router.models(b)
        )
        aliases = (name for name, choices in self._aliases.items() if _within_reach(choices, allowed))
        names = [n for n in dict.fromkeys((*served, *aliases)) if scopes.allows_model(key.scopes, n)]
        data = [
            Model(id=name, display_name=name, created=self._created, created_at=self._created_at)
            for name in names
        ]
        return ModelList(
            data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None
        )

    def model(self, name: str, key: Key) -> Model | Problem:
        """One of them."""
        found = next((m for m in self.models(key).data if m.id == name), None)
        return found or problem(Failure.MODEL_NOT_FOUND, f"The model '{name}' does not exist.", param="model")

    def facts(
        self,
        request_id: str,
        kind: Kind,
        body: BodyFacts,
        headers: dict[bytes, bytes],
        key: Key,
        body_bytes: int = 0,
    ) -> RequestFacts | Problem:
        """What the router has to know, from the body and the headers of `routing_headers.py`."""
        asked = routing_headers.parse(headers, self._backends)
        if isinstance(asked, Problem):
            return asked
        refusal = scopes.refusal(key, kind, body.model, asked.backend, asked.quant)
        if refusal is not None:
            return refusal
        return RequestFacts(
            request_id=request_id,
            kind=kind,
            via=TRANSLATED_TO.get(kind),
            model=body.model,
            tenant=key.tenant,
            weight=key.tenant_weight,
            backend=asked.backend,
            allowed_backends=key.scopes.backends,
            quant=asked.quant,
            allowed_quants=key.scopes.quants,
            prefer=asked.prefer,
            choices=self._aliases.get(body.model, ()),
            priority=asked.priority,
            session=asked.session or body.session,
            stream=body.stream,
            prompt_tokens_estimate=body.prompt_tokens_estimate,
            script=body.script,
            body_bytes=body_bytes,
            max_tokens=body.max_tokens,
            needs=body.needs,
            ttft_budget_s=asked.ttft_budget_s,
            guided=body.guided,
            repeatable=kind in _REPEATABLE,
            prefix=self._prefix(body, key) if self._has_choice and kind in _GENERATING else (),
            prefix_block_tokens=max(1, round(BLOCK_BYTES / BYTES_PER_TOKEN[body.script])),
        )

    def _prefix(self, body: BodyFacts, key: Key) -> tuple[int, ...]:
        """The hash chain of the prompt. Here and not where the body is decoded, because only here the tenant
        is known, and because an engine alone needs none."""
        if body.conversation is None:
            return ()
        preamble = [bytes(part) for part in body.preamble]
        return chain(key.tenant, body.model, preamble, bytes(body.conversation))

    def explain(self, facts: RequestFacts) -> Problem | None:
        """Why no engine could ever serve the request; `None` when one could, were it healthy."""
        found = self._router.mismatch(facts)
        if found is None:
            return None
        failure, param = _FIELDS[found.field]
        if found.field == "needs":
            lacking = found.valid[0]
            param = _PARAM_IN_DIALECT.get((facts.kind, lacking), _NEEDED_PARAM.get(lacking))
        return problem(failure, found.message, param=param)


def _within_reach(choices: Sequence[Choice], allowed: frozenset[str] | None) -> bool:
    """Whether a target of an alias may be on one of the backends."""
    return allowed is None or any(c.backend is None or c.backend in allowed for c in choices)
