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

    facts: BodyFacts

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
        self.facts = facts

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


class Dialects:
    """Opens requests."""

    async def open(self, kind: Kind, body: bytes, key: Key) -> Opened | Problem:
        """A request of a kind in `TRANSLATED_TO`, or what is wrong with it."""
        if kind == "messages":
            facts = messages_facts.decode(body)
            return facts if isinstance(facts, Problem) else MessagesRequest(body, facts)
        facts = messages_facts.decode_count(body)
        return facts if isinstance(facts, Problem) else CountTokensRequest(body, facts)
