"""Runs the variants of one model, one beside the reference at a time, and frees each before the next."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import get_args

import msgspec

from sluice_worker.config import DTypeName, EngineConfig, QuantizationName
from sluice_worker.engine import Engine
from sluice_worker.errors import ConfigError
from sluice_worker.loading.hf_config import read_model_config
from sluice_worker.loading.model_folder import resolve_model
from sluice_worker.quality.comparison import agree, continuations, diverge
from sluice_worker.quality.corpus import Corpus
from sluice_worker.quality.report import QualityReport, VariantQuality, reference_quality, variant_quality
from sluice_worker.quality.samples import Sample, SampleMaker

DTYPES = tuple(name for name in get_args(DTypeName) if name != "auto")
QUANTIZATIONS = tuple(name for name in get_args(QuantizationName) if name != "none")
KV_INT8 = "kv-int8"
"""A variant's name for 8-bit keys and values."""

MAX_NUM_SEQS = 16
"""Continuations written together."""

Progress = Callable[[str], None]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure."""

    window: int
    """The most tokens of a sample."""
    max_prompts: int
    """Prompts that are continued."""
    max_tokens: int
    """Of a continuation."""


def variant_config(base: EngineConfig, name: str) -> EngineConfig:
    """`base` as a variant's name says: `none`, or settings joined by `+`. Raises `ConfigError`."""
    for part in name.split("+"):
        if part in DTYPES:
            base = msgspec.structs.replace(base, dtype=part)
        elif part in QUANTIZATIONS:
            base = msgspec.structs.replace(base, quantization=part)
        elif part == KV_INT8:
            base = msgspec.structs.replace(base, kv_cache_dtype="int8")
        elif name != "none":
            known = ("none", *QUANTIZATIONS, *DTYPES, KV_INT8)
            raise ConfigError(
                f"--variants has {name!r}; choose among {', '.join(known)}, or join some: int8+bfloat16."
            )
    return base


def measure(
    base: EngineConfig, variants: Sequence[str], corpus: Corpus, settings: Settings, progress: Progress
) -> QualityReport:
    """Compare all variants with the first. Raises `ConfigError` and `ModelLoadError`."""
    if len(variants) < 2 or len(set(variants)) < len(variants):
        raise ConfigError("--variants needs two different names or more: the first is the reference.")
    reference_name, *others = variants
    samples = _samples(base.model, corpus, settings)
    base = _with_small_cache(base, samples, settings)
    configs = {name: variant_config(base, name) for name in variants}
    reference = _Reference(configs[reference_name], samples, settings, progress)
    rows: list[VariantQuality] = []
    for name in others:
        progress(f"{name}: loading")
        rows.append(reference.compare(name, configs[name]))
        gc.collect()
    return reference.report(reference_name, corpus, rows)


class _Reference:
    """The reference, and what it makes of the samples."""

    def __init__(
        self, config: EngineConfig, samples: list[Sample], settings: Settings, progress: Progress
    ) -> None:
        self._samples = samples
        self._prompts = _spread(samples, settings.max_prompts)
        self._settings = settings
        self._progress = progress
        self._engine = Engine(config)
        progress(f"reference: writing {len(self._prompts)} continuations")
        self._written = continuations(self._engine, self._prompts, settings.max_tokens)
        self._nats: list[float] = []

    def compare(self, name: str, config: EngineConfig) -> VariantQuality:
        """One variant beside it, which is gone afterwards."""
        other = Engine(config)
        written = continuations(other, self._prompts, self._settings.max_tokens)
        count = _counter(self._progress, name, len(self._samples))
        divergence = diverge(self._engine, other, self._samples, count)
        self._nats = divergence.reference_nats
        weight_bytes = other.model_info().weight_bytes
        return variant_quality(name, weight_bytes, divergence, agree(self._written, written))

    def report(self, name: str, corpus: Corpus, rows: list[VariantQuality]) -> QualityReport:
        """All figures; `name` and `rows` are the reference's and the others'."""
        info = self._engine.model_info()
        mean_tokens = sum(map(len, self._written)) / len(self._written)
        return QualityReport(
            model=info.model,
            dtype=info.dtype,
            kernels=info.kernels,
            reference=name,
            corpus=corpus.name,
            corpus_sha256=corpus.digest,
            samples=len(self._samples),
            scored_tokens=len(self._nats),
            greedy_prompts=len(self._prompts),
            greedy_max_tokens=self._settings.max_tokens,
            greedy_mean_tokens=mean_tokens,
            variants=[reference_quality(name, info.weight_bytes, self._nats, mean_tokens), *rows],
        )


def _with_small_cache(base: EngineConfig, samples: Sequence[Sample], settings: Settings) -> EngineConfig:
    """With no more KV cache than the samples need, as two engines are there at once.

    And without a prefix cache, so that both go through a prompt in the same steps.
    """
    longest = max(len(sample.token_ids) for sample in samples)
    return msgspec.structs.replace(
        base,
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=longest + settings.max_tokens,
        enable_prefix_caching=False,
    )


def _samples(model: str, corpus: Corpus, settings: Settings) -> list[Sample]:
    folder = resolve_model(model)
    context = read_model_config(folder).max_position_embeddings
    return SampleMaker(folder, min(settings.window, context)).samples(corpus.documents)


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    """At most `count` of them, evenly from beginning to end."""
    if count >= len(samples):
        return samples
    return [samples[i * len(samples) // count] for i in range(count)]


def _counter(progress: Progress, name: str, total: int) -> Callable[[int], None]:
    """Says how far a variant is, about twenty times."""
    step = max(1, total // 20)

    def count(done: int) -> None:
        if done % step == 0 or done == total:
            progress(f"{name}: {done} of {total} samples")

    return count
