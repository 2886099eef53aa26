"""How far each variant's predictions are from the reference's: quality beside speed, through the gateway.

Nothing is timed here, so it is measured after everything else, and on a model of its own where the one whose
speed is measured is of noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sluice_bench.api_calls import ApiFailed, Server
from sluice_bench.experiments.plan import QualityPlan, Variant
from sluice_bench.experiments.stack import MODEL_NAME, Stack
from sluice_bench.formatting import number
from sluice_bench.processes import ServerFailed
from sluice_bench.quality.divergence import NotComparable
from sluice_bench.quality.measurement import Backend, QualitySettings, measure_quality
from sluice_bench.quality.passages import text_of_corpus
from sluice_bench.quality.quality_record import QualityRecord
from sluice_bench.stats.estimate import Estimate
from sluice_bench.target import Target
from sluice_bench.workloads.corpus import load_corpus


def measure_variants(
    stack: Stack, plan: QualityPlan, command: str, on_step: Callable[[str], None]
) -> Iterator[QualityRecord]:
    """Each variant but the reference beside it, on engines that are up. Raises `ServerFailed`."""
    corpus, target = load_corpus(), Target.parse(stack.gateway.url)
    reference, *others = (_backend(variant, target) for variant in plan.group.variants)
    for backend in others:
        on_step(f"{backend.variant}: quality")
        settings = QualitySettings(
            backend=backend,
            reference=reference,
            text=text_of_corpus(corpus),
            most_windows=plan.windows,
            prompts=[prompt.turns[0] for prompt in corpus.suite("short")[: plan.prompts]],
            command=command,
        )
        try:
            yield measure_quality(settings, lambda _: None)
        except (ApiFailed, NotComparable) as error:
            raise ServerFailed(f"{backend.variant}: {error}") from error


def _backend(variant: Variant, target: Target) -> Backend:
    return Backend(variant.name, Server(target=target, model=MODEL_NAME, headers=variant.headers))


def quality_table(model: str, records: tuple[QualityRecord, ...]) -> str:
    """What quality the variants have, beside the reference, with 95 % intervals."""
    first = records[0]
    lines = [
        f"## Quality of {model}",
        "",
        "| | perplexity | KL from the reference, nats a token, at least | same most likely token "
        "| same greedy answers |",
        "|---|--:|--:|--:|--:|",
    ]
    if first.reference is not None:
        lines.append(f"| {first.reference.variant} | {_shown(first.reference.perplexity, 3)} | – | – | – |")
    lines += [_line(record) for record in records]
    return "\n".join(
        [
            *lines,
            "",
            f"Perplexity over {first.windows} windows of {first.text}, {number(first.scored_tokens)} tokens; "
            "intervals hold the true value in 95 of 100 such texts.",
        ]
    )


def _line(record: QualityRecord) -> str:
    divergence, agreement = record.divergence, record.agreement
    cells = [
        record.backend.variant,
        _shown(record.backend.perplexity, 3),
        _shown(divergence.kl_lower_bound, 5) if divergence else "–",
        _shown(divergence.same_top_token, 1, share=True) if divergence else "–",
        _shown(agreement.same_answers, 0, share=True) if agreement else "–",
    ]
    return "| " + " | ".join(cells) + " |"


def _shown(found: Estimate, digits: int, *, share: bool = False) -> str:
    def text(value: float) -> str:
        return f"{value:.{digits}%}" if share else f"{value:.{digits}f}"

    if found.low is None or found.high is None:
        return text(found.value)
    return f"{text(found.value)} ({text(found.low)}–{text(found.high)})"
