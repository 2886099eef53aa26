"""What quantized weights buy: three workers with the same model behind one gateway, chosen by `X-Quant`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from sluice_bench.experiments.loads import Load, fixed_answers, numbered
from sluice_bench.experiments.models import BUNDLED, ModelChoice, chosen_model
from sluice_bench.experiments.plan import (
    Column,
    ExperimentOptions,
    Group,
    Plan,
    QualityPlan,
    Variant,
    chosen_variants,
)
from sluice_bench.experiments.requirement import need_stack
from sluice_bench.experiments.stack import Engine, engine_threads, worker_engine

QUANTS = {"bf16": "none", "int8": "int8", "int4": "int4"}
"""By variant, what `X-Quant` asks for."""
USUAL_MODEL = "smollm-135m"
_KV_MEMORY = "256MiB"


def plan(options: ExperimentOptions) -> Plan:
    """The experiment. Raises `RequirementMissing`, `ServerFailed`, `ValueError`."""
    need_stack()
    names = chosen_variants(tuple(QUANTS), tuple(QUANTS), options.only)
    model = chosen_model(options, USUAL_MODEL)
    return Plan(
        name="quant",
        title="What quantized weights buy",
        remarks=(
            "Workers that differ in nothing but their weights are up together behind one gateway; the "
            "header `X-Quant` chooses between them ([worker/quantization.md](../worker/quantization.md) "
            "tells what each is, and what is lost). Who is not asked waits and takes no CPU. Memory is that "
            "of the process that holds the weights. Quality is not timed: it is measured after the rest, of "
            "the bundled model where the other is of random weights.",
        ),
        model=model.label,
        groups=(_group(names, model.folder),),
        loads=_loads(options, heavy=model.heavy),
        repeats=options.repeats_or(3),
        quick=options.quick,
        reference=names[0],
        headline="tokens_per_s",
        columns=(
            Column(key="weights_mb", title="weights MB"),
            Column(key="resident_mb", title="resident MB"),
        ),
        quality=_quality(options, names, model),
    )


def _group(names: Sequence[str], model: Path) -> Group:
    return Group(
        engines=tuple(_engine(name, model) for name in names),
        variants=tuple(
            Variant(name=name, engine=name, headers=(("X-Quant", QUANTS[name]),)) for name in names
        ),
    )


def _quality(options: ExperimentOptions, names: Sequence[str], model: ModelChoice) -> QualityPlan | None:
    """Of the same model, or of the bundled one where it is noise."""
    if len(names) < 2:
        return None
    if model.random:
        model = chosen_model(msgspec.structs.replace(options, model=BUNDLED))
    windows, prompts = (2, 2) if options.quick else (64, 48)
    return QualityPlan(model=model.label, group=_group(names, model.folder), windows=windows, prompts=prompts)


def _engine(name: str, model: Path) -> Engine:
    options = ["--dtype", "bfloat16", "--no-prefix-caching", "--kv-memory", _KV_MEMORY]
    options += ["--max-model-len", "1024", "--quantization", QUANTS[name]]
    options += ["--threads", str(engine_threads())]
    return worker_engine(name, model, options, QUANTS[name])


def _loads(options: ExperimentOptions, *, heavy: bool) -> tuple[Load, ...]:
    answers = fixed_answers("short", 8 if options.quick else 64)
    one, four = (1, 4) if options.quick else (4, 12) if heavy else (16, 48)
    return numbered(
        [
            Load(name="1 at a time", requests=one, concurrency=1, workload_of=answers),
            Load(name="4 at a time", requests=four, concurrency=4, workload_of=answers),
        ]
    )
