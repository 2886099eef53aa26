"""`limits.lua`, and how it is called.

The version is part of every key, so that during a rolling update two layouts never meet. All keys of a
deployment carry one hash tag: a decision spans a key, its tenant and a model that all tenants share, so no
narrower tag could keep one script's keys in one slot of a Redis Cluster. One shard therefore serves all
limits of a deployment; deployments are told apart by their prefix.

Invariant: the text's digest is the one written here. Whoever changes the text raises the version with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1, sha256
from pathlib import Path

VERSION = 1
TEXT_SHA256 = "c9e0ac179c7ccc6080e1cbac2b12720ff8385a35bf92b177a86d37bb80a06242"
"""Of the text that this version means."""

Argument = str | bytes | int


class LimitsScript:
    """The script, with the commands that run it."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text if text is not None else Path(__file__).with_name("limits.lua").read_text("utf-8")
        self._sha1 = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return sha256(self.text.encode()).hexdigest()

    def evalsha(
        self, operation: str, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> tuple[Argument, ...]:
        """The short form, for a server that has the script."""
        return ("EVALSHA", self._sha1, len(keys), *keys, operation, *arguments)

    def eval(self, short: tuple[Argument, ...]) -> tuple[Argument, ...]:
        """The same call with the whole text, which also loads it."""
        return ("EVAL", self.text, *short[2:])


class KeyNames:
    """Names of all keys under a prefix."""

    def __init__(self, prefix: str) -> None:
        self._base = f"{{{prefix}}}:limits:{VERSION}:"
        self.members = self._base + "members"
        """Sorted set of the processes that enforce these limits."""

    def subject(self, kind: str, name: str) -> tuple[str, str]:
        """A subject's hash, and its leases."""
        key = f"{self._base}{kind}:{name}"
        return key, key + ":leases"

    def marker(self, caller: str) -> str:
        """The number of the last batch that was applied for a process."""
        return f"{self._base}applied:{caller}"
