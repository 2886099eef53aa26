"""The command `sluice-bench search`: the highest rate of requests that still meets an objective."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sluice_bench.commands import run_options as options
from sluice_bench.commands.measuring import measure_showing, null_server
from sluice_bench.commands.run_command import without_secrets
from sluice_bench.commands.server_address import first_model, header_of, target_of
from sluice_bench.formatting import number
from sluice_bench.runs.rate_probe import NoAnswer, ProbeLoad, RateProber
from sluice_bench.runs.rate_search import ProbePoint, RateSearch, run_search
from sluice_bench.stats.saturation import SaturationSearch
from sluice_bench.stats.slo_profiles import PROFILES, SloProfile, profile_named
from sluice_bench.stats.tails import minimum_count
from sluice_bench.terminal import command_line, console, fail, write_json
from sluice_bench.workload import Asking
from sluice_bench.workloads.corpus import CorpusError, load_corpus


def _show_profiles(wanted: bool) -> None:
    if not wanted:
        return
    table = Table(title="p99, milliseconds")
    table.add_column("--slo")
    table.add_column("TTFT", justify="right")
    table.add_column("TPOT", justify="right")
    for profile in PROFILES:
        table.add_row(profile.name, f"{profile.ttft_ms:g}", f"{profile.tpot_ms:g}")
    console.print(table)
    raise typer.Exit


def search_command(
    url: options.Url,
    low: Annotated[float, typer.Option(help="Requests per second that should be no problem.")],
    high: Annotated[float, typer.Option(help="Requests per second that should be too many.")],
    slo: Annotated[str | None, typer.Option(help="Objective by name; --list-slo shows them.")] = None,
    ttft_ms: Annotated[float | None, typer.Option(help="Objective of your own: cap on TTFT.")] = None,
    tpot_ms: Annotated[float | None, typer.Option(help="Objective of your own: cap on TPOT.")] = None,
    percentile: Annotated[
        float, typer.Option(min=1, max=99.9, help="Which percentile --ttft-ms and --tpot-ms cap.")
    ] = 99.0,
    probes: Annotated[
        int, typer.Option(min=2, help="Runs at most, the one that tries recovery included.")
    ] = 8,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Of each probe, instead of --duration-s.")
    ] = None,
    duration_s: Annotated[float, typer.Option(min=0.1, help="Of each probe, about.")] = 60.0,
    suite: options.Suite = "short",
    model: options.Model = None,
    ignore_eos: options.IgnoreEos = False,
    api_key: options.ApiKey = None,
    headers: options.Headers = None,
    timeout_s: options.TimeoutS = 300.0,
    seed: options.Seed = 1,
    output: Annotated[
        Path | None, typer.Option(help="Write all probes and the answer here, as JSON.")
    ] = None,
    list_slo: Annotated[
        bool,
        typer.Option("--list-slo", is_eager=True, callback=_show_profiles, help="Show named objectives."),
    ] = False,
) -> None:
    """Find the highest rate of requests at which a server meets an objective.

    Probes rates between `--low` and `--high` with Poisson arrivals, waits for the server to become idle after
    each that was too high, and tries at last whether it recovers from overload. Give `--slo NAME`, or
    `--ttft-ms` and `--tpot-ms`. Ends with status 1 when no rate met the objective, 3 when the client was too
    slow twice for the same probe.
    """
    target = target_of(url)
    profile = _profile_of(slo, ttft_ms, tpot_ms, percentile / 100)
    search = _search_between(low, high, probes)
    load = ProbeLoad(
        target=target,
        asking=Asking(
            model=model or first_model(target, api_key),
            api_key=api_key,
            ignore_eos=ignore_eos,
            headers=tuple(header_of(text) for text in headers or ()),
        ),
        suite=suite,
        profile=profile,
        requests=requests,
        duration_s=duration_s,
        seed=seed,
        request_timeout_s=timeout_s,
        command=without_secrets(command_line(), api_key, headers or ()),
    )
    _say(_introduction(load, low, high))
    with null_server() as null:
        try:
            prober = RateProber(
                load, load_corpus(), lambda settings: measure_showing(settings, null, "requests")
            )
            found = run_search(
                profile, search, low, high, prober, lambda point: _say(probe_line(point, profile))
            )
        except OSError as error:
            fail(f"{target.authority} cannot be reached: {error}.")
        except (NoAnswer, CorpusError) as error:
            fail(f"{error}.")
    if output is not None:
        write_json(output, found)
    for line in conclusion(found):
        _say(line)
    _conclude(found)


def _profile_of(name: str | None, ttft_ms: float | None, tpot_ms: float | None, share: float) -> SloProfile:
    if (name is None) == (ttft_ms is None and tpot_ms is None):
        fail("Give either --slo NAME (see --list-slo), or caps of your own: --ttft-ms, --tpot-ms, or both.")
    if name is None:
        return SloProfile("your objective", ttft_ms, tpot_ms, share)
    try:
        return profile_named(name)
    except ValueError as error:
        fail(f"{str(error)[:1].upper()}{str(error)[1:]}.")


def _search_between(low: float, high: float, probes: int) -> SaturationSearch:
    try:
        return SaturationSearch(low, high, probes)
    except ValueError as error:
        fail(f"{str(error)[:1].upper()}{str(error)[1:]}.")


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _introduction(load: ProbeLoad, low: float, high: float) -> str:
    fewest, needed = load.requests_at(low), minimum_count(load.profile.share)
    text = f"Objective: {caps(load.profile)}. Rates from {low:g} to {high:g} per second."
    if fewest >= needed:
        return text
    return (
        f"{text} A probe may have {fewest} requests, too few to be sure of a {_share(load.profile)}: that "
        f"takes {needed:,}."
    )


def caps(profile: SloProfile) -> str:
    """An objective in words."""
    limits = (("TTFT", profile.ttft_ms), ("TPOT", profile.tpot_ms))
    words = [f"{_share(profile)} of {name} up to {cap:g} ms" for name, cap in limits if cap is not None]
    return " and ".join(words)


def _share(profile: SloProfile) -> str:
    return f"p{profile.share * 100:g}"


def probe_line(point: ProbePoint, profile: SloProfile) -> str:
    """What a probe came to."""
    after = "" if point.overload_rate is None else f", straight after {number(point.overload_rate)}/s"
    waits = f"TTFT {_ms(point.ttft_ms)}, TPOT {_ms(point.tpot_ms)} ({_share(profile)})"
    verdict = "meets it" if point.met else "does not meet it"
    if point.void:
        verdict = "VOID: the client was too slow for it"
    failed = sum(point.failures.values())
    troubles = [f"{failed} of {point.scheduled} failed"] if failed else []
    troubles += [] if point.settled else ["the server was not idle before"]
    return f"{number(point.rate)}/s{after}: {', '.join((waits, *troubles))}: {verdict}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{number(value)} ms"


def conclusion(found: RateSearch) -> list[str]:
    """The answer in sentences."""
    if found.void:
        return ["VOID: the client was too slow twice in a row. Lower --high, or move the client elsewhere."]
    if found.rate is None or found.met is None:
        return [f"No rate met the objective, not even {number(found.failed or found.low)}/s; lower --low."]
    if found.failed is None:
        return [f"At least {number(found.met)}/s: every rate met the objective; raise --high to see the end."]
    text = (
        f"Highest rate that meets the objective: {number(found.rate)}/s, between {number(found.met)}/s, "
        f"which met it, and {number(found.failed)}/s, which did not."
    )
    if found.cliff:
        text = f"{text} There is a cliff between the two, so the answer is the lower one."
    recovery = {
        True: "After an overload it recovers at nine tenths of that.",
        False: "After an overload it does not recover at nine tenths of that; keep further away.",
        None: "Whether it recovers from an overload was not tried.",
    }
    return [text, recovery[found.recovers]]


def _conclude(found: RateSearch) -> None:
    if found.void:
        raise typer.Exit(3)
    if found.rate is None:
        raise typer.Exit(1)
