"""Requests in another dialect than OpenAI's chat, opened: what the pipeline needs to serve them.

One line for each kind in `Dialects.open`. Kinds that are not there are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sluice_gateway.dialects.messages import facts as messages_facts
from sluice_gateway.dialects.messages.translation import translate, translate_count
from sluice_gateway.dialects.translation import Translation
from sluice_gateway.errors import Problem
from sluice_gateway.facts import BodyFacts
from sluice_gateway.identity import Key
from sluice_gateway.routes import Kind

TRANSLATED_TO: Mapping[str, Kind] = {
    "messages": "chat",
    "count_tokens": "tokenize",
    "responses": "chat",
}
"""What engines that do not speak a dialect are asked for instead."""


class Opened(Protocol):
    """One request."""

    @property
    def facts(self) -> BodyFacts:
        """The routing fields."""
        ...

    @property
    def detached(self) -> bool:
        """Its client does not wait for the answer: it is begun, and served as a request of its own."""
        ...

    def attempt(self, native: bool) -> Translation | Problem | None:
        """What one attempt does to the bytes; `None` passes them on. `native`: the engine speaks the dialect.

        A problem when the request cannot be said in chat completions.
        """
        ...

    async def conclude(self, found: Problem | None) -> None:
        """The answer is complete and about to leave, or failed for the reason given. Only the first call
        counts."""
        ...


class MessagesRequest:
    """A request of Anthropic's Messages API; nothing of it is kept."""

    def __init__(self, body: bytes, facts: BodyFacts) -> None:
        self._body = body
        self._facts = facts

    @property
    def facts(self) -> BodyFacts:
        """See `Opened`."""
        return self._facts

    @property
    def detached(self) -> bool:
        """See `Opened`."""
        return False

    def attempt(self, native: bool) -> Translation | Problem | None:
        """See `Opened`."""
        return None if native else translate(self._body)

    async def conclude(self, found: Problem | None) -> None:
        """See `Opened`."""


class CountTokensRequest(MessagesRequest):
    """A request to count tokens."""

    def attempt(self, native: bool) -> Translation | Problem | None:
        """See `Opened`."""
        return None if native else translate_count(self._body)


class ResponseOpener(Protocol):
    """Opens requests of the Responses API, which may continue stored ones."""

    async def open(self, body: bytes, key: Key) -> Opened | Problem:
        """A request, or what is wrong with it."""
        ...


class Dialects:
    """Opens requests."""

    def __init__(self, responses: ResponseOpener) -> None:
        self._responses = responses

    async def open(self, kind: Kind, body: bytes, key: Key) -> Opened | Problem:
        """A request of a kind in `TRANSLATED_TO`, or what is wrong with it."""
        if kind == "messages":
            facts = messages_facts.decode(body)
            return facts if isinstance(facts, Problem) else MessagesRequest(body, facts)
        if kind == "responses":
            return await self._responses.open(body, key)
        facts = messages_facts.decode_count(body)
        return facts if isinstance(facts, Problem) else CountTokensRequest(body, facts)
