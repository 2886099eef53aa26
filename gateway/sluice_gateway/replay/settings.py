"""The sections `idempotency` and `cache` of `sluice.yaml`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sluice_gateway.settings_base import Count, Seconds, Section


class IdempotencySettings(Section, frozen=True, kw_only=True):
    """A POST with the header `Idempotency-Key` is done once, however often it is sent."""

    ttl_s: Annotated[
        Seconds, Meta(description="How long an answer is kept to be replayed to the same key.")
    ] = 86_400.0
    max_bytes: Annotated[
        Count,
        Meta(
            description="Memory for kept answers, per process; those unused for longest go first. An answer"
            " larger than an eighth of it is passed on but not kept."
        ),
    ] = 33_554_432


class CacheSettings(Section, frozen=True, kw_only=True):
    """Exact response cache: the same bytes from the same tenant get the answer that they got before."""

    enabled: Annotated[
        bool,
        Meta(
            description="Applies to chat, completions, embeddings, messages, tokenize, detokenize, rerank and"
            " score, sampled answers too. A request opts out with `Cache-Control: no-store` or `no-cache`."
        ),
    ] = False
    ttl_s: Annotated[Seconds, Meta(description="How long an answer may be given again.")] = 3600.0
    max_bytes: Annotated[
        Count, Meta(description="Memory for kept answers, per process; as in *idempotency*.")
    ] = 67_108_864
