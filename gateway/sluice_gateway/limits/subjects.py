"""Which subjects bind a request (its key, the key's tenant, the model), with which bounds.

What a key or tenant does not bound itself, the configuration's defaults do. A subject without any bound is
left out, so that a request without limits costs nothing. Names of models come from the configuration, never
from a client: the number of subjects is bounded by what exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from sluice_gateway.identity import Key, LimitValues
from sluice_gateway.limits.bounds import Bounds, bounds_of
from sluice_gateway.limits.settings import Limits

Kind = Literal["key", "tenant", "model"]
Keep = frozenset[str]
"""Names of the fields of `LimitValues` that are enforced."""

EVERY_FIELD: Keep = frozenset(LimitValues.__struct_fields__)


class Subject(msgspec.Struct, frozen=True):
    """Whom or what a limit is for."""

    kind: Kind
    name: str
    values: LimitValues
    """As configured, defaults filled in."""
    bounds: Bounds
    """As enforced: a share of the values, or some of them."""

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.kind} '{self.name}'"


class Policy:
    """The configured limits, ready to be asked."""

    def __init__(self, limits: Limits, keep: Keep = EVERY_FIELD, share: int = 1) -> None:
        """Only the fields in `keep` are enforced, and of them the part of one in `share` processes."""
        self._keep = keep
        self._share = share
        self._per_key = limits.per_key.values()
        self._per_tenant = limits.per_tenant.values()
        self._models = self._model_subjects(limits)

    @property
    def models(self) -> Mapping[str, Subject]:
        """Models that have limits."""
        return self._models

    def of(self, key: Key) -> tuple[Subject, ...]:
        """The bound ones of a key and its tenant."""
        found = (
            self._subject("key", key.id, _filled(key.limits, self._per_key)),
            self._subject("tenant", key.tenant, _filled(key.tenant_limits, self._per_tenant)),
        )
        return tuple(subject for subject in found if subject is not None)

    def _model_subjects(self, limits: Limits) -> dict[str, Subject]:
        found = ((name, self._subject("model", name, own.values())) for name, own in limits.models.items())
        return {name: subject for name, subject in found if subject is not None}

    def _subject(self, kind: Kind, name: str, values: LimitValues) -> Subject | None:
        enforced = {field: getattr(values, field) for field in self._keep}
        bounds = bounds_of(LimitValues(**enforced), self._share)
        return None if bounds is None else Subject(kind, name, values, bounds)


def _filled(own: LimitValues, defaults: LimitValues) -> LimitValues:
    """A subject's own bounds, and the defaults where it has none."""
    if defaults == LimitValues():
        return own
    chosen = {
        field: getattr(defaults, field) if getattr(own, field) is None else getattr(own, field)
        for field in LimitValues.__struct_fields__
    }
    return LimitValues(**chosen)
