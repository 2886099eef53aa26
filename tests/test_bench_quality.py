"""`sluice-bench quality` and `audit` through the gateway, held against the worker's own measurement."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from repository import ROOT
from running_stack import Stack, interrupt, start

from sluice_bench.quality.quality_record import QualityRecord
from sluice_worker.config import EngineConfig
from sluice_worker.quality.corpus import Corpus, Document
from sluice_worker.quality.measurement import Settings, measure

BIN = Path(sys.executable).parent
MODEL = "worker-core/models/sluice-tiny"
WINDOW = 128
CONFIG = """\
backends:
  - {name: plain, adapter: worker, managed: {args: [--kv-memory, 8MiB, --no-prefix-caching]}}
  - {name: small, adapter: worker, managed: {args: [--quantization, int8, --kv-memory, 8MiB]}}
"""
ALL_READY_WITHIN_S = 60.0
NATS = 1e-5
"""How far two measurements of the same log-probabilities may be apart, per token: rounding to float32."""

TEXT = (
    "Once upon a time there was a little girl named Lily. She liked to play in the garden with her dog. One "
    "day they found a red ball under a tree. Lily was happy, and her mother smiled. The capital of France is "
    "Paris. "
    "A young lion is called a cub, and the month before April is March. "
) * 6


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("quality")
    (folder / "sluice.yaml").write_text(CONFIG)
    running = start([str(BIN / "sluice"), "serve", "--config", str(folder / "sluice.yaml")], folder)
    deadline = time.monotonic() + ALL_READY_WITHIN_S
    while running.metric("sluice_gateway_endpoint_healthy") < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    yield running
    assert interrupt(running) == []


def bench(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "sluice-bench"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


def test_perplexity_is_the_workers_own_and_kl_a_lower_bound_of_it(stack: Stack, tmp_path: Path) -> None:
    """The worker reads the same windows in its own process, with all of each distribution."""
    text, output = tmp_path / "text.txt", tmp_path / "quality.json"
    text.write_text(TEXT)
    corpus = Corpus(name="text", digest="", documents=[Document(text=TEXT)])
    settings = Settings(window=WINDOW, max_prompts=1, max_tokens=1)
    own = measure(
        EngineConfig(model=str(ROOT / MODEL)), ["none", "int8"], corpus, settings, lambda line: None
    )

    result = bench(
        *("quality", "--url", stack.url, "--header", "X-Quant: int8", "--variant", "int8"),
        *("--reference", stack.url, "--reference-header", "X-Quant: none", "--reference-variant", "none"),
        *("--text", text, "--window", WINDOW, "--prompts", "4", "--max-tokens", "8", "--output", output),
    )

    assert result.returncode == 0, result.stderr
    found = msgspec.json.decode(output.read_bytes(), type=QualityRecord)
    assert found.reference is not None and found.divergence is not None and found.agreement is not None
    plain, small = own.variants
    assert (found.windows, found.scored_tokens) == (own.samples, own.scored_tokens)
    assert found.reference.perplexity.value == pytest.approx(plain.perplexity, rel=NATS)
    assert found.backend.perplexity.value == pytest.approx(small.perplexity, rel=NATS)
    assert found.divergence.same_top_token.value == pytest.approx(small.top1_agreement, abs=1e-6)
    assert 0 < found.divergence.kl_lower_bound.value <= small.kl_mean + 1e-6
    assert found.divergence.kl_lower_bound.value == pytest.approx(small.kl_mean, rel=0.2)
    assert found.agreement.common_share is not None


def test_twenty_alternatives_come_through_the_gateway(stack: Stack) -> None:
    body = {
        "model": "sluice-tiny",
        "prompt": "Once upon a time",
        "echo": True,
        "logprobs": 20,
        "max_tokens": 0,
    }
    answer = httpx.post(f"{stack.url}/v1/completions", json=body, headers={"X-Quant": "none"}, timeout=60)
    tops: list[Any] = answer.json()["choices"][0]["logprobs"]["top_logprobs"]

    assert tops[0] is None
    assert all(len(top) in (20, 21) for top in tops[1:])


def test_the_worker_passes_the_audit(stack: Stack, tmp_path: Path) -> None:
    output = tmp_path / "audit.json"

    result = bench("audit", "--url", stack.url, "--header", "X-Quant: none", "--output", output)

    findings = {f["check"]: f["verdict"] for f in json.loads(output.read_bytes())["findings"]}
    told = {"truncated answers", "seed", "chunks and tokens", "usage and /tokenize"}
    assert {check for check, verdict in findings.items() if verdict == "pass"} >= told, result.stdout
    assert findings["cached answers"] != "fail", result.stdout
    assert result.returncode == 0
