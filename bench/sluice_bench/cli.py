"""The command `sluice-bench`. Reads arguments, shows progress, prints; measures nothing itself."""

from __future__ import annotations

import datetime
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from sluice_bench import arrivals, ping, run_table
from sluice_bench.baseline import BUNDLED_MODEL, BaselineSettings, measure_baseline, number_of_steps
from sluice_bench.baseline_report import render_baseline
from sluice_bench.calibration import CalibratedRun, run_calibrated
from sluice_bench.gateway_bench import LANES, BenchSettings, GatewayBench, LaneName, run_bench
from sluice_bench.gateway_bench import number_of_steps as gateway_steps
from sluice_bench.gateway_report import figures_table, render_gateway
from sluice_bench.ladder_command import ladder_command
from sluice_bench.limits import QUICK_LIMITS, LimitsLoad, measure_limits
from sluice_bench.limits import number_of_steps as limits_steps
from sluice_bench.limits import table as limits_table
from sluice_bench.loops import MOST_WARM_CONNECTIONS, ClosedLoop, LoadPlan, OpenLoop, connections_needed
from sluice_bench.metrics import Objective, Summary, summarise
from sluice_bench.null_server import NullSettings, serve
from sluice_bench.peer_packages import DEFAULT_FOLDER
from sluice_bench.processes import ServerFailed, null_server_process
from sluice_bench.target import Target
from sluice_bench.terminal import command_line, console, fail, progress, steps, write_json
from sluice_bench.worker_command import worker_command
from sluice_bench.workload import SUITES, Asking, chat_requests

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=(
        "Measure any OpenAI-compatible server.\n\n"
        "Start with `sluice-bench ping http://127.0.0.1:8000`, then "
        "`sluice-bench run --url http://127.0.0.1:8000 --concurrency 4 --requests 40`. "
        "Every run measures its own client too, and says when its figures should not be believed."
    ),
)
EXPECTED_TOKENS_PER_S = 20.0
"""Of one stream, to know before a run how many requests will be in flight; a slower server needs more."""

Arrival = Literal["poisson", "constant"]
Suite = Literal["short", "long"]
Part = Literal["gateway", "worker"]


@app.command("run")
def run_command(
    url: Annotated[str, typer.Option(help="Server, e.g. http://127.0.0.1:8000.")],
    model: Annotated[
        str | None, typer.Option(help="Model id; by default the first that /v1/models lists.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Closed loop: so many requests are in flight at once.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Open loop: requests per second, sent on time whatever comes back.")
    ] = None,
    arrival: Annotated[Arrival, typer.Option(help="Open loop: how gaps are drawn.")] = "poisson",
    requests: Annotated[int, typer.Option(min=1, help="How many requests to send.")] = 40,
    suite: Annotated[Suite, typer.Option(help="Lengths of prompt and answer.")] = "short",
    plain: Annotated[bool, typer.Option("--plain", help="Ask for plain answers instead of streams.")] = False,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Fix the output length (vLLM's and Sluice's extension).")
    ] = False,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="Sent as a bearer token.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="`Name: value`, may be repeated.")] = None,
    ttft_ms: Annotated[float | None, typer.Option(help="Objective for goodput: TTFT.")] = None,
    tpot_ms: Annotated[float | None, typer.Option(help="Objective for goodput: TPOT.")] = None,
    e2e_ms: Annotated[float | None, typer.Option(help="Objective for goodput: E2E.")] = None,
    warm_connections: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Connections opened before the clock starts, so that handshakes are in no latency; by "
            f"default what the load needs if answers come at {EXPECTED_TOKENS_PER_S:g} tokens/s, at most "
            f"{MOST_WARM_CONNECTIONS}.",
        ),
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="Time limit of one request.")] = 300.0,
    stop_after_s: Annotated[float, typer.Option(help="Hard stop of the whole run.")] = 3600.0,
    seed: Annotated[
        int, typer.Option(help="Of prompts and arrivals: same seed, same bytes, same times.")
    ] = 1,
    output: Annotated[Path | None, typer.Option(help="Write summary and raw records here, as JSON.")] = None,
) -> None:
    """Load a server and report latency, throughput and goodput.

    Give `--concurrency` (users who wait for their answer) or `--rate` (users who do not). Ends with status 1
    when a request failed, 3 when the run is void because the client was too slow for it.
    """
    if (concurrency is None) == (rate is None):
        fail("Give either --concurrency N (closed loop) or --rate N (open loop).")
    target = _target(url)
    model = model or _first_model(target, api_key)
    asking = Asking(
        model=model,
        stream=not plain,
        api_key=api_key,
        ignore_eos=ignore_eos,
        headers=tuple(_header(text) for text in header or ()),
    )
    loop, shape = _loop(concurrency, rate, arrival, requests, seed), SUITES[suite]
    needed = connections_needed(loop, requests, shape.output_tokens / EXPECTED_TOKENS_PER_S)
    plan = LoadPlan(
        target=target,
        requests=chat_requests(target, shape, asking, requests, seed),
        loop=loop,
        warm_connections=needed if warm_connections is None else warm_connections,
        request_timeout_s=timeout_s,
        hard_stop_s=stop_after_s,
    )
    run = _run_with_null_server(plan)
    objective = Objective(ttft_ms=ttft_ms, tpot_ms=tpot_ms, e2e_ms=e2e_ms)
    _conclude(model, run, summarise(run.records, objective, concurrency or 1), output)


def _conclude(model: str, run: CalibratedRun, summary: Summary, output: Path | None) -> None:
    """Print, write, and end with the status that the run deserves."""
    _print_run(model, run, summary)
    if output is not None:
        write_json(output, {"summary": summary, "calibration": run.calibration, "records": run.records})
    if summary.failures:
        first = next(record for record in run.records if record.failure is not None)
        fail(f"First failure: request {first.index}, {first.failure}: {first.message}")
    if run.calibration.void:
        raise typer.Exit(3)


def _loop(
    concurrency: int | None, rate: float | None, arrival: Arrival, requests: int, seed: int
) -> ClosedLoop | OpenLoop:
    if rate is None:
        return ClosedLoop(concurrency or 1)
    try:
        constant = arrival == "constant"
        offsets = arrivals.constant(rate, requests) if constant else arrivals.poisson(rate, requests, seed)
    except ValueError as error:
        fail(f"{error}.")
    return OpenLoop(offsets)


def _run_with_null_server(plan: LoadPlan) -> CalibratedRun:
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as name,
        null_server_process(Path(name)) as null,
        progress("requests", len(plan.requests)) as show,
    ):
        try:
            return run_calibrated(plan, Target.parse(null.url), show)
        except OSError as error:
            fail(f"{plan.target.authority} cannot be reached: {error}.")


def _print_run(model: str, run: CalibratedRun, summary: Summary) -> None:
    console.print(f"[bold]{model}[/bold]")
    for line in run_table.summary_lines(summary):
        console.print(line)
    console.print(run_table.summary_table(summary))
    console.print(run_table.calibration_line(run.calibration))


@app.command("ping")
def ping_command(
    url: Annotated[str, typer.Argument(help="Server, e.g. http://127.0.0.1:8000.")],
    model: Annotated[
        str | None, typer.Option(help="Model id; by default the first that /v1/models lists.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="Sent as a bearer token.")
    ] = None,
) -> None:
    """Ask a server for its models, one plain and one streamed answer. Status 1 when one of them fails."""
    try:
        findings = ping.ping(_target(url), model, api_key)
    except ping.PingFailed as error:
        fail(str(error))
    for finding in findings:
        console.print(f"[green]ok[/green]  {finding}")


@app.command("baseline")
def baseline_command(
    output: Annotated[Path, typer.Option(help="The Markdown page; raw rows go beside it as .json.")] = Path(
        "docs/reports/baseline.md"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny counts, to see that it works; the figures mean nothing.")
    ] = False,
    only: Annotated[Part | None, typer.Option(help="Measure just one part.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Repeats of every measurement.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of every engine; by default all cores.")
    ] = None,
    bundled_model: Annotated[Path, typer.Option(help="Folder of the bundled model.")] = BUNDLED_MODEL,
) -> None:
    """Measure gateway overhead and worker throughput here, and write the report.

    Starts and ends every server itself. Takes some minutes and wants the machine for itself; how far it was
    disturbed is in the report. Needs gateway, worker, transformers and FastAPI installed beside it.
    """
    settings = BaselineSettings(
        quick=quick,
        gateway=only != "worker",
        worker=only != "gateway",
        bundled_model=bundled_model,
        repeats=repeats,
        threads=threads,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    with steps(number_of_steps(settings)) as on_step:
        try:
            baseline = measure_baseline(settings, command_line(), now, on_step)
        except ServerFailed as error:
            fail(str(error))
    raw = output.with_suffix(".json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render_baseline(baseline, raw.name), encoding="utf-8")
    write_json(raw, baseline)
    console.print(f"Wrote {output} and {raw}.")


@app.command("gateway")
def gateway_command(
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny counts, to see that it works; the figures mean nothing.")
    ] = False,
    only: Annotated[
        list[LaneName] | None, typer.Option(help="Measure just this lane, may be repeated; others are kept.")
    ] = None,
    output_dir: Annotated[Path, typer.Option(help="Where gateway.md and gateway.json are written.")] = Path(
        "docs/reports"
    ),
    peers: Annotated[
        bool, typer.Option(help="Install other projects' gateways and measure them too.")
    ] = True,
    peers_dir: Annotated[
        Path, typer.Option(help="Where each of them gets a virtual environment, made once.")
    ] = DEFAULT_FOLDER,
) -> None:
    """Measure the gateway against its bars and beside other gateways, and write the report.

    Starts and ends every server itself. Takes about ten minutes, the first time some more to install the
    peers, and wants the machine for itself; how far it was disturbed is in the report. Each lane is written
    as soon as it is done. Ends with status 1 when a lane could not be measured.
    """
    lanes = tuple(lane for lane in LANES if only is None or lane in only)
    settings = BenchSettings(
        command=command_line(), peers_folder=peers_dir, quick=quick, lanes=lanes, peers=peers
    )
    page, raw = output_dir / "gateway.md", output_dir / "gateway.json"

    def write(bench: GatewayBench) -> None:
        write_json(raw, bench)
        page.write_text(render_gateway(bench, raw.name), encoding="utf-8")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    with steps(gateway_steps(settings)) as on_step:
        bench = run_bench(settings, _earlier_bench(raw), on_step, write)
    console.print(figures_table(bench))
    console.print(f"Wrote {page} and {raw}.")
    if reasons := [f"{lane}: {bench.failed[lane]}" for lane in lanes if lane in bench.failed]:
        fail("\n".join(reasons))


def _earlier_bench(raw: Path) -> GatewayBench | None:
    """What an earlier run wrote; `None` when there is none, or it was another version's."""
    try:
        return msgspec.json.decode(raw.read_bytes(), type=GatewayBench)
    except (OSError, msgspec.DecodeError):
        return None


app.command("worker")(worker_command)


@app.command("limits")
def limits_command(
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny counts, to see that it works; the figures mean nothing.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write the rows here, as JSON.")] = None,
) -> None:
    """Measure what limits shared through Redis cost a request, while Redis is well and while it is frozen.

    Starts and ends every server itself; needs `redis-server`. Wants the machine for itself.
    """
    load = QUICK_LIMITS if quick else LimitsLoad()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then, too
    with (
        tempfile.TemporaryDirectory(prefix="sluice-bench-") as name,
        steps(limits_steps(load)) as on_step,
    ):
        try:
            rows = measure_limits(load, Path(name), on_step)
        except ServerFailed as error:
            fail(str(error))
    console.print(limits_table(rows), soft_wrap=True)
    if output is not None:
        write_json(output, rows)


app.command("ladder")(ladder_command)


@app.command("null-server")
def null_server_command(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 9000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    chunks: Annotated[int, typer.Option(min=1, help="Text events of a stream, one token each.")] = 100,
    pace_ms: Annotated[float, typer.Option(min=0, help="Between text events; 0: all in one write.")] = 0.0,
    first_ms: Annotated[float, typer.Option(min=0, help="Before the answer begins.")] = 0.0,
    json_bytes: Annotated[int, typer.Option(min=1, help="Length of a plain answer.")] = 1400,
    stamps: Annotated[
        bool, typer.Option("--stamps", help="The text of paced events is when each was due and sent, in ns.")
    ] = False,
) -> None:
    """Serve canned OpenAI answers at next to no cost: an upstream for measuring gateways."""
    settings = NullSettings(
        chunks=chunks, pace_ms=pace_ms, first_ms=first_ms, json_bytes=json_bytes, stamps=stamps
    )
    try:
        serve(settings, host, port, lambda bound: console.print(f"Null server on http://{host}:{bound}"))
    except OSError as error:
        fail(f"Cannot listen on {host}:{port}: {error}.")


# --- shared ----------------------------------------------------------------------------------------------


def _target(url: str) -> Target:
    try:
        return Target.parse(url)
    except ValueError as error:
        fail(f"{error}.")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        fail(f"{text!r} is not a header; write it as 'Name: value'.")
    return name.strip(), value.strip()


def _first_model(target: Target, api_key: str | None) -> str:
    try:
        return ping.models(target, api_key)[0]
    except ping.PingFailed as error:
        fail(str(error))


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
