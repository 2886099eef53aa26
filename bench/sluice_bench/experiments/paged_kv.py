"""What giving KV memory page by page buys: more and more users on the same little memory, dense and paged."""

from __future__ import annotations

from sluice_bench.experiments.batching import KV_TOKENS, LENGTHS, QUICK_LENGTHS, dtype_of, worker_options
from sluice_bench.experiments.loads import Load, numbered, unforeseen_answers
from sluice_bench.experiments.models import ModelChoice, chosen_model, kv_bytes
from sluice_bench.experiments.plan import (
    Column,
    ExperimentOptions,
    Group,
    Plan,
    Variant,
    chosen_variants,
)
from sluice_bench.experiments.requirement import need_stack
from sluice_bench.experiments.stack import worker_engine

KNOWN = ("dense", "paged")
CONCURRENCIES, QUICK_CONCURRENCIES = (2, 4, 8, 16, 32), (2, 4)
WAVES, HEAVY_WAVES = 4, 2
"""Requests of each user."""


def plan(options: ExperimentOptions) -> Plan:
    """The experiment. Raises `RequirementMissing`, `ServerFailed`, `ValueError`."""
    need_stack()
    names = chosen_variants(KNOWN, KNOWN, options.only)
    model = chosen_model(options)
    answers = unforeseen_answers("short", QUICK_LENGTHS if options.quick else LENGTHS)
    waves = 1 if options.quick else HEAVY_WAVES if model.heavy else WAVES
    return Plan(
        name="paged-kv",
        title="What a paged KV cache buys",
        remarks=_remarks(),
        model=model.label,
        groups=tuple(_group(name, model) for name in names),
        loads=numbered(
            [
                Load(
                    name=f"{users} at a time", requests=users * waves, concurrency=users, workload_of=answers
                )
                for users in (QUICK_CONCURRENCIES if options.quick else CONCURRENCIES)
            ]
        ),
        repeats=options.repeats_or(3),
        quick=options.quick,
        reference=names[0],
        headline="tokens_per_s",
        columns=(
            Column(key="mean_batch", title="requests in flight, mean"),
            Column(key="kv_bytes_a_token", title="KV bytes reserved for a token held"),
            Column(key="kv_utilisation", title="KV used of reserved", percent=True),
            Column(key="preemptions", title="preemptions"),
        ),
        kv_bytes_per_token=kv_bytes(model.folder, dtype_of(model)),
    )


def _group(name: str, model: ModelChoice) -> Group:
    engine = worker_engine("worker", model.folder, ["--kv", name, *worker_options(model)])
    return Group(engines=(engine,), variants=(Variant(name=name, engine="worker"),))


def _remarks() -> tuple[str, ...]:
    return (
        "A dense cache reserves a request's prompt and all of its `max_tokens` before its first step; a "
        "paged one gives pages as tokens come "
        "([worker/batching.md](../worker/batching.md#the-memory-beside-it)). Both have the same memory, "
        f"{KV_TOKENS:,} tokens, and the same requests, whose answers are much shorter than they may be. A "
        "request that finds no memory waits; one whose memory is taken back while it runs is a preemption.",
    )
