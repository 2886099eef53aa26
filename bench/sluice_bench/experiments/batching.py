"""What each batching mode of the worker buys: the same requests, one mode at a time, through the gateway.

A mode is a policy of one engine (docs/worker/batching.md); everything else is the same. KV memory is little,
so that reserving it costs something.
"""

from __future__ import annotations

from sluice_bench.experiments.loads import AnswerLengths, Load, numbered, unforeseen_answers
from sluice_bench.experiments.models import Dtype, ModelChoice, chosen_model, kv_bytes
from sluice_bench.experiments.plan import (
    Column,
    ExperimentOptions,
    Group,
    Plan,
    Variant,
    chosen_variants,
)
from sluice_bench.experiments.requirement import need_stack
from sluice_bench.experiments.stack import Engine, engine_threads, worker_engine

MODES = ("none", "static", "dynamic", "continuous")
KNOWN = (*MODES, *(f"{mode}-dense" for mode in MODES))
"""By name; with a paged KV cache unless the name says otherwise."""

LENGTHS = AnswerLengths(mean=64, least=16, most=192, allowed=256)
QUICK_LENGTHS = AnswerLengths(mean=8, least=2, most=16, allowed=128)
MAX_BATCH, BATCH_WAIT_MS = 8, 50
MAX_MODEL_LEN = 1024
KV_TOKENS = 4096
"""Of the cache: eight requests with a prompt of 256 tokens and all that they may take."""

COLUMNS = (
    Column(key="mean_batch", title="mean batch"),
    Column(key="kv_utilisation", title="KV used of reserved", percent=True),
    Column(key="preemptions", title="preemptions"),
)


def plan(options: ExperimentOptions) -> Plan:
    """The experiment. Raises `RequirementMissing`, `ServerFailed`, `ValueError`."""
    need_stack()
    names = chosen_variants(KNOWN, MODES, options.only)
    model = chosen_model(options)
    return Plan(
        name="batching",
        title="What each way of batching buys",
        remarks=_remarks(options),
        model=model.label,
        groups=tuple(_group(name, model) for name in names),
        loads=_loads(options, model),
        repeats=options.repeats_or(3),
        quick=options.quick,
        reference="none" if "none" in names else names[0],
        headline="tokens_per_s",
        columns=COLUMNS,
        kv_bytes_per_token=kv_bytes(model.folder, dtype_of(model)),
    )


def worker_options(model: ModelChoice) -> list[str]:
    """Of every worker with a small cache: prompts are known to nobody, and memory is exact.

    A light model computes in float32: in bfloat16 it would be so fast that client and gateway, not the
    engine, bound what can be had of it.
    """
    dtype = dtype_of(model)
    return [
        *("--dtype", dtype, "--no-prefix-caching", "--threads", str(engine_threads())),
        *("--max-model-len", str(MAX_MODEL_LEN)),
        *("--kv-memory", str(kv_bytes(model.folder, dtype, KV_TOKENS))),
    ]


def dtype_of(model: ModelChoice) -> Dtype:
    """Of weights and KV cache."""
    return "bfloat16" if model.heavy else "float32"


def _group(name: str, model: ModelChoice) -> Group:
    return Group(engines=(_engine(name, model),), variants=(Variant(name=name, engine="worker"),))


def _engine(name: str, model: ModelChoice) -> Engine:
    mode, _, dense = name.partition("-")
    policy = ["--batching", mode, "--kv", dense or "paged"]
    policy += ["--max-batch", str(MAX_BATCH), "--batch-wait-ms", str(BATCH_WAIT_MS)]
    return worker_engine("worker", model.folder, [*policy, *worker_options(model)])


def _loads(options: ExperimentOptions, model: ModelChoice) -> tuple[Load, ...]:
    """One user, ten users who wait for their answers, and users who do not wait.

    More requests a second than one at a time can answer and fewer than many can; of a heavy model, less of
    everything.
    """
    if options.quick:
        few = unforeseen_answers("short", QUICK_LENGTHS)
        sizes, rate = (1, 4, 4), 20.0
    elif model.heavy:
        few = unforeseen_answers("short", LENGTHS)
        sizes, rate = (3, 20, 20), 0.5
    else:
        few = unforeseen_answers("short", LENGTHS)
        sizes, rate = (16, 100, 100), 10.0
    one, ten, random = sizes
    return numbered(
        [
            Load(name="1 at a time", requests=one, concurrency=1, workload_of=few),
            Load(name="10 at a time", requests=ten, concurrency=10, workload_of=few),
            Load(name=f"Poisson, {rate:g} a second", requests=random, rate_per_s=rate, workload_of=few),
        ]
    )


def _remarks(options: ExperimentOptions) -> tuple[str, ...]:
    lengths = QUICK_LENGTHS if options.quick else LENGTHS
    return (
        "What the modes are: [worker/batching.md](../worker/batching.md). One worker runs at a time behind "
        "the gateway and is started anew for every mode and repeat; modes take turns in an order drawn for "
        "each repeat.",
        f"Prompts are those of the suite `short`, answers have {lengths.least} to {lengths.most} tokens, "
        f"about {lengths.mean} in the mean before the longest are cut (geometric), and each request may take "
        f"{lengths.allowed}: the server learns how long an answer is when it ends. The KV cache holds "
        f"{KV_TOKENS:,} tokens; a static or dynamic batch has at most {MAX_BATCH} requests and waits "
        f"{BATCH_WAIT_MS} ms.",
    )
