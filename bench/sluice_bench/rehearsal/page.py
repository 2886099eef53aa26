"""The page of a rehearsal: how, when and where it was played, and what every scene promised and showed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from sluice_bench.environment import Environment
from sluice_bench.rehearsal.finding import Finding, lines


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What is written beside the page, as JSON."""

    command: str
    played_at: str
    environment: Environment
    compiled: bool
    """Whether the gateway ran its request path compiled."""
    findings: Sequence[Finding]

    def broken(self) -> int:
        """Things that were not as they had to be, of all scenes."""
        return sum(len(finding.broken()) for finding in self.findings)


def render(rehearsal: Rehearsal, data_name: str) -> str:
    """Markdown; `data_name` is that of the file with the same as JSON."""
    return "\n".join([*_head(rehearsal, data_name), *_verdicts(rehearsal.findings), *_scenes(rehearsal)])


def _head(rehearsal: Rehearsal, data_name: str) -> Iterator[str]:
    machine = rehearsal.environment
    served = "its request path compiled" if rehearsal.compiled else "run from its Python sources"
    yield "# Rehearsal: what the router promises, with real processes"
    yield ""
    yield "Played with"
    yield ""
    yield f"```\n{rehearsal.command}\n```"
    yield ""
    yield (
        f"on {rehearsal.played_at} at commit `{machine.commit}`: {machine.cpu}, {machine.cores} cores, "
        f"{machine.memory_gib:.0f} GiB, {machine.system}, Python {machine.python}; load average before it "
        f"{machine.load_average:.2f}. The same as data: [{data_name}]({data_name})."
    )
    yield ""
    yield (
        "Two workers with the bundled model and one thread each, and before them a gateway with three "
        f"tenants, {served}; all of it on this machine, the clients too. Figures are what they measured, and "
        "say whether promises were kept, not how fast Sluice is: everything shares the cores, and the slow "
        "worker is slow by being stopped for nine tenths of the time. More: "
        "[router.md](../router.md#see-it-yourself)."
    )
    yield ""


def _verdicts(findings: Sequence[Finding]) -> Iterator[str]:
    yield "| scene | promised | kept? |"
    yield "|---|---|---|"
    for finding in findings:
        yield f"| {finding.title} | {finding.promise} | {'yes' if finding.good else '**no**'} |"
    yield ""


def _scenes(rehearsal: Rehearsal) -> Iterator[str]:
    for finding in rehearsal.findings:
        yield from lines(finding)
