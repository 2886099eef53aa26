"""The page that a long storm leaves: `docs/reports/gateway-torture.md`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence

from .tempest import TAKEN, VISITORS, Outcome
from .visits import ENDPOINTS

MIB = 1 << 20
_SHARES = (0.5, 0.9, 0.99)


def render(outcomes: Mapping[str, Outcome], command: str) -> str:
    """The whole page; `outcomes` by where the limits are kept."""
    parts = [
        "# The gateway under torture",
        "",
        f"`{command}` writes this page. {VISITORS} clients at a time on raw sockets, in one process with the"
        " engine, ask a gateway in another for everything that it serves:"
        f" {len(ENDPOINTS)} endpoints of the data plane, plain and in events, natively and over ASGI, and"
        " some of the control plane. A fifth leaves: while sending, at once, in the queue, while the"
        " gateway connects, before the first byte, amid the answer, after it; with a FIN, a RST, or"
        " half-closed."
        " The engine answers at once, late, in drops, not at all, with errors, with nonsense, or resets the"
        " connection. Keys, limits, budgets, prices, idempotency keys and the ledger are on. The key store is"
        " away all the time, first refusing connections, then silent; the key in use is known only from it.",
        "",
        f"Measured with Python {platform.python_version()} on {os.cpu_count()} CPUs"
        " that other programs used too.",
    ]
    for where, outcome in outcomes.items():
        parts += [
            "",
            f"## Limits in {where}",
            "",
            *_story(outcome),
            "",
            *_holdings(outcome),
            "",
            *_latency(outcome),
        ]
    return "\n".join(parts) + "\n"


def _story(outcome: Outcome) -> list[str]:
    plan, endings = outcome.plan, outcome.endings
    lines = [
        f"{plan.visits:,} requests after a warm-up of {plan.warm_up:,}, in {outcome.seconds:.0f} s"
        f" ({plan.visits / outcome.seconds:,.0f} a second, client and engine included)."
        f" {len(outcome.disappointments)} answers were not as they had to be.",
        "",
        "| how requests ended, warm-up included | count |",
        "|---|---|",
    ]
    return lines + [f"| {ending} | {count:,} |" for ending, count in endings.most_common()]


def _holdings(outcome: Outcome) -> list[str]:
    warm, cold = outcome.warm, outcome.cold
    names = (*TAKEN, "tasks", "descriptors")
    lines = ["| held | after the warm-up | after the storm |", "|---|---|---|"]
    lines += [f"| {name} | {warm[name]} | {cold[name]} |" for name in names]
    lines.append(f"| resident memory, MiB | {warm['rss'] / MIB:.1f} | {cold['rss'] / MIB:.1f} |")
    lines.append(f"| requests that the engine works on for nobody | | {outcome.still_running} |")
    most = list(outcome.grown().items())[:5]
    text = ", ".join(f"{name} +{count}" for name, count in most)
    return [
        *lines,
        "",
        f"Python objects of which there are more than after the warm-up, the five most: {text}.",
    ]


def _latency(outcome: Outcome) -> list[str]:
    lines = [
        "From the moment a client leaves until the engine's connection is closed, in milliseconds, one client"
        " at a time, over all endpoints:",
        "",
        "| phase | left | p50 | p90 | p99 | worst |",
        "|---|---|---|---|---|---|",
    ]
    for phase, found in outcome.latency_s.items():
        values = [*(_quantile(found, share) for share in _SHARES), max(found)]
        cells = " | ".join(f"{value * 1000:.2f}" for value in values)
        lines.append(f"| {phase} | {len(found)} | {cells} |")
    return lines


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
