"""What Sluice's worker counted while a load ran, as figures: differences of its own counters."""

from __future__ import annotations

from collections.abc import Mapping

_PREFIX, _SUFFIX = "sluice_worker_", "_total"


def counters(page: str) -> dict[str, float]:
    """Counters without labels on a worker's metrics page, by name without prefix and `_total`."""
    pairs = (line.split(" ") for line in page.splitlines() if line.startswith(_PREFIX))
    return {
        name.removeprefix(_PREFIX).removesuffix(_SUFFIX): float(value)
        for name, value in pairs
        if name.endswith(_SUFFIX)
    }


def worker_figures(
    before: Mapping[str, float], after: Mapping[str, float], kv_bytes_per_token: int
) -> dict[str, float]:
    """Figures of a load from the counters around it; empty for an engine that has none.

    `mean_batch`: sequences in a step. `kv_utilisation`: tokens in the cache over tokens reserved, mean over
    steps. `kv_bytes_a_token`: memory reserved for each token held. `preemptions`: sequences put back to wait.
    """
    counted = {name: value - before.get(name, 0.0) for name, value in after.items()}
    steps, reserved = counted.get("steps", 0.0), counted.get("kv_reserved_steps", 0.0)
    held = counted.get("kv_held_steps", 0.0)
    if not steps:
        return {}
    figures = {
        "mean_batch": counted["sequence_steps"] / steps,
        "preemptions": counted["preemptions"],
    }
    if reserved and held:
        figures["kv_utilisation"] = held / reserved
        figures["kv_bytes_a_token"] = kv_bytes_per_token * reserved / held
    return figures
