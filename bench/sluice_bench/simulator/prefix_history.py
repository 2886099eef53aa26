"""What a balancer believes each replica's prefix cache to hold, from its own placements alone.

A replica's part forgets what was placed least recently once it has been given more tokens than its KV cache
holds: the rule of the approximate indexes of llm-d and of SMG's trees, without their constants.
"""

from __future__ import annotations

from collections import OrderedDict


class PrefixHistory:
    """Tokens of streams, by replica."""

    def __init__(self, replicas: int, tokens_each: int) -> None:
        self._limit = tokens_each
        self._recent: list[OrderedDict[int, int]] = [OrderedDict() for _ in range(replicas)]
        self.tokens = [0] * replicas
        """What each is believed to hold."""
        self._holders: dict[int, dict[int, int]] = {}
        self._others = 0

    def matches(self, stream: int, shared: int) -> dict[int, int]:
        """Tokens of a prompt that replicas are believed to have; those that have none are left out."""
        return {replica: min(tokens, shared) for replica, tokens in self._holders.get(stream, {}).items()}

    def place(self, replica: int, stream: int, shared: int, prompt: int) -> None:
        """A prompt was sent there, of which `shared` tokens are the stream's."""
        if shared:
            self._remember(replica, stream, shared)
        if prompt > shared:
            self._others -= 1
            self._remember(replica, self._others, prompt - shared)
        self._forget(replica)

    def _remember(self, replica: int, key: int, tokens: int) -> None:
        recent = self._recent[replica]
        before = recent.pop(key, 0)
        after = recent[key] = max(before, tokens)
        self.tokens[replica] += after - before
        if key >= 0:
            self._holders.setdefault(key, {})[replica] = after

    def _forget(self, replica: int) -> None:
        recent = self._recent[replica]
        while self.tokens[replica] > self._limit:
            key, tokens = recent.popitem(last=False)
            self.tokens[replica] -= tokens
            if key >= 0:
                holders = self._holders[key]
                del holders[replica]
                if not holders:
                    del self._holders[key]

    def drop(self, replica: int) -> None:
        """It has died, and its cache with it."""
        for key in self._recent[replica]:
            if key >= 0:
                self._holders[key].pop(replica, None)
        self._recent[replica] = OrderedDict()
        self.tokens[replica] = 0
