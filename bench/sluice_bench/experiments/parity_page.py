"""The page of the parity measurement."""

from __future__ import annotations

from sluice_bench.experiments.parity import LIMIT, TOOLS, Agreement, Lane, Parity, agreement
from sluice_bench.formatting import spread

_FIGURES = {
    "mean_ttft_ms": "TTFT, mean, ms",
    "median_ttft_ms": "TTFT, median, ms",
    "output_tokens_per_s": "output tokens/s",
    "mean_tpot_ms": "TPOT, mean, ms",
}
_BAR = ("mean_ttft_ms", "median_ttft_ms", "output_tokens_per_s")
_LANES: dict[Lane, str] = {
    "null": "the null server, which waits and then sends a token at a fixed pace",
    "worker": "the worker with {model}, which leaves a core to the client",
}


def lanes_of(parity: Parity) -> list[Lane]:
    """Those that were measured."""
    return [lane for lane in _LANES if any(row.lane == lane for row in parity.rows)]


def verdicts(parity: Parity) -> dict[tuple[Lane, str], Agreement]:
    """By lane and figure."""
    return {
        (lane, figure): agreement(parity.rows, lane, figure)
        for lane in lanes_of(parity)
        for figure in _FIGURES
    }


def agrees(parity: Parity) -> bool:
    """Whether TTFT and tokens/s are within the bar on every server."""
    return all(found.holds for (_, figure), found in verdicts(parity).items() if figure in _BAR)


def render_parity(parity: Parity, raw_name: str) -> str:
    """The Markdown page; `raw_name` is the file with the rows beside it."""
    env = parity.environment
    verdict = "agree" if agrees(parity) else "do **not** agree"
    parts = [
        "# Parity: the same server, two clients",
        f"`vllm bench serve` ({parity.peer}) and `sluice-bench` {verdict} on TTFT and output tokens/s within "
        f"{LIMIT:.0%}.",
        f"Measured {parity.measured_utc} with\n\n```\n{parity.command}\n```\n\non {env.cpu}, {env.cores} "
        f"cores, {env.system}, Python {env.python}, commit {env.commit}. Every repeat is a row in "
        f"[{raw_name}]({raw_name}); a figure is the median of its repeats, with the smallest and the largest "
        f"in brackets. Both ask the same {parity.requests} prompts for {parity.tokens} tokens each over "
        f"`/v1/completions`, {parity.concurrency} at a time, in turn; each repeat has other prompts.",
        *(section for lane in lanes_of(parity) for section in (f"## {lane}", _table(parity, lane))),
        _reading(parity),
    ]
    return "\n\n".join(parts) + "\n"


def _table(parity: Parity, lane: Lane) -> str:
    lines = [
        f"Against {_LANES[lane].format(model=parity.model)}.",
        "",
        "| by vLLM's definitions | sluice-bench | vllm bench serve | apart | within the bar |",
        "|---|--:|--:|--:|---|",
    ]
    for figure, name in _FIGURES.items():
        found = agreement(parity.rows, lane, figure)
        ours, theirs = (spread(_values(parity, lane, tool, figure)) for tool in TOOLS)
        bar = ("yes" if found.holds else "**no**") if figure in _BAR else "no bar"
        lines.append(f"| {name} | {ours} | {theirs} | {found.apart:+.1%} | {bar} |")
    return "\n".join(lines)


def _values(parity: Parity, lane: Lane, tool: str, figure: str) -> list[float]:
    rows = [row for row in parity.rows if (row.lane, row.tool) == (lane, tool)]
    return [value for row in rows if (value := getattr(row, figure)) is not None]


def _reading(parity: Parity) -> str:
    own = [
        f"- {lane}: TTFT, service {spread(_values(parity, lane, TOOLS[0], 'own_ttft_ms'))} ms, TPOT "
        f"{spread(_values(parity, lane, TOOLS[0], 'own_tpot_ms'))} ms"
        for lane in lanes_of(parity)
    ]
    return (
        "## The same runs in our words\n\nMedians over the requests of each repeat:\n\n"
        + "\n".join(own)
        + "\n\nWhat differs by definition ([measuring.md](../measuring.md#the-same-words-elsewhere)): vLLM's "
        "TTFT is that of the first event with a choice, be it a role without text, and counts from before "
        "the connection is opened; a finish event of its own is in its TPOT; its percentiles are "
        "interpolated; its tokens/s count from the first request's start to the last answer's end, ramp and "
        "drain included. What differs by client: vLLM's reads, decodes and stamps each event in Python while "
        "the load runs, so its stamps are later by what stands in its queue."
    )
