"""The table of quality beside speed."""

from __future__ import annotations

from sluice_bench.experiments.variant_quality import quality_table
from sluice_bench.quality.divergence import Divergence
from sluice_bench.quality.greedy import Agreement
from sluice_bench.quality.quality_record import BackendQuality, QualityRecord
from sluice_bench.stats.estimate import Estimate


def around(value: float, by: float | None = None) -> Estimate:
    low, high = (None, None) if by is None else (value - by, value + by)
    return Estimate(value=value, low=low, high=high, n=9)


def record(variant: str, perplexity: float, **more: object) -> QualityRecord:
    def backend(name: str, value: float) -> BackendQuality:
        return BackendQuality(variant=name, url="http://h", model="m", perplexity=around(value, 0.5))

    usual: dict[str, object] = {
        "command": "c",
        "started_utc": "2026-01-01T00:00:00+00:00",
        "text": "some text",
        "text_sha256": "t",
        "window": 512,
        "cut_by": "tokens",
        "windows": 9,
        "scored_tokens": 1234,
        "backend": backend(variant, perplexity),
        "reference": backend("bf16", 10.0),
    }
    return QualityRecord(**usual | more)  # type: ignore[arg-type]


def test_each_variant_stands_beside_the_reference_with_its_intervals() -> None:
    divergence = Divergence(
        kl_lower_bound=around(0.00123, 0.0001),
        remainder=0.01,
        same_top_token=around(0.99, 0.01),
        alternatives=20,
        tokens=1234,
    )
    agreement = Agreement(
        prompts=8, max_tokens=48, same_answers=around(0.75), common_share=None, bleu=around(0.9)
    )
    table = quality_table(
        "sluice-tiny",
        (record("int8", 11.0, divergence=divergence, agreement=agreement), record("int4", 12.0)),
    )

    assert "## Quality of sluice-tiny" in table
    assert "| bf16 | 10.000 (9.500–10.500) | – | – | – |" in table
    assert (
        "| int8 | 11.000 (10.500–11.500) | 0.00123 (0.00113–0.00133) | 99.0% (98.0%–100.0%) | 75% |" in table
    )
    assert "| int4 | 12.000 (11.500–12.500) | – | – | – |" in table
    assert "9 windows of some text, 1,234 tokens" in table
