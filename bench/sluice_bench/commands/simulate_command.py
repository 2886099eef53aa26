"""The command `sluice-bench simulate`: reads its options, shows progress, prints or writes the report."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from sluice_bench.terminal import fail
from sluice_bench.workloads.presets import PresetName

REPORTS = Path("docs/reports")
_NEEDED = (
    "Simulating needs the router and NumPy; from the root of Sluice's repository install them beside "
    "sluice-bench with: pip install -e router numpy"
)

Preset = Annotated[
    PresetName, typer.Option(help="Lengths, shared prefixes and arrivals: like a published trace's.")
]
Policies = Annotated[
    list[str] | None,
    typer.Option("--policy", help="Just this policy; may be repeated. `sluice` is the router's own."),
]
Loads = Annotated[
    list[float] | None,
    typer.Option("--load", help="Offered rate over the fleet's capacity; may be repeated. [default: 1]"),
]
Replicas = Annotated[int, typer.Option(min=1, help="Engines.")]
Gateways = Annotated[int, typer.Option(min=1, help="Gateways, each with a router of its own.")]
Seconds = Annotated[float, typer.Option(min=1, help="Of arrivals.")]
WarmUpS = Annotated[float, typer.Option(min=0, help="Of arrivals before them, at a load of 0.6 at most.")]
Seeds = Annotated[int, typer.Option(min=1, help="Repeats, each with another seed.")]
Shape = Annotated[str, typer.Option(help="Kind of engine.")]
ScrapeS = Annotated[
    float, typer.Option(min=0.01, help="Seconds between two readings of an engine's metrics.")
]
Obey = Annotated[
    float, typer.Option(min=0, max=1, help="Share of clients that wait as long as Retry-After says.")
]
Hammer = Annotated[float, typer.Option(min=0, max=1, help="Share of clients that ask again at once.")]
Tenants = Annotated[str, typer.Option(help="Shares of tenants in the requests, e.g. `50,1,1`.")]
Classes = Annotated[str, typer.Option(help="Shares of classes, e.g. `interactive=1,bulk=3`.")]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        help="KIND:SHARE@START+SECONDS, KIND death, stall, slow, metrics or sync: `death:0.1@30+20`.",
    ),
]
PatienceS = Annotated[float | None, typer.Option(min=0, help="Clients without a first token leave then.")]
DecisionLog = Annotated[
    Path | None,
    typer.Option(
        help="Simulate `sluice` once, at one load and with one gateway, and write here what its router is"
        " told and decides; `sluice replay-decisions` reads it."
    ),
]
Report = Annotated[bool, typer.Option("--report", help="All scenarios of the report, written to --output.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="A small fleet for some seconds; the figures mean nothing.")
]
Only = Annotated[
    list[str] | None, typer.Option(help="With --report: just this section, may be repeated; others are kept.")
]
Output = Annotated[Path, typer.Option(help="With --report: folder of router.md, its raw rows and its plots.")]
Calibrate = Annotated[
    Path | None,
    typer.Option(help="Fit the engine model to a run file of `sluice-bench run`, and print its errors."),
]
Against = Annotated[
    Path | None, typer.Option(help="With --calibrate: foretell this other run of the same server.")
]
MaxRunning = Annotated[
    int, typer.Option(min=1, help="With --calibrate: requests that fit in the server's batch.")
]
KvTokens = Annotated[
    int, typer.Option(min=16, help="With --calibrate: tokens that the server's KV cache holds.")
]


def simulate_command(
    preset: Preset = "b2b-prefix",
    policy: Policies = None,
    load: Loads = None,
    replicas: Replicas = 16,
    gateways: Gateways = 1,
    seconds: Seconds = 60.0,
    warm_up_s: WarmUpS = 60.0,
    seeds: Seeds = 3,
    shape: Shape = "h100-8b",
    scrape_s: ScrapeS = 1.0,
    obey: Obey = 0.0,
    hammer: Hammer = 0.0,
    tenants: Tenants = "1",
    classes: Classes = "interactive=1",
    fault: Faults = None,
    patience_s: PatienceS = None,
    decision_log: DecisionLog = None,
    report: Report = False,
    quick: Quick = False,
    only: Only = None,
    output: Output = REPORTS,
    calibrate: Calibrate = None,
    against: Against = None,
    max_running: MaxRunning = 64,
    kv_tokens: KvTokens = 1_000_000,
) -> None:
    """Run the router's own code, and other policies, in a simulated fleet of gateways and engines.

    Prints a table of policies; with --report writes docs/reports/router.md; with --calibrate fits the model
    of an engine to a recorded run (and with --report adds that to the page). Nothing is started and nothing
    is asked: it needs one core.
    """
    _prefer_compiled_router()
    try:
        from sluice_bench.commands import simulate_modes as modes
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("sluice_router", "numpy"):
            raise
        fail(_NEEDED, status=2)
    try:
        if calibrate is not None:
            modes.calibrate(calibrate, against, max_running, kv_tokens, output if report else None)
        elif report:
            modes.report(output, quick, tuple(only or ()), tuple(policy or ()), seeds, replicas, seconds)
        else:
            asked = modes.Asked(
                preset=preset,
                policies=tuple(policy or ()),
                loads=tuple(load or (1.0,)),
                replicas=replicas,
                gateways=gateways,
                seconds=seconds,
                warm_up_s=warm_up_s,
                seeds=seeds,
                shape=shape,
                scrape_s=scrape_s,
                obey=obey,
                hammer=hammer,
                tenants=tenants,
                classes=classes,
                faults=tuple(fault or ()),
                patience_s=patience_s,
            )
            modes.table(modes.small(asked) if quick else asked, decision_log)
    except ValueError as error:
        fail(f"{error}.")


def _prefer_compiled_router() -> None:
    """Have machine code of the router imported where some package in this environment has it: the gateway
    does once `sluice compile` has run. Decisions are the same, in half the time."""
    for point in entry_points(group="sluice.compiled"):
        point.load()()
