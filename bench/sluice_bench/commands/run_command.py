"""The command `sluice-bench run`: one load on one server, its figures, and its record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sluice_bench import run_table
from sluice_bench.commands import run_options as options
from sluice_bench.commands.measuring import measure_here
from sluice_bench.commands.server_address import first_model, header_of, target_of
from sluice_bench.metrics import Objective
from sluice_bench.omission_warning import omission_line
from sluice_bench.recording.run_record import RunRecord
from sluice_bench.reports.csv_table import csv_text
from sluice_bench.run_load import LoadOptions, RunLoad, choose_load
from sluice_bench.runs.measured_run import RunSettings
from sluice_bench.runs.run_estimates import estimate_run
from sluice_bench.runs.stopping import StopRule
from sluice_bench.schedule_options import ScheduleOptions
from sluice_bench.terminal import command_line, console, fail, write_json
from sluice_bench.workload import Asking
from sluice_bench.workloads.corpus import CorpusError


def run_command(
    url: options.Url,
    model: options.Model = None,
    concurrency: options.Concurrency = None,
    rate: options.Rate = None,
    arrival: options.ArrivalKind = "poisson",
    cv: options.GapVariation = None,
    ramp: options.Ramp = None,
    trace: options.Trace = None,
    requests: options.Requests = 40,
    suite: options.Suite = "short",
    preset: options.Preset = None,
    fit: options.Fit = None,
    plain: options.Plain = False,
    ignore_eos: options.IgnoreEos = False,
    api_key: options.ApiKey = None,
    headers: options.Headers = None,
    ttft_ms: options.TtftMs = None,
    tpot_ms: options.TpotMs = None,
    e2e_ms: options.E2eMs = None,
    sessions: options.Sessions = False,
    warm_up: options.WarmUp = 0,
    warm_connections: options.WarmConnections = None,
    processes: options.Processes = 1,
    force: options.Force = False,
    timeout_s: options.TimeoutS = 300.0,
    stop_after_s: options.StopAfterS = 3600.0,
    stop_when: options.StopWhen = None,
    seed: options.Seed = 1,
    variant: options.Variant = "",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the run here: FILE.parquet for `verify` and `report`, FILE.csv one row a request, "
            "else summary and records as JSON."
        ),
    ] = None,
    push: options.PushUrl = None,
) -> None:
    """Load a server and report latency, throughput and goodput.

    Give `--concurrency` (users who wait for their answer), or one of `--rate`, `--ramp` and `--trace` (users
    who do not), or a `--preset`, which has arrivals of its own. Ends with status 1 when a request failed, 3
    when the run is void because the client was too slow for it.
    """
    if sessions and concurrency is None:
        fail("--sessions are those of users: say how many with --concurrency N.")
    target = target_of(url)
    load = load_of(
        LoadOptions(
            requests=requests,
            seed=seed,
            concurrency=concurrency,
            arrivals=ScheduleOptions(rate=rate, arrival=arrival, cv=cv, ramp=ramp, trace=trace),
            suite=suite,
            preset=preset,
            fit=fit,
            warm_up=warm_up,
        )
    )
    asking = Asking(
        model=model or first_model(target, api_key),
        stream=not plain,
        api_key=api_key,
        ignore_eos=ignore_eos,
        headers=tuple(header_of(text) for text in headers or ()),
    )
    settings = RunSettings(
        target=target,
        asking=asking,
        load=load,
        concurrency=concurrency,
        sessions=sessions,
        processes=processes,
        objective=Objective(ttft_ms=ttft_ms, tpot_ms=tpot_ms, e2e_ms=e2e_ms),
        seed=seed,
        warm_connections=warm_connections,
        request_timeout_s=timeout_s,
        hard_stop_s=stop_after_s,
        stop_when=stop_rule_of(stop_when, one_client=processes == 1 and not sessions),
        variant=variant,
        command=without_secrets(command_line(), api_key, headers or (), push),
    )
    for line in load.lines():
        console.print(line, soft_wrap=True, highlight=False)
    run = measure_here(settings, force=force)
    _print_run(run)
    if output is not None:
        try:
            _write(run, output)
        except OSError as error:
            fail(f"{output} cannot be written: {error}.")
    if push is not None:
        _push(run, push)
    _conclude(run)


def load_of(chosen: LoadOptions) -> RunLoad:
    """What is asked, and when; ends the command when the options contradict each other."""
    try:
        return choose_load(chosen)
    except (OSError, ValueError, CorpusError) as error:
        fail(f"{str(error)[:1].upper()}{str(error)[1:]}.")


def stop_rule_of(text: str | None, *, one_client: bool) -> StopRule | None:
    """When to end early; ends the command when that is no rule, or cannot be followed."""
    if text is not None and not one_client:
        fail("--stop-when needs requests that are sent in order: leave out --processes and --sessions.")
    try:
        return None if text is None else StopRule.parse(text)
    except ValueError as error:
        fail(f"--stop-when FIGURE:SHARE: {error}.")


def without_secrets(
    command: str, api_key: str | None, headers: Sequence[str], push_url: str | None = None
) -> str:
    """The command line for others to read."""
    credentials = (push_url or "").partition("://")[2].rpartition("@")[0]
    for secret in (api_key, *(text.partition(":")[2].strip() for text in headers), credentials):
        command = command.replace(secret, "***") if secret else command
    return command


def _print_run(run: RunRecord) -> None:
    summary, estimates = run.summary, estimate_run(run.requests, run.meta.objective)
    console.print(f"[bold]{run.meta.server.model}[/bold]")
    for line in run_table.summary_lines(summary):
        console.print(line)
    if estimates.steady is not None:
        console.print(run_table.steady_line(estimates.steady))
    if run.meta.stopping is not None:
        console.print(run_table.stopping_line(run.meta.stopping, len(run.measured)))
    console.print(run_table.summary_table(summary, estimates))
    if estimates.latencies_ms:
        console.print(run_table.table_note(estimates))
    for line in load_lines(run):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(run_table.calibration_line(run.meta.calibration))


def load_lines(run: RunRecord) -> list[str]:
    """What is to be said of how the load was put on: a warm-up that failed, waits that a closed loop hid."""
    warm_up = [record for record in run.requests if record.phase == "warm_up"]
    failed = sum(record.failure is not None for record in warm_up)
    lines = [f"{failed} of {len(warm_up)} warm-up requests failed."] if failed else []
    how = run.meta.load
    warning = omission_line(run.requests, closed_loop=how.loop == "closed" and not how.sessions)
    return [*lines, warning] if warning else lines


def _write(run: RunRecord, output: Path) -> None:
    if output.suffix == ".csv":
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(csv_text([(output.stem, run)]), encoding="utf-8")
        console.print(f"Wrote {output}, {len(run.requests)} requests.", highlight=False)
        return
    if output.suffix != ".parquet":
        calibration = run.meta.calibration
        write_json(output, {"summary": run.summary, "calibration": calibration, "records": run.requests})
        return
    from sluice_bench.recording.run_file import write_run

    write_run(run, output)
    console.print(f"Wrote {output}; figures {run.meta.figures_sha256[:16]}.", highlight=False)


def _push(run: RunRecord, url: str) -> None:
    from sluice_bench.reports.push import PushFailed, push

    try:
        push(run, url)
    except PushFailed as error:
        fail(f"{error}.")
    console.print("Pushed.", highlight=False)


def _conclude(run: RunRecord) -> None:
    """End with the status that the run deserves."""
    failed = [record for record in run.measured if record.failure is not None]
    if failed:
        fail(f"First failure: request {failed[0].index}, {failed[0].failure}: {failed[0].message}")
    if run.meta.calibration.void:
        raise typer.Exit(3)
