"""What a key may use: one decision, made from values.

A scope that is absent allows everything, an empty one nothing. Model names may end in `*`: all names that
begin so. What the client did not ask for (no `X-Backend`, no `X-Quant`) is not refused here: the router then
chooses among what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key, Scopes
from sluice_gateway.routes import Kind


def refusal(
    key: Key, kind: Kind, model: str | None, backend: str | None, quant: str | None
) -> Problem | None:
    """Why the key may not have this; `None` when it may. `None` for a thing that was not asked for."""
    scopes = key.scopes
    if scopes.endpoints is not None and kind not in scopes.endpoints:
        return _refuse(Failure.ENDPOINT_NOT_ALLOWED, key, "endpoint", kind, scopes.endpoints)
    if model is not None and not allows_model(scopes, model):
        return _refuse(Failure.MODEL_NOT_ALLOWED, key, "model", model, scopes.models or (), "model")
    if scopes.backends is not None and not _within(backend, scopes.backends):
        return _refuse(Failure.BACKEND_NOT_ALLOWED, key, "backend", backend or "any", scopes.backends)
    if scopes.quants is not None and not _within(quant, scopes.quants):
        return _refuse(Failure.QUANT_NOT_ALLOWED, key, "quantization", quant or "any", scopes.quants)
    return None


def allows_model(scopes: Scopes, model: str) -> bool:
    """Whether a model may be used, and therefore listed."""
    if scopes.models is None or model in scopes.models:
        return True
    return any(pattern.endswith("*") and model.startswith(pattern[:-1]) for pattern in scopes.models)


def union(scopes: Iterable[Scopes]) -> Scopes:
    """What any of them allows."""
    several = list(scopes)
    return Scopes(
        models=_union(s.models for s in several),
        backends=_union(s.backends for s in several),
        quants=_union(s.quants for s in several),
        endpoints=_union(s.endpoints for s in several),
        admin=any(s.admin for s in several),
    )


def _union(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    together: frozenset[str] = frozenset()
    for one in sets:
        if one is None:
            return None
        together |= one
    return together


def _within(asked: str | None, allowed: frozenset[str]) -> bool:
    """With nothing asked for, one allowed value is enough."""
    return bool(allowed) if asked is None else asked in allowed


def _refuse(
    failure: Failure, key: Key, noun: str, asked: str, allowed: Iterable[str], param: str | None = None
) -> Problem:
    names = ", ".join(sorted(allowed)) or "none"
    text = f"The key '{key.id}' may not use {noun} '{asked}'; it may use: {names}."
    return problem(failure, text, param=param)
