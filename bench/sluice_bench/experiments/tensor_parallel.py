"""What splitting a model over ranks buys: one rank and two, the same requests."""

from __future__ import annotations

from pathlib import Path

from sluice_bench.experiments.loads import Load, fixed_answers, numbered
from sluice_bench.experiments.models import chosen_model
from sluice_bench.experiments.plan import (
    Column,
    ExperimentOptions,
    Group,
    Plan,
    Variant,
    chosen_variants,
)
from sluice_bench.experiments.requirement import need_worker_option
from sluice_bench.experiments.stack import worker_engine

OPTION = "--tensor-parallel-size"
RANKS = {"1-rank": 1, "2-ranks": 2}


def plan(options: ExperimentOptions) -> Plan:
    """The experiment. Raises `RequirementMissing`, `ServerFailed`, `ValueError`."""
    need_worker_option(OPTION, "tensor parallelism")
    names = chosen_variants(tuple(RANKS), tuple(RANKS), options.only)
    model = chosen_model(options, "tinyllama-1.1b")
    answers = fixed_answers("short", 8 if options.quick else 64)
    return Plan(
        name="tensor-parallel",
        title="What tensor parallelism buys",
        remarks=(
            "The same model in one process and split over two; one worker runs at a time behind the gateway.",
        ),
        model=model.label,
        groups=tuple(_group(name, model.folder) for name in names),
        loads=numbered(
            [
                Load(name=f"{users} at a time", requests=4 * users, concurrency=users, workload_of=answers)
                for users in (1, 4)
            ]
        ),
        repeats=options.repeats_or(3),
        quick=options.quick,
        reference=names[0],
        headline="tokens_per_s",
        columns=(Column(key="resident_mb", title="resident MB, largest process"),),
    )


def _group(name: str, model: Path) -> Group:
    engine = worker_engine("worker", model, ["--no-prefix-caching", OPTION, str(RANKS[name])])
    return Group(engines=(engine,), variants=(Variant(name=name, engine="worker"),))
