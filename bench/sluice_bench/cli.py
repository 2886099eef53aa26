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

from sluice_bench import ping
from sluice_bench.baseline import BUNDLED_MODEL, BaselineSettings, measure_baseline, number_of_steps
from sluice_bench.baseline_report import render_baseline
from sluice_bench.commands.ab_command import ab_command
from sluice_bench.commands.audit_command import audit_command
from sluice_bench.commands.client_cost_command import client_cost_command
from sluice_bench.commands.convert_command import convert_command
from sluice_bench.commands.experiment_command import experiment_command
from sluice_bench.commands.mode_commands import (
    compare_command,
    http_command,
    local_command,
    speculative_command,
)
from sluice_bench.commands.parity_command import parity_command
from sluice_bench.commands.prompts_command import prompts_command
from sluice_bench.commands.quality_command import quality_command
from sluice_bench.commands.rehearse_command import rehearse_command
from sluice_bench.commands.report_command import report_command
from sluice_bench.commands.run_command import run_command
from sluice_bench.commands.scrape_cost_command import scrape_cost_command
from sluice_bench.commands.search_command import search_command
from sluice_bench.commands.server_address import target_of
from sluice_bench.commands.simulate_command import simulate_command
from sluice_bench.commands.verify_command import verify_command
from sluice_bench.gateway_bench import LANES, BenchSettings, GatewayBench, LaneName, run_bench
from sluice_bench.gateway_bench import number_of_steps as gateway_steps
from sluice_bench.gateway_report import figures_table, render_gateway
from sluice_bench.limits import QUICK_LIMITS, LimitsLoad, measure_limits
from sluice_bench.limits import number_of_steps as limits_steps
from sluice_bench.limits import table as limits_table
from sluice_bench.null_server import NullSettings, serve, stall_line
from sluice_bench.peer_packages import DEFAULT_FOLDER
from sluice_bench.processes import ServerFailed
from sluice_bench.terminal import command_line, console, fail, steps, write_json
from sluice_bench.worker_command import worker_command

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
Part = Literal["gateway", "worker"]


app.command("run")(run_command)


@app.command("ping")
def ping_command(
    url: Annotated[str, typer.Argument(help="Server, e.g. http://127.0.0.1:8000.")],
    model: Annotated[
        str | None, typer.Option(help="Model id; by default the first that /v1/models lists.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="Sent as a bearer token.")
    ] = None,
    ping_only: Annotated[
        bool, typer.Option("--ping-only", help="Ask for the models and no answer: nothing is generated.")
    ] = False,
) -> None:
    """Ask a server for its models, one plain and one streamed answer. Status 1 when one of them fails."""
    try:
        findings = ping.ping(target_of(url), model, api_key, generate=not ping_only)
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


app.command("client-cost")(client_cost_command)
app.command("audit")(audit_command)
app.command("convert")(convert_command)
app.command("ab")(ab_command)
app.command("search")(search_command)
app.command("parity")(parity_command)
app.command("experiment")(experiment_command)
app.command("local")(local_command)
app.command("http")(http_command)
app.command("compare")(compare_command)
app.command("speculative")(speculative_command)
app.command("prompts")(prompts_command)
app.command("quality")(quality_command)
app.command("report")(report_command)
app.command("scrape-cost")(scrape_cost_command)
app.command("simulate")(simulate_command)
app.command("verify")(verify_command)
app.command("rehearse")(rehearse_command)


@app.command("null-server")
def null_server_command(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 9000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    chunks: Annotated[int, typer.Option(min=1, help="Text events of a stream, one token each.")] = 100,
    pace_ms: Annotated[float, typer.Option(min=0, help="Between text events; 0: all in one write.")] = 0.0,
    first_ms: Annotated[float, typer.Option(min=0, help="Before the answer begins.")] = 0.0,
    json_bytes: Annotated[int, typer.Option(min=1, help="Length of a plain answer.")] = 1400,
    capacity: Annotated[
        int | None, typer.Option(min=1, help="Answers in progress at once; further requests wait.")
    ] = None,
    stamps: Annotated[
        bool, typer.Option("--stamps", help="The text of paced events is when each was due and sent, in ns.")
    ] = False,
    stall_at_s: Annotated[
        float, typer.Option(min=0, help="With --stall-s: so long after the first request.")
    ] = 1.0,
    stall_s: Annotated[
        float, typer.Option(min=0, help="Stand still once for so long, as a server in trouble does.")
    ] = 0.0,
) -> None:
    """Serve canned OpenAI answers at next to no cost: an upstream for measuring gateways."""
    settings = NullSettings(
        chunks=chunks,
        pace_ms=pace_ms,
        first_ms=first_ms,
        json_bytes=json_bytes,
        capacity=capacity,
        stamps=stamps,
        stall_at_s=stall_at_s,
        stall_s=stall_s,
    )
    try:
        serve(
            settings,
            host,
            port,
            on_ready=lambda bound: console.print(f"Null server on http://{host}:{bound}"),
            on_stall=lambda start, end: console.print(stall_line(start, end)),
        )
    except OSError as error:
        fail(f"Cannot listen on {host}:{port}: {error}.")


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
