"""All experiments by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sluice_bench.experiments import backends, batching, paged_kv, quant, short_prompts, tensor_parallel
from sluice_bench.experiments.plan import ExperimentName, ExperimentOptions, Plan

PLANS: Mapping[ExperimentName, Callable[[ExperimentOptions], Plan]] = {
    "batching": batching.plan,
    "paged-kv": paged_kv.plan,
    "quant": quant.plan,
    "tensor-parallel": tensor_parallel.plan,
    "short-prompts": short_prompts.plan,
    "backends": backends.plan,
}
