"""A calibration as it is kept and shown: the fitted shape, and its errors on its own run and on another."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sluice_bench.simulator.engine_shape import EngineShape
from sluice_bench.simulator.fit import ITL_BAR, TTFT_BAR, Comparison


class FitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One calibration."""

    variant: str
    """The recorded run's own word for the engine."""
    shape: EngineShape
    fitted: Comparison
    """On the run that it was fitted to."""
    foretold: Comparison | None
    """On another one."""


def fit_section(fits: Sequence[FitRecord]) -> str:
    """A section of the page; empty without calibrations."""
    if not fits:
        return ""
    lines = [
        "## Calibration",
        "",
        f"Of the model against recorded runs of real engines; the bars are {TTFT_BAR:.0%} for TTFT p90 and "
        f"{ITL_BAR:.0%} for ITL, on a run that the model was not fitted to.",
        "",
        "| engine | run | requests | TTFT p50 ms, real / simulated | p90 | error | ITL ms | error | met? |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for record in fits:
        for word, found in (("fitted", record.fitted), ("foretold", record.foretold)):
            if found is not None:
                lines.append(_line(record.variant, word, found))
    lines += ["", *(f"- {record.variant}: {shape_text(record.shape)}" for record in fits)]
    return "\n".join(lines)


def _line(variant: str, word: str, found: Comparison) -> str:
    met = met_bars(found)
    cells = (
        variant,
        word,
        str(found.requests),
        _pair(found.ttft_p50_s),
        _pair(found.ttft_p90_s),
        f"{found.ttft_p90_error:+.1%}",
        _pair(found.itl_s),
        f"{found.itl_error:+.1%}",
        "" if word == "fitted" else ("yes" if met else "**no**"),
    )
    return "| " + " | ".join(cells) + " |"


def met_bars(found: Comparison) -> bool:
    """Whether both errors are within their bars."""
    return abs(found.ttft_p90_error) <= TTFT_BAR and abs(found.itl_error) <= ITL_BAR


def comparison_text(word: str, found: Comparison) -> str:
    """A line for a terminal."""
    return (
        f"{word} {found.requests} requests, recorded / simulated ms: TTFT p50 {_pair(found.ttft_p50_s)}, p90 "
        f"{_pair(found.ttft_p90_s)} ({found.ttft_p90_error:+.1%}), ITL {_pair(found.itl_s)} "
        f"({found.itl_error:+.1%})"
    )


def _pair(seconds: tuple[float, float]) -> str:
    return f"{1e3 * seconds[0]:.1f} / {1e3 * seconds[1]:.1f}"


def shape_text(shape: EngineShape) -> str:
    """The fitted numbers in a line."""
    return (
        f"prefill {shape.prefill_tokens_per_s:,.0f} tokens/s, ITL {1e3 * shape.step_s:.2f} ms + "
        f"{1e3 * shape.sequence_s:.3f} ms × batch, {shape.chunk_tokens} tokens a step, overhead "
        f"{1e3 * shape.overhead_s:.1f} ms"
    )
