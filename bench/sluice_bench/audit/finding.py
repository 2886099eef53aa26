"""What an audit says: for each question a verdict and what it rests on."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["pass", "fail", "cannot tell"]

SCHEMA = 1


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One question about a server."""

    check: str
    verdict: Verdict
    evidence: str
    """What was seen, in a sentence or two, with the figures."""


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One audit of one server."""

    schema: int = SCHEMA
    command: str
    """As it was typed, keys and headers left out."""
    started_utc: str
    url: str
    model: str
    seed: int
    """Of the prompts, so that they can be asked again."""
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        """Whether something was found."""
        return any(finding.verdict == "fail" for finding in self.findings)
