"""What the limits are asked, and what they answer: reserve before the work, settle after it."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key
from sluice_gateway.wire import Header
from sluice_router.types import Usage


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's tokens cost, in money per million tokens."""

    input: float = 0.0
    cached_input: float | None = None
    """Prompt tokens that the engine had in its prefix cache; `None`: the same as `input`."""
    output: float = 0.0

    def cost(self, usage: Usage) -> float:
        """Money for one request."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = usage.prompt_tokens - usage.cached_tokens
        total = fresh * self.input + usage.cached_tokens * cached + usage.completion_tokens * self.output
        return total / 1e6


FREE = Price()


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is expected to cost."""

    model: str
    """As the client wrote it."""
    prompt_tokens: int
    """Estimated from the body's size."""
    max_tokens: int | None
    """The client's own bound on the output."""
    price: Price = FREE


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Money that the ledger knows of, in micro-units."""

    kind: Literal["key", "tenant", "model"]
    name: str
    day: int
    """UTC day, counted from 1970."""
    on_day: int
    in_month: int
    """From the first of that day's month."""


class Level(msgspec.Struct, frozen=True, gc=False):
    """One kind of limit per minute."""

    limit: int
    remaining: int
    reset_us: int
    """Until the bucket is full again."""


class RateState(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers say. Without a limit of a kind there are no headers of that kind."""

    at_us: int = 0
    """When, in microseconds since 1970."""
    requests: Level | None = None
    tokens: Level | None = None


NO_RATES = RateState()


class Lease(Protocol):
    """A reservation. It has to be settled exactly once."""

    @property
    def headers(self) -> tuple[Header, ...]:
        """`x-ratelimit-*` as they stand after the reservation: on every answer, refusals included."""
        ...

    @property
    def state(self) -> RateState:
        """The same as values, for other families' headers: `headers.rate_limit_headers(state, family)`."""
        ...


class Limiter(Protocol):
    """Decides whether one more request may start. All of a request's subjects in one decision."""

    async def reserve(self, key: Key, demand: Demand) -> Lease | Problem:
        """A lease, or the refusal: it names the limit that binds and carries `Retry-After` and the headers.

        May wait for a store, but never longer than the configured bound. Cancelled while it waits, it leaves
        nothing reserved.
        """
        ...

    def settle(self, lease: Lease, usage: Usage | None) -> None:
        """Give the lease back; never waits, so that it can be called from a `finally` of a cancelled task.

        `usage` is what was really used. `None` when the request used nothing: refused, failed, or never sent;
        then everything that was reserved comes back.
        """
        ...

    async def start(self) -> None:
        """Begin whatever runs in the background. Before the first `reserve`."""
        ...

    async def aclose(self) -> None:
        """Flush settlements and stop."""
        ...
