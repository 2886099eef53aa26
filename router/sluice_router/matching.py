"""Which endpoints could serve a request: pure functions over values.

A request may go to an endpoint that matches its backend, kind, quantization, needs and model. An endpoint
without a model list accepts any model, but gives way to endpoints that name the one asked for, so that a
catch-all backend never answers in place of the real one. Health and room are no part of the match: a busy or
broken endpoint is still a candidate to wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from sluice_router.targets import targets
from sluice_router.types import Endpoint, RequestFacts


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """Why no configured endpoint can serve a request, whatever its health."""

    field: str
    """What to change in the request: `backend`, `kind`, `quant`, `needs` or `model`."""
    message: str
    """One sentence for the user, naming what would be accepted."""
    valid: tuple[str, ...]
    """Accepted values; for `needs`, the features to blame: those that no endpoint has, or all, when each is
    somewhere but nowhere together."""
    able: tuple[str, ...] = ()
    """For `kind` and `needs`, the backends, of those that the key may use, that could serve it."""


def serves_backend(endpoint: Endpoint, facts: RequestFacts) -> bool:
    """Whether the endpoint belongs to the backend asked for, if one was, and to those allowed."""
    if facts.allowed_backends is not None and endpoint.backend not in facts.allowed_backends:
        return False
    return facts.backend is None or endpoint.backend == facts.backend


def serves_kind(endpoint: Endpoint, facts: RequestFacts) -> bool:
    """Whether the endpoint has the API asked for, or the one that it can be translated to."""
    served = endpoint.capabilities.endpoints
    return facts.kind in served or facts.via in served


def serves_quant(endpoint: Endpoint, facts: RequestFacts) -> bool:
    """Whether the endpoint runs the quantization asked for, if one was, and one of those allowed."""
    if facts.allowed_quants is not None and endpoint.quant not in facts.allowed_quants:
        return False
    return facts.quant is None or endpoint.quant == facts.quant


def serves_needs(endpoint: Endpoint, facts: RequestFacts) -> bool:
    """Whether the endpoint has every optional feature the request uses."""
    return all(getattr(endpoint.capabilities, need) for need in facts.needs)


def serves_model(endpoint: Endpoint, facts: RequestFacts) -> bool:
    """Whether the endpoint names the model, or accepts any."""
    return not endpoint.models or facts.model in endpoint.models


RULES: tuple[tuple[str, Callable[[Endpoint, RequestFacts], bool]], ...] = (
    ("backend", serves_backend),
    ("model", serves_model),
    ("kind", serves_kind),
    ("quant", serves_quant),
    ("needs", serves_needs),
)
"""In the order in which a user would want to hear of a failure."""


def candidates(endpoints: Iterable[Endpoint], facts: RequestFacts) -> tuple[Endpoint, ...]:
    """Endpoints that may serve one target, in the given order; empty when none is configured for it."""
    matching = [e for e in endpoints if all(rule(e, facts) for _, rule in RULES)]
    naming = [e for e in matching if facts.model in e.models]
    return tuple(naming or matching)


def mismatch(endpoints: Iterable[Endpoint], facts: RequestFacts) -> Mismatch | None:
    """What to say when no target of the request has a candidate; `None` when one has.

    Of several targets the last, the least demanding one, tells why.
    """
    endpoints = tuple(endpoints)
    lacking = None
    for target in targets(facts):
        lacking = _first_mismatch(endpoints, target.facts)
        if lacking is None:
            return None
    lacking = lacking or _conflict(facts)
    if not facts.choices:
        return lacking
    message = f"No target of the alias '{facts.model}' can serve this. {lacking.message}"
    return msgspec.structs.replace(lacking, message=message)


def _conflict(facts: RequestFacts) -> Mismatch:
    """The headers ask for what none of an alias's choices is."""
    backends = unique(c.backend for c in facts.choices if c.backend)
    if facts.backend is not None and all(c.backend not in (None, facts.backend) for c in facts.choices):
        text = f"It is not on backend '{facts.backend}' but on: {', '.join(backends)}."
        return Mismatch(field="backend", message=text, valid=backends)
    quants = unique(c.quant for c in facts.choices if c.quant)
    text = f"It does not have quantization '{facts.quant}' but: {', '.join(quants)}."
    return Mismatch(field="quant", message=text, valid=quants)


def _first_mismatch(endpoints: Sequence[Endpoint], facts: RequestFacts) -> Mismatch | None:
    """The first rule that leaves no endpoint."""
    remaining = list(endpoints)
    for field, rule in RULES:
        kept = [e for e in remaining if rule(e, facts)]
        if not kept:
            able = _able(endpoints, facts) if field in ("kind", "needs") else ()
            return _describe(field, remaining, facts, able)
        remaining = kept
    return None


def _able(endpoints: Iterable[Endpoint], facts: RequestFacts) -> tuple[Endpoint, ...]:
    """Endpoints that the caller may use and that can do it; those that have the model, if any do."""
    anywhere = msgspec.structs.replace(facts, backend=None, quant=None)
    rules = (serves_backend, serves_quant, serves_kind, serves_needs)
    able = [e for e in endpoints if all(rule(e, anywhere) for rule in rules)]
    return tuple([e for e in able if serves_model(e, facts)] or able)


def _describe(
    field: str, remaining: Sequence[Endpoint], facts: RequestFacts, able: Sequence[Endpoint]
) -> Mismatch:
    where = f" on backend '{facts.backend}'" if facts.backend and field != "backend" else ""
    if field == "backend":
        valid = unique(e.backend for e in remaining)
        what = f"There is no backend '{facts.backend}'" if facts.backend else "The key may use no backend"
        message = f"{what}; valid ones are: {', '.join(valid)}."
    elif field == "model":
        valid = unique(model for e in remaining for model in e.models)
        message = f"The model '{facts.model}' is not served{where}; available: {', '.join(valid)}."
    elif field == "kind":
        valid = unique(kind for e in remaining for kind in sorted(e.capabilities.endpoints))
        message = (
            f"'{facts.kind}' is not offered{where} for model '{facts.model}'; offered: {', '.join(valid)}."
            f"{_pointer(able, facts)}"
        )
    elif field == "quant":
        valid = unique(e.quant for e in remaining)
        what = f"Quantization '{facts.quant}'" if facts.quant else "No quantization that the key may use"
        message = f"{what} is {'not ' if facts.quant else ''}served{where}; available: {', '.join(valid)}."
    else:
        valid = _lacking(remaining, facts)
        what = f"'{valid[0]}'" if len(valid) == 1 else f"all of {', '.join(valid)}"
        message = (
            f"No engine{where} for model '{facts.model}' supports {what}."
            f"{_pointer(able, facts) or ' Neither does any other backend.'}"
        )
    return Mismatch(field=field, message=message, valid=valid, able=unique(e.backend for e in able))


def _lacking(remaining: Sequence[Endpoint], facts: RequestFacts) -> tuple[str, ...]:
    """The features that nobody has; all of them when it is only that nobody has them together."""
    needs = sorted(facts.needs)
    nowhere = [n for n in needs if not any(getattr(e.capabilities, n) for e in remaining)]
    return tuple(nowhere or needs)


def _pointer(able: Sequence[Endpoint], facts: RequestFacts) -> str:
    """Where to go instead, as a further sentence; empty when there is nowhere."""
    if not able:
        return ""
    names = ", ".join(unique(e.backend for e in able))
    if any(serves_model(e, facts) for e in able):
        return f" Backends that can: {names}."
    models = ", ".join(unique(model for e in able for model in e.models))
    return f" Backends that can, with other models ({models}): {names}."


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """The values without repetitions, in the order of first appearance."""
    return tuple(dict.fromkeys(values))
