"""The sections `limits`, `redis` and `prices` of `sluice.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sluice_gateway.identity import LimitValues
from sluice_gateway.limits.types import Price
from sluice_gateway.settings_base import Count, Section

Mode = Literal["local", "open", "closed"]
Money = Annotated[float, Meta(gt=0)]
PerMillion = Annotated[float, Meta(ge=0)]


class Bounded(Section, frozen=True, kw_only=True):
    """Bounds of one subject, all of them optional: what is absent is not bounded."""

    requests_per_min: Annotated[
        Count | None, Meta(description="Requests a minute. A whole minute's worth may come at once.")
    ] = None
    tokens_per_min: Annotated[
        Count | None,
        Meta(
            description="Prompt and completion tokens a minute. Estimated when a request comes, put right"
            " when it ends."
        ),
    ] = None
    concurrent: Annotated[
        Count | None, Meta(description="Requests in the gateway at once, waiting ones included.")
    ] = None
    budget_per_day: Annotated[
        Money | None,
        Meta(description="Money from midnight to midnight UTC, in the currency of `prices`."),
    ] = None
    budget_per_month: Annotated[Money | None, Meta(description="The same from the first of a month.")] = None

    def values(self) -> LimitValues:
        """The same as a plain value."""
        return LimitValues(**msgspec.structs.asdict(self))


class RedisDown(Section, frozen=True, kw_only=True):
    """What holds while Redis cannot be asked. `local`: each process enforces its share of the limit, by the
    number of processes last known. `open`: no limit. `closed`: requests that the limit applies to get 503."""

    requests: Annotated[Mode, Meta(description="For requests per minute.")] = "local"
    tokens: Annotated[Mode, Meta(description="For tokens per minute.")] = "local"
    concurrent: Annotated[Mode, Meta(description="For concurrent requests.")] = "local"
    budget: Annotated[
        Mode,
        Meta(description="For money. A local share is a share of the whole budget, not of what is left."),
    ] = "closed"


class Limits(Section, frozen=True, kw_only=True):
    """How much may be used, and by whom. All of a request's limits are checked in one decision; a request
    over one of them gets 429 with Retry-After and the limit's name."""

    max_concurrent: Annotated[
        Count,
        Meta(description="Requests in one gateway process at once, waiting ones included, over all keys."),
    ] = 1024
    per_key: Annotated[
        Bounded, Meta(description="For each key, where it has no bound of its own; see *per_key* below.")
    ] = Bounded()
    per_tenant: Annotated[
        Bounded,
        Meta(description="For each tenant, where it has no bound of its own; all of its keys together."),
    ] = Bounded()
    models: Annotated[
        dict[str, Bounded], Meta(description="For a model, by the name that clients use, over all callers.")
    ] = msgspec.field(default_factory=dict)
    default_output_tokens: Annotated[
        Count,
        Meta(
            description="Reserved for a request that does not bound its output. What it uses beyond that is"
            " counted when it ends; only a request with `max_tokens` is sure not to pass a budget."
        ),
    ] = 1024
    when_redis_is_down: Annotated[RedisDown, Meta(description="See *when_redis_is_down* below.")] = (
        RedisDown()
    )


class Redis(Section, frozen=True, kw_only=True):
    """Where several processes share their limits. Without this section each process has its own."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^(rediss?://[^/]|unix:///)\S*$",
            description="`redis://[user@]host:port/db`, `rediss://` with TLS, or `unix:///path.sock`.",
        ),
    ] = "redis://127.0.0.1:6379/0"
    password_env: Annotated[
        str | None, Meta(description="Name of the environment variable that holds the password.")
    ] = None
    timeout_ms: Annotated[
        Count,
        Meta(
            description="An answer that takes longer counts as none: limits then hold as *when_redis_is_down*"
            " says, and nobody waits for Redis until it is back."
        ),
    ] = 100
    prefix: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]{1,64}$",
            description="Of all keys, and their hash tag: a Redis Cluster keeps one deployment's limits on"
            " one shard. Deployments that share a Redis take different ones.",
        ),
    ] = "sluice"


class ModelPrice(Section, frozen=True, kw_only=True):
    """What a model's tokens cost, in money per million tokens."""

    input: Annotated[PerMillion, Meta(description="Prompt tokens.")] = 0.0
    cached_input: Annotated[
        PerMillion | None,
        Meta(description="Prompt tokens that the engine had in its prefix cache. Absent: as `input`."),
    ] = None
    output: Annotated[PerMillion, Meta(description="Completion tokens.")] = 0.0


class Prices(Section, frozen=True, kw_only=True):
    """What requests cost. A model without a price is free."""

    currency: Annotated[str, Meta(description="Of prices and budgets; only shown, never converted.")] = "USD"
    models: Annotated[
        dict[str, ModelPrice],
        Meta(description="Prices by model, by the name that clients use: `input`, `cached_input`, `output`."),
    ] = msgspec.field(default_factory=dict)

    def table(self) -> dict[str, Price]:
        """The prices by model."""
        return {model: Price(**msgspec.structs.asdict(price)) for model, price in self.models.items()}
