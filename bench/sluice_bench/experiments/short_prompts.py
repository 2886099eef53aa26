"""How soon the first token of a tiny prompt comes: from the worker itself and through the gateway."""

from __future__ import annotations

from sluice_bench.experiments.loads import Load, numbered, tiny_prompts
from sluice_bench.experiments.models import chosen_model
from sluice_bench.experiments.plan import ExperimentOptions, Group, Plan, Variant, chosen_variants
from sluice_bench.experiments.requirement import need_stack
from sluice_bench.experiments.stack import engine_threads, worker_engine

KNOWN = ("direct", "gateway")
_WORDS, _ANSWER_TOKENS = 6, 8


def plan(options: ExperimentOptions) -> Plan:
    """The experiment. Raises `RequirementMissing`, `ServerFailed`, `ValueError`."""
    need_stack()
    names = chosen_variants(KNOWN, KNOWN, options.only)
    model = chosen_model(options)
    prompts = tiny_prompts(_WORDS, _ANSWER_TOKENS)
    each = 1 if options.quick else 20 if model.heavy else 200
    users = (1, 4) if options.quick else (1, 4, 16)
    worker_options = ["--dtype", "bfloat16", "--no-prefix-caching", "--threads", str(engine_threads())]
    worker = worker_engine("worker", model.folder, worker_options)
    return Plan(
        name="short-prompts",
        title="The first token of short prompts",
        remarks=(
            f"Prompts of {_WORDS} words and answers of {_ANSWER_TOKENS} tokens: next to nothing is computed, "
            "so what is measured is everything around the model. One worker is up; it is asked itself and "
            "through the gateway in turn. TTFT counts from the time a request was due.",
        ),
        model=model.label,
        groups=(
            Group(
                engines=(worker,),
                variants=tuple(
                    Variant(name=name, engine="worker", direct=name == "direct") for name in names
                ),
            ),
        ),
        loads=numbered(
            [
                Load(
                    name=f"{n} at a time",
                    requests=each + (n if options.quick else 10 * n),
                    concurrency=n,
                    workload_of=prompts,
                )
                for n in users
            ]
        ),
        repeats=options.repeats_or(5),
        quick=options.quick,
        reference=names[0],
        headline="ttft_ms",
    )
