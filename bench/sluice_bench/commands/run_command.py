"""The command `sluice-bench run`: one load on one server, its figures, and its record."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sluice_bench import run_table
from sluice_bench.calibration import CalibratedRun, run_calibrated
from sluice_bench.commands.server_address import first_model, header_of, target_of
from sluice_bench.environment import describe
from sluice_bench.loops import MOST_WARM_CONNECTIONS, ClosedLoop, LoadPlan, OpenLoop, connections_needed
from sluice_bench.metrics import Objective, Summary, summarise
from sluice_bench.processes import null_server_process
from sluice_bench.recording.digest import requests_sha256
from sluice_bench.recording.run_record import LoadSettings, RunMeta, ServerState, recorded
from sluice_bench.run_load import LoadOptions, RunLoad, choose_load
from sluice_bench.schedule_options import Arrival, ScheduleOptions
from sluice_bench.scrape import metrics_page
from sluice_bench.target import Target
from sluice_bench.terminal import command_line, console, fail, progress, write_json
from sluice_bench.workload import Asking
from sluice_bench.workloads.corpus import CorpusError, SuiteName
from sluice_bench.workloads.prepared import prepare
from sluice_bench.workloads.presets import PresetName

EXPECTED_TOKENS_PER_S = 20.0
"""Of one stream, to know before a run how many requests will be in flight; a slower server needs more."""


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
    arrival: Annotated[Arrival, typer.Option(help="With --rate: how gaps are drawn.")] = "poisson",
    cv: Annotated[
        float | None,
        typer.Option(
            help="With --arrival gamma: standard deviation of the gaps over their mean; above 1 bursts."
        ),
    ] = None,
    ramp: Annotated[
        str | None,
        typer.Option(help="Open loop: Poisson, the rate goes FROM:TO:SECONDS[:exponential] and stays there."),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Open loop: send at the times in this file, one a line, in seconds.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="How many requests to send.")] = 40,
    suite: Annotated[
        SuiteName, typer.Option(help="What is asked; `tools` and `json` need a server that can do these.")
    ] = "short",
    preset: Annotated[
        PresetName | None,
        typer.Option(
            help="Instead of a suite: lengths, shared prefixes and arrivals like a published trace's."
        ),
    ] = None,
    fit: Annotated[
        int | None, typer.Option(help="Scale a preset's lengths down to a context of so many tokens.")
    ] = None,
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
    variant: Annotated[str, typer.Option(help="A word for what is measured, kept in the run file.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the run here: FILE.parquet for `sluice-bench verify`, else summary and records "
            "as JSON."
        ),
    ] = None,
) -> None:
    """Load a server and report latency, throughput and goodput.

    Give `--concurrency` (users who wait for their answer), or one of `--rate`, `--ramp` and `--trace` (users
    who do not), or a `--preset`, which has arrivals of its own. Ends with status 1 when a request failed, 3
    when the run is void because the client was too slow for it.
    """
    options = LoadOptions(
        requests=requests,
        seed=seed,
        concurrency=concurrency,
        arrivals=ScheduleOptions(rate=rate, arrival=arrival, cv=cv, ramp=ramp, trace=trace),
        suite=suite,
        preset=preset,
        fit=fit,
    )
    target = target_of(url)
    load = _load(options)
    model = model or first_model(target, api_key)
    asking = Asking(
        model=model,
        stream=not plain,
        api_key=api_key,
        ignore_eos=ignore_eos,
        headers=tuple(header_of(text) for text in header or ()),
    )
    loop = ClosedLoop(concurrency or 1) if load.schedule is None else OpenLoop(load.schedule.offsets_ns)
    answer_tokens = sum(item.max_tokens for item in load.workload.items) / requests
    needed = connections_needed(loop, requests, answer_tokens / EXPECTED_TOKENS_PER_S)
    plan = LoadPlan(
        target=target,
        requests=prepare(target, load.workload, asking),
        loop=loop,
        warm_connections=needed if warm_connections is None else warm_connections,
        request_timeout_s=timeout_s,
        hard_stop_s=stop_after_s,
    )
    objective = Objective(ttft_ms=ttft_ms, tpot_ms=tpot_ms, e2e_ms=e2e_ms)
    started = datetime.datetime.now(datetime.UTC)
    page_before = metrics_page(target.url) if _is_run_file(output) else ""
    for line in load.lines():
        console.print(line, soft_wrap=True, highlight=False)
    run = _run_with_null_server(plan)
    summary = summarise(run.records, objective, concurrency or 1)
    _print_run(model, run, summary)
    if output is not None and _is_run_file(output):
        meta = RunMeta(
            variant=variant,
            command=without_secrets(command_line(), api_key, header or ()),
            started_utc=started.isoformat(timespec="seconds"),
            start_ns=min(record.scheduled_ns for record in run.records),
            environment=describe(),
            load=_settings(plan, load, concurrency, seed),
            workload=load.workload.name,
            workload_sha256=load.workload.sha256,
            requests_sha256=requests_sha256(plan.requests),
            objective=objective,
            server=ServerState(
                url=target.url,
                model=model,
                metrics_before=page_before,
                metrics_after=metrics_page(target.url),
            ),
            calibration=run.calibration,
        )
        _write_run_file(output, meta, run)
    elif output is not None:
        write_json(output, {"summary": summary, "calibration": run.calibration, "records": run.records})
    _conclude(run, summary)


def _is_run_file(output: Path | None) -> bool:
    return output is not None and output.suffix == ".parquet"


def without_secrets(command: str, api_key: str | None, headers: Sequence[str]) -> str:
    """The command line for others to read."""
    for secret in (api_key, *(text.partition(":")[2].strip() for text in headers)):
        command = command.replace(secret, "***") if secret else command
    return command


def _settings(plan: LoadPlan, load: RunLoad, concurrency: int | None, seed: int) -> LoadSettings:
    schedule = load.schedule
    return LoadSettings(
        loop="closed" if schedule is None else "open",
        concurrency=concurrency,
        rate_per_s=None if schedule is None else schedule.rate_per_s,
        arrival="" if schedule is None else schedule.kind,
        cv=None if schedule is None else schedule.cv,
        schedule_sha256="" if schedule is None else schedule.sha256,
        seed=seed,
        warm_connections=plan.warm_connections,
        request_timeout_s=plan.request_timeout_s,
        hard_stop_s=plan.hard_stop_s,
    )


def _write_run_file(output: Path, meta: RunMeta, run: CalibratedRun) -> None:
    from sluice_bench.recording.run_file import write_run

    record = recorded(meta, tuple(run.records))
    write_run(record, output)
    console.print(f"Wrote {output}; figures {record.meta.figures_sha256[:16]}.", highlight=False)


def _conclude(run: CalibratedRun, summary: Summary) -> None:
    """End with the status that the run deserves."""
    if summary.failures:
        first = next(record for record in run.records if record.failure is not None)
        fail(f"First failure: request {first.index}, {first.failure}: {first.message}")
    if run.calibration.void:
        raise typer.Exit(3)


def _load(options: LoadOptions) -> RunLoad:
    try:
        return choose_load(options)
    except (OSError, ValueError, CorpusError) as error:
        fail(f"{str(error)[:1].upper()}{str(error)[1:]}.")


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
