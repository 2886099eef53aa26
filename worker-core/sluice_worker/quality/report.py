"""The figures of a comparison: as a Struct for JSON, and as a table to read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from sluice_worker.quality.comparison import Agreement, Divergence, perplexity

_COLUMNS = (
    "variant",
    "weights",
    "perplexity",
    "ratio",
    "mean KL",
    "± s.e.",
    "KL p99",
    "same top token",
    "same answers",
    "common tokens",
)


class VariantQuality(msgspec.Struct, frozen=True, kw_only=True):
    """One variant beside the reference. KL divergences are nats per token, from the reference."""

    name: str
    weight_bytes: int
    """Memory of the weights."""
    perplexity: float
    perplexity_ratio: float
    kl_mean: float
    kl_standard_error: float
    kl_p99: float
    top1_agreement: float
    """Share of tokens at which both find the same one most likely."""
    greedy_agreement: float
    """Share of prompts whose greedy continuation is the same."""
    greedy_common_prefix: float
    """Mean tokens before the first difference."""


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` writes."""

    model: str
    dtype: str
    kernels: str
    reference: str
    """The variant that the others are compared with: the first of `variants`."""
    corpus: str
    corpus_sha256: str
    samples: int
    scored_tokens: int
    greedy_prompts: int
    greedy_max_tokens: int
    greedy_mean_tokens: float
    """Of the reference's continuations."""
    variants: list[VariantQuality]


def reference_quality(
    name: str, weight_bytes: int, nats: Sequence[float], greedy_mean_tokens: float
) -> VariantQuality:
    """The reference beside itself; `nats` is what each token cost it."""
    return VariantQuality(
        name=name,
        weight_bytes=weight_bytes,
        perplexity=perplexity(nats),
        perplexity_ratio=1.0,
        kl_mean=0.0,
        kl_standard_error=0.0,
        kl_p99=0.0,
        top1_agreement=1.0,
        greedy_agreement=1.0,
        greedy_common_prefix=greedy_mean_tokens,
    )


def variant_quality(
    name: str, weight_bytes: int, divergence: Divergence, agreement: Agreement
) -> VariantQuality:
    """Figures from the numbers of all tokens, of which there is at least one."""
    kl, count = divergence.kl, len(divergence.kl)
    mean = math.fsum(kl) / count
    variance = math.fsum((value - mean) ** 2 for value in kl) / max(1, count - 1)
    found = perplexity(divergence.nats)
    return VariantQuality(
        name=name,
        weight_bytes=weight_bytes,
        perplexity=found,
        perplexity_ratio=found / perplexity(divergence.reference_nats),
        kl_mean=mean,
        kl_standard_error=math.sqrt(variance / count),
        kl_p99=sorted(kl)[math.ceil(0.99 * count) - 1],
        top1_agreement=sum(divergence.same_top) / count,
        greedy_agreement=agreement.identical,
        greedy_common_prefix=agreement.common_prefix,
    )


def table(report: QualityReport) -> str:
    """A heading and a line for each variant, in columns."""
    rows = [_COLUMNS, *(_cells(variant) for variant in report.variants)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [_line(row, widths) for row in rows]
    heading = (
        f"{report.model}, {report.dtype}, {report.kernels} kernels; corpus {report.corpus}: "
        f"{report.scored_tokens} tokens of {report.samples} samples, {report.greedy_prompts} prompts with "
        f"{report.greedy_mean_tokens:.1f} tokens of answer"
    )
    return "\n".join([heading, "", *lines])


def _cells(variant: VariantQuality) -> tuple[str, ...]:
    return (
        variant.name,
        f"{variant.weight_bytes / 1e6:.1f} MB",
        f"{variant.perplexity:.4f}",
        f"{variant.perplexity_ratio:.4f}",
        f"{variant.kl_mean:.5f}",
        f"{variant.kl_standard_error:.5f}",
        f"{variant.kl_p99:.4f}",
        f"{variant.top1_agreement:.2%}",
        f"{variant.greedy_agreement:.1%}",
        f"{variant.greedy_common_prefix:.1f}",
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest])
