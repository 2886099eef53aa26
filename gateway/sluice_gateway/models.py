"""What can be asked for: model list, and from a client's request to the router's facts.

The router's endpoints carry the model ids, configured or discovered; this module only words them for
clients. What no engine could ever serve is told apart from what none can serve now: the first is the
client's mistake (400, 404), the second is ours (503).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.facts import BodyFacts
from sluice_gateway.identity import Key
from sluice_gateway.routes import Kind
from sluice_router.router import Router
from sluice_router.types import QUANTS, RequestFacts

_FIELDS = {
    "backend": (Failure.UNKNOWN_BACKEND, None),
    "model": (Failure.MODEL_NOT_FOUND, "model"),
    "kind": (Failure.INVALID_REQUEST, None),
    "quant": (Failure.UNKNOWN_QUANT, None),
    "needs": (Failure.UNSUPPORTED, None),
}
_NEEDED_PARAM = {
    "logprobs": "logprobs",
    "tools": "tools",
    "json_schema": "response_format",
    "multiple_choices": "n",
}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `/v1/models`."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "sluice"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """`/v1/models`, with the keys that Anthropic's clients look for too."""

    data: Sequence[Model]
    first_id: str | None
    last_id: str | None
    object: str = "list"
    has_more: bool = False


class Catalog:
    """The models, and what a request's headers may select."""

    def __init__(self, router: Router, started_at: int) -> None:
        """`started_at`, seconds since 1970, is what models claim as their creation: they have no other."""
        self._router = router
        self._created = started_at

    def models(self, key: Key) -> ModelList:
        """The models that the key's holder may use."""
        allowed = [
            b for b in self._router.backends() if key.scopes.backends is None or b in key.scopes.backends
        ]
        names = dict.fromkeys(m for backend in allowed for m in self._router.models(backend))
        data = [Model(id=name, created=self._created) for name in names]
        return ModelList(
            data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None
        )

    def model(self, name: str, key: Key) -> Model | Problem:
        """One of them."""
        found = next((m for m in self.models(key).data if m.id == name), None)
        return found or problem(Failure.MODEL_NOT_FOUND, f"The model '{name}' does not exist.", param="model")

    def facts(
        self, request_id: str, kind: Kind, body: BodyFacts, headers: dict[bytes, bytes], key: Key
    ) -> RequestFacts | Problem:
        """What the router has to know, from body, `X-Backend` and `X-Quant`."""
        quant, backend = _text(headers.get(b"x-quant")), _text(headers.get(b"x-backend"))
        if quant is not None and quant.lower() not in QUANTS:
            valid = ", ".join(QUANTS)
            text = f"X-Quant '{quant}' is not a quantization; valid ones are: {valid}."
            return problem(Failure.UNKNOWN_QUANT, text)
        refusal = self._refusal(backend, key)
        if refusal is not None:
            return refusal
        return RequestFacts(
            request_id=request_id,
            kind=kind,
            model=body.model,
            tenant=key.tenant,
            backend=backend,
            allowed_backends=key.scopes.backends,
            quant=quant.lower() if quant is not None else None,
            stream=body.stream,
            prompt_tokens_estimate=body.prompt_tokens_estimate,
            max_tokens=body.max_tokens,
            needs=body.needs,
        )

    def explain(self, facts: RequestFacts) -> Problem | None:
        """Why no engine could ever serve the request; `None` when one could, were it healthy."""
        found = self._router.mismatch(facts)
        if found is None:
            return None
        failure, param = _FIELDS[found.field]
        if found.field == "needs":
            param = _NEEDED_PARAM.get(found.valid[0])
        return problem(failure, found.message, param=param)

    def _refusal(self, backend: str | None, key: Key) -> Problem | None:
        """Why the key may not have what it asks for. A backend that does not exist is not its fault."""
        if key.scopes.backends is None or (backend is None and key.scopes.backends):
            return None
        if backend in key.scopes.backends or (backend is not None and backend not in self._router.backends()):
            return None
        names = ", ".join(sorted(key.scopes.backends)) or "none"
        return problem(
            Failure.BACKEND_NOT_ALLOWED,
            f"The key '{key.id}' may not use backend '{backend or 'any'}'; it may use: {names}.",
        )


def _text(value: bytes | None) -> str | None:
    """A header's value; headers are Latin-1."""
    return None if value is None else value.decode("latin-1")
