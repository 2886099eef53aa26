"""One request of a workload, and a workload: what is asked, without a word about the server that is asked.

An item's body holds no model, no stream flag and no sampling options: those say how a server is asked and are
added when requests are prepared for one (`prepared.py`). A workload's digest covers every byte of its items,
so two runs with the same digest asked for the same work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

Endpoint = Literal["chat", "completions", "embeddings"]
Capability = Literal["tools", "json_schema", "embeddings"]
"""What a server must be able to do beyond plain generation."""


class WorkloadItem(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Items are in the order in which they are to be sent."""

    id: str
    """Unique in its workload; its beginning names the entry of the corpus: `short-0017`."""
    endpoint: Endpoint
    body: Mapping[str, Any]
    """The JSON body without model, streaming and sampling fields. Earlier answers of a conversation in it are
    written in the corpus, never what a server said, so that every server reads the same text."""
    max_tokens: int
    min_tokens: int | None = None
    after: str | None = None
    """The id of the turn before, earlier in the workload; this one is due `think_ns` after its end."""
    think_ns: int = 0
    needs: frozenset[Capability] = frozenset()


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A named list of items and its digest."""

    name: str
    items: tuple[WorkloadItem, ...]
    sha256: str

    @classmethod
    def of(cls, name: str, items: Iterable[WorkloadItem]) -> Workload:
        """With the digest of `items`; the name is not in it."""
        kept = tuple(items)
        return cls(name=name, items=kept, sha256=digest(kept))

    @property
    def needs(self) -> frozenset[Capability]:
        """Everything that some item needs."""
        return frozenset().union(*(item.needs for item in self.items))


def digest(items: Iterable[WorkloadItem]) -> str:
    """SHA-256 of the items as JSON: UTF-8, no blanks, fields and keys in their own order, `needs` sorted."""
    kept = [msgspec.structs.asdict(item) | {"needs": sorted(item.needs)} for item in items]
    return hashlib.sha256(msgspec.json.encode(kept)).hexdigest()
