"""What is kept of a quality measurement: figures with their uncertainty, and what they are of."""

from __future__ import annotations

from typing import Literal

import msgspec

from sluice_bench.quality.divergence import Divergence
from sluice_bench.quality.greedy import Agreement
from sluice_bench.stats.estimate import Estimate

SCHEMA = 1


class BackendQuality(msgspec.Struct, frozen=True, kw_only=True):
    """One backend."""

    variant: str
    """In the user's word, so that a report can put it beside the speed of the same variant."""
    url: str
    model: str
    perplexity: Estimate
    """`n` counts windows."""
    bleu: Estimate | None = None
    """Of its answers against reference texts; `None` when none were given."""


class QualityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement, of one backend or of one beside a reference."""

    schema: int = SCHEMA
    command: str
    """As it was typed, keys and headers left out."""
    started_utc: str
    text: str
    text_sha256: str
    window: int
    """The most tokens of a window."""
    cut_by: Literal["tokens", "characters"]
    """Whether windows were cut by the server's tokenizer, or are pieces of text of about as many tokens."""
    windows: int
    scored_tokens: int
    backend: BackendQuality
    reference: BackendQuality | None = None
    divergence: Divergence | None = None
    """Of the backend from the reference."""
    agreement: Agreement | None = None
