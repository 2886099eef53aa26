"""The whole measurement with tiny counts: real gateway, worker and peers. No figure is looked at."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import psutil
import pytest
from typer.testing import CliRunner

from sluice_bench.baseline import BUNDLED_MODEL, Baseline
from sluice_bench.checkpoint import SHAPES, tensor_shapes
from sluice_bench.cli import app

MODEL = Path(__file__).parents[2] / BUNDLED_MODEL
pytestmark = pytest.mark.usefixtures("few_probes")


def measured(tmp_path: Path, part: str) -> Baseline:
    page = tmp_path / "page.md"
    others = psutil.Process().children()
    arguments = [
        "baseline",
        "--quick",
        "--only",
        part,
        "--repeats",
        "1",
        "--threads",
        "1",
        "--bundled-model",
        str(MODEL),
    ]
    result = CliRunner().invoke(app, [*arguments, "--output", str(page)])
    assert result.exit_code == 0, result.output
    assert "mean nothing" in page.read_text()
    assert psutil.Process().children() == others
    return msgspec.json.decode(page.with_suffix(".json").read_bytes(), type=Baseline)


@pytest.mark.slow
def test_the_gateway_is_measured_beside_direct_and_the_common_proxy(tmp_path: Path) -> None:
    rows = measured(tmp_path, "gateway").gateway
    assert {(row.target, row.kind) for row in rows} == {
        (target, kind) for target in ("direct", "sluice", "fastapi-httpx") for kind in ("plain", "stream")
    }
    assert sum(row.failures for row in rows) == 0
    events = {row.target: row.units / row.requests for row in rows if row.kind == "stream"}
    assert events["sluice"] == events["direct"] == events["fastapi-httpx"] == 23  # role, 20, finish, [DONE]


@pytest.mark.slow
def test_the_worker_is_measured_beside_the_roof_and_transformers(tmp_path: Path) -> None:
    bundled, random = measured(tmp_path, "worker").worker
    parameters = sum(math.prod(size) for _, size in tensor_shapes(SHAPES["toy"]))
    assert random.worker_info["num_parameters"] == parameters
    for figures in (bundled, random):
        assert figures.roof_tokens_per_s > 0
        assert {(row.engine, row.streams) for row in figures.rows} == {
            (engine, streams) for engine in ("sluice-worker", "transformers") for streams in (1, 4)
        }
        assert [row.output_tokens for row in figures.rows] == [8 * row.streams for row in figures.rows]
        assert all(row.failures == 0 and row.cached_tokens == 0 for row in figures.rows)
