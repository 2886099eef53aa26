"""Options that several commands have, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.loops import MOST_WARM_CONNECTIONS
from sluice_bench.runs.measured_run import EXPECTED_TOKENS_PER_S
from sluice_bench.schedule_options import Arrival
from sluice_bench.workloads.corpus import SuiteName
from sluice_bench.workloads.presets import PresetName

Url = Annotated[str, typer.Option(help="Server, e.g. http://127.0.0.1:8000.")]
Model = Annotated[str | None, typer.Option(help="Model id; by default the first that /v1/models lists.")]
Concurrency = Annotated[
    int | None, typer.Option(min=1, help="Closed loop: so many requests are in flight at once.")
]
Rate = Annotated[
    float | None, typer.Option(help="Open loop: requests per second, sent on time whatever comes back.")
]
ArrivalKind = Annotated[Arrival, typer.Option(help="With --rate: how gaps are drawn.")]
GapVariation = Annotated[
    float | None,
    typer.Option(
        help="With --arrival gamma: standard deviation of the gaps over their mean; above 1 bursts."
    ),
]
Ramp = Annotated[
    str | None,
    typer.Option(help="Open loop: Poisson, the rate goes FROM:TO:SECONDS[:exponential] and stays there."),
]
Trace = Annotated[
    Path | None, typer.Option(help="Open loop: send at the times in this file, one a line, in seconds.")
]
Requests = Annotated[int, typer.Option(min=1, help="How many requests to send.")]
Suite = Annotated[
    SuiteName, typer.Option(help="What is asked; `tools` and `json` need a server that can do these.")
]
Preset = Annotated[
    PresetName | None,
    typer.Option(help="Instead of a suite: lengths, shared prefixes and arrivals like a published trace's."),
]
Fit = Annotated[
    int | None, typer.Option(help="Scale a preset's lengths down to a context of so many tokens.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Ask for plain answers instead of streams.")]
IgnoreEos = Annotated[
    bool, typer.Option("--ignore-eos", help="Fix the output length (vLLM's and Sluice's extension).")
]
ApiKey = Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="Sent as a bearer token.")]
Headers = Annotated[list[str] | None, typer.Option("--header", help="`Name: value`, may be repeated.")]
TtftMs = Annotated[float | None, typer.Option(help="Objective for goodput: TTFT.")]
TpotMs = Annotated[float | None, typer.Option(help="Objective for goodput: TPOT.")]
E2eMs = Annotated[float | None, typer.Option(help="Objective for goodput: E2E.")]
WarmConnections = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Connections opened before the clock starts, so that handshakes are in no latency; by "
        f"default what the load needs if answers come at {EXPECTED_TOKENS_PER_S:g} tokens/s, at most "
        f"{MOST_WARM_CONNECTIONS}.",
    ),
]
Sessions = Annotated[
    bool,
    typer.Option(
        "--sessions",
        help="With --concurrency: users hold conversations; a turn waits for the one before, and thinks.",
    ),
]
WarmUp = Annotated[
    int,
    typer.Option(min=0, help="Requests sent before the measured ones, under the same load; in no figure."),
]
Processes = Annotated[
    int, typer.Option(min=1, help="Client processes that the load is dealt out to, where one is too slow.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Start even if the client will hardly keep up with the load.")
]
TimeoutS = Annotated[float, typer.Option(help="Time limit of one request.")]
StopAfterS = Annotated[float, typer.Option(help="Hard stop of the whole run.")]
StopWhen = Annotated[
    str | None,
    typer.Option(
        help="End as soon as a figure is known to so much either way, e.g. ttft-p50:5%; --requests are then "
        "the most that are sent."
    ),
]
Seed = Annotated[int, typer.Option(help="Of prompts and arrivals: same seed, same bytes, same times.")]
PushUrl = Annotated[
    str | None,
    typer.Option("--push", help="Send the figures to a Prometheus push gateway, e.g. http://HOST:9091."),
]
Variant = Annotated[str, typer.Option(help="A word for what is measured, kept in the run file.")]
