"""One engine beside another: ours, llama.cpp's server and vLLM behind one gateway, chosen by `X-Backend`.

All run the same weights in bfloat16 on all cores, and are asked in token ids, so that prompts and answers
have the same length for each. The peers run as in the worker's report (`worker_targets.py`).
"""

from __future__ import annotations

from pathlib import Path

from sluice_bench.checkpoint import plain_ids
from sluice_bench.experiments.loads import Load, numbered, token_prompts
from sluice_bench.experiments.models import ModelChoice, chosen_model
from sluice_bench.experiments.plan import (
    Column,
    ExperimentOptions,
    Group,
    LeftOut,
    Plan,
    Variant,
    chosen_variants,
)
from sluice_bench.experiments.requirement import RequirementMissing, need_stack, needed_llama_cpp, vllm_python
from sluice_bench.experiments.stack import Engine, engine_threads, worker_engine
from sluice_bench.llama_cpp import LlamaCpp, installed_llama_cpp
from sluice_bench.model_files import BF16, kept_gguf
from sluice_bench.peer_packages import PeerUnavailable
from sluice_bench.worker_targets import llama_command, vllm_command, vllm_environment

WORKER, LLAMA_CPP, VLLM = "worker", "llama-cpp", "vllm"
KNOWN = (WORKER, LLAMA_CPP, VLLM)
USUAL_MODEL = "smollm-135m"
_CONTEXT = 1024
_KV_MEMORY = "1GiB"


def plan(options: ExperimentOptions) -> Plan:
    """The experiment. Raises `RequirementMissing`, `ServerFailed`, `ValueError`."""
    need_stack()
    names = chosen_variants(KNOWN, KNOWN, options.only)
    llama_cpp = _llama_cpp(options) if LLAMA_CPP in names else None
    vllm = _vllm_python(options)
    left_out = [LeftOut(VLLM, vllm)] if VLLM in names and isinstance(vllm, str) else []
    model = chosen_model(options, USUAL_MODEL)
    engines = []
    for name in names:
        if name == WORKER:
            engines.append(_worker(model))
        elif name == LLAMA_CPP and llama_cpp is not None:
            engines.append(_llama(model, llama_cpp, options))
        elif isinstance(vllm, Path):
            engines.append(_vllm(model, vllm))
    return Plan(
        name="backends",
        title="One engine beside another",
        remarks=(
            "Engines with the same weights in bfloat16 are up together behind one gateway; the header "
            "`X-Backend` chooses between them. Who is not asked has nothing to do. All are asked in token "
            "ids, so prompts and answers are equally long for each. The worker's own report, "
            "[worker-cpu.md](worker-cpu.md), compares them more closely: without a gateway, each alone.",
        ),
        model=model.label,
        groups=(
            Group(
                engines=tuple(engines),
                variants=tuple(
                    Variant(name=engine.name, engine=engine.name, headers=(("X-Backend", engine.name),))
                    for engine in engines
                ),
            ),
        ),
        loads=_loads(options, model),
        repeats=options.repeats_or(3),
        quick=options.quick,
        reference=engines[0].name,
        headline="tokens_per_s",
        columns=(Column(key="resident_mb", title="resident MB"),),
        left_out=tuple(left_out),
    )


def _llama_cpp(options: ExperimentOptions) -> LlamaCpp:
    if not options.build:
        return needed_llama_cpp(options.peers_folder)
    try:
        return installed_llama_cpp(options.peers_folder, lambda _: None)
    except PeerUnavailable as error:
        raise RequirementMissing(f"{error}.") from error


def _vllm_python(options: ExperimentOptions) -> Path | str:
    """Or why it is left out."""
    if options.quick:
        return "it takes minutes to start, and this is --quick"
    return vllm_python(options.peers_folder)


def _loads(options: ExperimentOptions, model: ModelChoice) -> tuple[Load, ...]:
    ids = plain_ids(model.folder)
    prompts = token_prompts(ids, 16, 8) if options.quick else token_prompts(ids, 128, 64)
    one, four = (1, 4) if options.quick else (4, 16)
    return numbered(
        [
            Load(name="1 at a time", requests=one, concurrency=1, workload_of=prompts),
            Load(name="4 at a time", requests=four, concurrency=4, workload_of=prompts),
        ]
    )


def _worker(model: ModelChoice) -> Engine:
    options = ["--dtype", "bfloat16", "--no-prefix-caching", "--kv-memory", _KV_MEMORY]
    return worker_engine(
        WORKER, model.folder, [*options, "--max-model-len", str(_CONTEXT), "--threads", str(engine_threads())]
    )


def _llama(model: ModelChoice, programs: LlamaCpp, options: ExperimentOptions) -> Engine:
    gguf = kept_gguf(model.folder, options.models_folder, BF16, programs.quantize)
    return Engine(
        name=LLAMA_CPP,
        command=tuple(llama_command(programs.server, gguf, "{port}", engine_threads())),
        adapter="openai_compatible",
        ready_path="/health",
    )


def _vllm(model: ModelChoice, python: Path) -> Engine:
    return Engine(
        name=VLLM,
        command=tuple(vllm_command(python, model.folder, "{port}", _CONTEXT)),
        adapter="openai_compatible",
        ready_path="/health",
        environment=vllm_environment(engine_threads()),
    )
