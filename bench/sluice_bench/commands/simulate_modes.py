"""The three modes of `sluice-bench simulate`: a table, the report, a calibration. Needs `sluice_router`."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec
from rich.table import Table

from sluice_bench.recording.run_file import BadRunFile, read_run
from sluice_bench.simulator import router_page
from sluice_bench.simulator.decisions import recorded
from sluice_bench.simulator.faults import read_fault
from sluice_bench.simulator.fit import compare, fit
from sluice_bench.simulator.fit_report import FitRecord, comparison_text, met_bars, shape_text
from sluice_bench.simulator.fleet import POLICIES, SLUICE
from sluice_bench.simulator.replay import Replay, replay_of
from sluice_bench.simulator.scenario import Scenario, compared, fleet_settings, offered_per_s, simulate
from sluice_bench.simulator.sim_figures import SimFigures
from sluice_bench.simulator.sim_plan import LOAD_PRESETS, OTHER_PRESETS, Question, questions
from sluice_bench.simulator.sim_report import (
    SimReport,
    carry_out,
    environment,
    number_of_steps,
    speed_scenario,
    statistics_of,
)
from sluice_bench.simulator.traffic import TrafficShape
from sluice_bench.terminal import command_line, console, fail, steps, write_json
from sluice_bench.workloads.presets import PresetName
from sluice_router import router
from sluice_router.types import PRIORITIES

_SPEED_REPLICAS, _SPEED_REQUESTS = 1000, 1_000_000
_QUICK_SPEED_REPLICAS, _QUICK_SPEED_REQUESTS = 50, 2000
SPEED, TRAFFIC = "speed", "traffic"
"""Sections of the report beside its questions."""

OnStep = Callable[[str], None]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a table, as they were given."""

    preset: PresetName
    policies: tuple[str, ...]
    loads: tuple[float, ...]
    replicas: int
    gateways: int
    seconds: float
    seeds: int
    warm_up_s: float
    shape: str
    scrape_s: float
    obey: float
    hammer: float
    tenants: str
    classes: str
    faults: tuple[str, ...]
    patience_s: float | None


def small(asked: Asked) -> Asked:
    """Of a few replicas for a few seconds."""
    return msgspec.structs.replace(
        asked, replicas=min(4, asked.replicas), seconds=min(5.0, asked.seconds), warm_up_s=2.0, seeds=1
    )


def table(asked: Asked, decision_log: Path | None = None) -> None:
    """Print policies side by side; with a log only the router's own, once. Raises `ValueError`."""
    scenarios = [_scenario(asked, load) for load in asked.loads]
    if decision_log is not None:
        _logged(asked, scenarios, decision_log)
        return
    policies = _known(asked.policies) or POLICIES
    found: list[SimFigures] = []
    with steps(len(scenarios) * len(policies)) as on_step:
        for scenario in scenarios:
            found += compared(scenario, policies, asked.seeds, time.perf_counter_ns, on_step)
    console.print(_table(found, scenarios, policies))
    requests = sum(sum(figures.endings.values()) for figures in found)
    real_s = sum(figures.decisions_s + figures.engine_s for figures in found)
    console.print(
        f"Medians of {asked.seeds} seeds; simulated {requests / real_s:,.0f} requests/s.", highlight=False
    )


def _logged(asked: Asked, scenarios: list[Scenario], file: Path) -> None:
    """Simulate once and write every decision to the file."""
    if len(scenarios) != 1 or asked.gateways != 1 or set(asked.policies) - {SLUICE}:
        raise ValueError(
            f"a decision log is of one run: give one --load, one gateway and no --policy but {SLUICE!r}"
        )
    [scenario] = scenarios
    try:
        with file.open("wb") as lines, steps(1) as on_step:
            on_step(f"{scenario.name}, load {scenario.load:g}: {SLUICE}")

            def write(line: bytes) -> None:
                lines.write(line)

            settings = fleet_settings(scenario, SLUICE, 1)
            found = [simulate(settings, scenario.load, time.perf_counter_ns, recorded(write))]
    except OSError as error:
        raise ValueError(f"cannot write decisions to {file}: {error.strerror}") from None
    console.print(_table(found, scenarios, (SLUICE,)))
    console.print(f"Wrote {file}; decide it again with: sluice replay-decisions {file}", soft_wrap=True)


def _known(policies: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [policy for policy in policies if policy not in POLICIES]:
        raise ValueError(f"there is no policy {unknown[0]!r}; there are {', '.join(POLICIES)}")
    return policies


def _scenario(asked: Asked, load: float) -> Scenario:
    if load <= 0:
        raise ValueError(f"a load must be positive, not {load:g}")
    clients = {"leave": max(0.0, 1 - asked.obey - asked.hammer), "obey": asked.obey, "hammer": asked.hammer}
    return Scenario(
        name=asked.preset,
        traffic=TrafficShape(
            preset=asked.preset,
            tenants=tuple(_number(part) for part in asked.tenants.split(",")),
            classes=_classes(asked.classes),
            clients=clients,
        ),
        load=load,
        replicas=asked.replicas,
        gateways=asked.gateways,
        seconds=asked.seconds,
        warm_up_s=asked.warm_up_s,
        shape=asked.shape,
        scrape_s=asked.scrape_s,
        faults=tuple(read_fault(text) for text in asked.faults),
        patience_s=asked.patience_s,
    )


def _classes(text: str) -> dict[str, float]:
    shares = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        if name not in PRIORITIES:
            raise ValueError(f"{name!r} is no class; there are {', '.join(PRIORITIES)}")
        shares[name] = _number(share)
    return shares


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number; shares are numbers with commas between them") from None


def _table(found: list[SimFigures], scenarios: list[Scenario], policies: tuple[str, ...]) -> Table:
    drawn = Table()
    for title in ("load", "policy", *router_page.BRIEF.values()):
        drawn.add_column(title, justify="left" if title == "policy" else "right", no_wrap=title == "policy")
    for scenario in scenarios:
        for policy in policies:
            figures = [one for one in found if (one.load, one.policy) == (scenario.load, policy)]
            drawn.add_row(f"{scenario.load:g}", policy, *router_page.brief(figures))
    return drawn


# --- the report ------------------------------------------------------------------------------------------


def report(
    folder: Path,
    quick: bool,
    only: tuple[str, ...],
    policies: tuple[str, ...],
    seeds: int,
    replicas: int,
    seconds: float,
) -> None:
    """Simulate the report's scenarios and write it. Raises `ValueError`."""
    if quick:
        seeds, replicas, seconds = 1, 4, 4.0
    asked = [hurried(question) if quick else question for question in questions(replicas, seconds)]
    known = [*(question.name for question in asked), SPEED, TRAFFIC]
    wanted = only or tuple(known)
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"there is no section {unknown[0]!r}; there are {', '.join(known)}")
    page, raw = folder / "router.md", folder / "router.json"
    chosen = [_narrowed(question, _known(policies)) for question in asked if question.name in wanted]
    with steps(number_of_steps(chosen) + 1) as on_step:
        made = _report(_earlier(raw), chosen, wanted, (quick, seeds, replicas, seconds), on_step)
    write_json(raw, made)
    plots = router_page.plots(made, asked)
    for name, plot in plots.items():
        (folder / name).write_text(router_page.drawn(plot), encoding="utf-8")
    page.write_text(router_page.render(made, asked, raw.name, plots), encoding="utf-8")
    console.print(f"Wrote {page}, {raw.name} and {len(plots)} plots beside it.", soft_wrap=True)


def _earlier(raw: Path) -> SimReport | None:
    """What an earlier run wrote; `None` when there is none, or it was another version's."""
    try:
        return msgspec.json.decode(raw.read_bytes(), type=SimReport)
    except (OSError, msgspec.DecodeError):
        return None


def _narrowed(question: Question, policies: tuple[str, ...]) -> Question:
    """Of these policies only; of all without any."""
    kept = tuple(policy for policy in question.policies if policy in policies or not policies)
    return msgspec.structs.replace(question, policies=kept)


def hurried(question: Question) -> Question:
    """With a short warm-up, for figures that mean nothing."""
    return msgspec.structs.replace(
        question,
        scenarios=tuple(
            (value, msgspec.structs.replace(scenario, warm_up_s=2.0))
            for value, scenario in question.scenarios
        ),
    )


def _report(
    earlier: SimReport | None,
    chosen: list[Question],
    wanted: tuple[str, ...],
    setting: tuple[bool, int, int, float],
    on_step: OnStep,
) -> SimReport:
    """The sections that are wanted, made anew; of the others what an earlier run of the same setting has."""
    quick, seeds, replicas, seconds = setting
    made = SimReport(
        command=command_line(),
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        environment=environment(),
        quick=quick,
        replicas=replicas,
        seconds=seconds,
        seeds=seeds,
        results=carry_out(chosen, seeds, time.perf_counter_ns, on_step),
        statistics=statistics_of((*LOAD_PRESETS, *OTHER_PRESETS), 1) if TRAFFIC in wanted else [],
    )
    if SPEED in wanted:
        on_step(SPEED)
        speed_replicas = _QUICK_SPEED_REPLICAS if quick else _SPEED_REPLICAS
        figures = _speed(speed_replicas, _QUICK_SPEED_REQUESTS if quick else _SPEED_REQUESTS)
        made = msgspec.structs.replace(
            made, speed=figures, speed_replicas=speed_replicas, speed_compiled=_is_compiled(router)
        )
    return made if earlier is None else _merged(made, earlier, setting)


def _merged(made: SimReport, earlier: SimReport, setting: tuple[bool, int, int, float]) -> SimReport:
    new = {(result.question, result.figures.policy) for result in made.results}
    kept = [one for one in earlier.results if (one.question, one.figures.policy) not in new]
    if (earlier.quick, earlier.seeds, earlier.replicas, earlier.seconds) != setting:
        kept = []
    return msgspec.structs.replace(
        made,
        results=[*kept, *made.results],
        statistics=made.statistics or earlier.statistics,
        speed=made.speed or earlier.speed,
        speed_replicas=made.speed_replicas or earlier.speed_replicas,
        speed_compiled=made.speed_compiled if made.speed else earlier.speed_compiled,
        fits=earlier.fits,
    )


def _is_compiled(module: ModuleType) -> bool:
    return not (module.__file__ or "").endswith(".py")


def _speed(replicas: int, requests: int) -> SimFigures:
    """The router itself in a large fleet, with about so many requests."""
    per_s = offered_per_s(speed_scenario(replicas, 1.0))
    scenario = speed_scenario(replicas, requests / per_s)
    return simulate(fleet_settings(scenario, SLUICE, 1), scenario.load, time.perf_counter_ns)


# --- calibration -----------------------------------------------------------------------------------------


def calibrate(
    path: Path, against: Path | None, max_running: int, kv_tokens: int, folder: Path | None
) -> None:
    """Fit to a recorded run, and print how near the model comes to it and to another. Raises `ValueError`.

    With a folder the calibration becomes part of the report there. Ends with status 1 when the other run was
    foretold worse than the bars allow.
    """
    variant, replay = _replay(path)
    shape = fit(replay, max_running, kv_tokens)
    foretold = None if against is None else compare(_replay(against)[1], shape)
    record = FitRecord(variant=variant, shape=shape, fitted=compare(replay, shape), foretold=foretold)
    for word, found in (("fitted to", record.fitted), ("foretold", record.foretold)):
        if found is not None:
            console.print(comparison_text(word, found), highlight=False, soft_wrap=True)
    console.print(shape_text(shape), highlight=False, soft_wrap=True)
    if folder is not None:
        _keep(record, folder)
    if foretold is not None and not met_bars(foretold):
        fail("The model is further off than its bars allow: do not trust its times for this server.")


def _replay(path: Path) -> tuple[str, Replay]:
    try:
        run = read_run(path)
    except BadRunFile as error:
        fail(f"{error}.")
    except OSError as error:
        fail(f"Cannot read {path}: {error.strerror}.")
    return run.meta.variant or run.meta.server.model, replay_of(run)


def _keep(record: FitRecord, folder: Path) -> None:
    page, raw = folder / "router.md", folder / "router.json"
    earlier = _earlier(raw)
    if earlier is None:
        raise ValueError(f"there is no report at {raw} to add this to: write one first, with --report")
    fits = [fit for fit in earlier.fits if fit.variant != record.variant]
    made = msgspec.structs.replace(earlier, fits=[*fits, record])
    asked = list(questions(made.replicas, made.seconds))
    write_json(raw, made)
    page.write_text(
        router_page.render(made, asked, raw.name, router_page.plots(made, asked)), encoding="utf-8"
    )
    console.print(f"Added to {page}.", soft_wrap=True)
