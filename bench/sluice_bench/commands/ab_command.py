"""The command `sluice-bench ab`: is B faster than A, and what could have been seen at all?"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sluice_bench import ab_table
from sluice_bench.commands import run_options as options
from sluice_bench.commands.measuring import null_server
from sluice_bench.commands.run_command import without_secrets
from sluice_bench.commands.server_address import first_model, header_of, target_of
from sluice_bench.environment import describe
from sluice_bench.metrics import Objective
from sluice_bench.runs.ab_record import AbRecord, described
from sluice_bench.runs.ab_run import MORE_IS_BETTER, SLOTS, AbPlan, AbRun, PlannedSlot, SlotResult, run_ab
from sluice_bench.runs.ab_slots import SlotLoad, Slots, Variant
from sluice_bench.runs.stopping import share_of
from sluice_bench.stats.paired import MIN_BLOCKS
from sluice_bench.target import Target
from sluice_bench.terminal import ShowProgress, command_line, console, fail, progress, write_json
from sluice_bench.workload import Asking
from sluice_bench.workloads.corpus import CorpusError, load_corpus

UrlA = Annotated[str, typer.Option("--a", help="Server of A, e.g. http://127.0.0.1:8000.")]
UrlB = Annotated[str | None, typer.Option("--b", help="Server of B; by default that of A.")]
ModelA = Annotated[str | None, typer.Option("--a-model", help="Model of A, instead of --model.")]
ModelB = Annotated[str | None, typer.Option("--b-model", help="Model of B, instead of --model.")]
HeadersA = Annotated[list[str] | None, typer.Option("--a-header", help="`Name: value` of A only.")]
HeadersB = Annotated[list[str] | None, typer.Option("--b-header", help="`Name: value` of B only.")]


def ab_command(
    a: UrlA,
    b: UrlB = None,
    model: options.Model = None,
    a_model: ModelA = None,
    b_model: ModelB = None,
    headers: options.Headers = None,
    a_headers: HeadersA = None,
    b_headers: HeadersB = None,
    blocks: Annotated[
        int, typer.Option(min=MIN_BLOCKS, help="Each has two slots of A and two of B; with --effect a pilot.")
    ] = 12,
    effect: Annotated[
        str | None, typer.Option(help="Measure as many blocks as it takes to find such a change, e.g. 5%.")
    ] = None,
    most_blocks: Annotated[int, typer.Option(help="With --effect: no more than so many.")] = 100,
    metric: Annotated[
        str, typer.Option(help=f"What --effect and the verdict are about: {', '.join(MORE_IS_BETTER)}.")
    ] = "ttft-p50",
    requests_per_slot: Annotated[int, typer.Option(min=1, help="Requests of each slot.")] = 20,
    concurrency: options.Concurrency = None,
    rate: options.Rate = None,
    suite: options.Suite = "short",
    plain: options.Plain = False,
    ignore_eos: options.IgnoreEos = False,
    api_key: options.ApiKey = None,
    ttft_ms: options.TtftMs = None,
    tpot_ms: options.TpotMs = None,
    e2e_ms: options.E2eMs = None,
    timeout_s: options.TimeoutS = 300.0,
    seed: options.Seed = 1,
    runs: Annotated[Path | None, typer.Option(help="Keep the run of every slot in this folder.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write slots and verdicts here, as JSON.")] = None,
) -> None:
    """Compare two servers, or one server asked in two ways, on the same requests in turn.

    A and B differ in `--a` and `--b`, in their headers, or in their models. Slots are measured in blocks,
    ABBA or BAAB by the toss of a coin, so that a machine that drifts favours neither. Ends with status 1 when
    a request failed, 3 when too many blocks were void.
    """
    objective = Objective(ttft_ms=ttft_ms, tpot_ms=tpot_ms, e2e_ms=e2e_ms)
    metric = _known_metric(metric, plain, objective)
    plan = AbPlan(
        blocks=blocks, primary=metric, effect=_effect_of(effect), most_blocks=most_blocks, seed=seed
    )
    shared = _Shared(model=model, plain=plain, ignore_eos=ignore_eos, api_key=api_key, headers=headers or [])
    load = SlotLoad(
        suite=suite,
        requests=requests_per_slot,
        concurrency=_one_loop(concurrency, rate),
        rate=rate,
        objective=objective,
        seed=seed,
        request_timeout_s=timeout_s,
        command=without_secrets(
            command_line(), api_key, [*(headers or ()), *(a_headers or ()), *(b_headers or ())]
        ),
    )
    first = _variant(a, a_model, a_headers or [], shared)
    second = _variant(b or a, b_model, b_headers or [], shared)
    for who, variant in (("A", first), ("B", second)):
        _say(f"{who}: {described(variant).words}")
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run = _carry_out(plan, first, second, load, runs)
    record = AbRecord(
        started_utc=started,
        environment=describe(),
        a=described(first),
        b=described(second),
        load=load,
        plan=plan,
        run=run,
    )
    if output is not None:
        write_json(output, record)
    _print(record)
    _conclude(run)


class _Shared(msgspec.Struct, frozen=True, kw_only=True):
    """Options that both have."""

    model: str | None
    plain: bool
    ignore_eos: bool
    api_key: str | None
    headers: Sequence[str]


def _variant(url: str, model: str | None, headers: Sequence[str], shared: _Shared) -> Variant:
    target = target_of(url)
    own = [header_of(text) for text in headers]
    common = [header_of(text) for text in shared.headers]
    named = {name.lower() for name, _ in own}
    return Variant(
        target=target,
        asking=Asking(
            model=model or shared.model or first_model(target, shared.api_key),
            stream=not shared.plain,
            api_key=None if "authorization" in named else shared.api_key,
            ignore_eos=shared.ignore_eos,
            headers=(*(header for header in common if header[0].lower() not in named), *own),
        ),
    )


def _known_metric(name: str, plain: bool, objective: Objective) -> str:
    if name not in MORE_IS_BETTER:
        fail(f"There is no --metric {name!r}; there are {', '.join(MORE_IS_BETTER)}.")
    if name == "goodput" and objective == Objective():
        fail("Goodput needs an objective: --ttft-ms, --tpot-ms or --e2e-ms.")
    if plain and name.startswith(("ttft", "tpot")):
        fail(f"Plain answers have no {name}; compare them with --metric e2e-p50.")
    return name


def _effect_of(text: str | None) -> float | None:
    try:
        return None if text is None else share_of(text)
    except ValueError as error:
        fail(f"--effect: {error}.")


def _one_loop(concurrency: int | None, rate: float | None) -> int | None:
    if (concurrency is None) == (rate is None):
        fail("Give either --concurrency N (closed loop) or --rate N (open loop).")
    if rate is not None and not rate > 0:
        fail(f"--rate must be positive, not {rate:g}.")
    return concurrency


def _carry_out(plan: AbPlan, a: Variant, b: Variant, load: SlotLoad, folder: Path | None) -> AbRun:
    """All slots, with a bar; ends the command when a server is not there or does not answer."""
    with null_server() as null:
        try:
            slots = Slots(a, b, load, load_corpus(), null, folder)
            for who in SLOTS:
                _check(slots.warm_up(who), plan.primary)
            with progress("slots", 4 * plan.blocks) as show:
                shown = _ShownSlots(slots, show)
                return run_ab(plan, shown.measure, shown.planned)
        except OSError as error:
            fail(f"{_authorities(a.target, b.target)} cannot be reached: {error}.")
        except CorpusError as error:
            fail(f"{error}.")


class _ShownSlots:
    """Slots with a bar."""

    def __init__(self, slots: Slots, show: ShowProgress) -> None:
        self._slots, self._show = slots, show
        self._done, self._total = 0, 0

    def planned(self, blocks: int) -> None:
        self._total = 4 * blocks

    def measure(self, slot: PlannedSlot) -> SlotResult:
        result = self._slots.measure(slot)
        self._done += 1
        self._show(self._done, max(self._done, self._total))
        return result


def _authorities(a: Target, b: Target) -> str:
    return a.authority if a == b else f"{a.authority} or {b.authority}"


def _check(tried: SlotResult, primary: str) -> None:
    """End the command when the comparison cannot come to anything."""
    who = tried.variant.upper()
    if tried.failures:
        causes = ", ".join(f"{count} {name}" for name, count in tried.failures.items())
        fail(
            f"Of {tried.scheduled} requests to warm up, {who} failed: {causes}. Try it alone with "
            "sluice-bench run."
        )
    if not tried.figures.get(primary):
        fail(f"{who} has no {primary} to compare; choose another --metric: {', '.join(MORE_IS_BETTER)}.")


def _print(record: AbRecord) -> None:
    for line in ab_table.blocks_lines(record):
        _say(line)
    if record.run.comparisons:
        _say(ab_table.detectable_line(record.run))
        console.print(ab_table.comparison_table(record.run))
    for line in ab_table.verdict_lines(record):
        _say(line)


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _conclude(run: AbRun) -> None:
    if any(run.failed(who) for who in SLOTS):
        raise typer.Exit(1)
    if not run.complete:
        raise typer.Exit(3)
