"""The figures of `sluice-worker quality`, against the textbook formulas on whole float64 softmaxes."""

from __future__ import annotations

import gc
import json
import math
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import VOCAB_SIZE, SaveModel
from typer.testing import CliRunner

from sluice_worker import runner
from sluice_worker.cli import app
from sluice_worker.config import EngineConfig
from sluice_worker.engine import Engine
from sluice_worker.errors import ConfigError
from sluice_worker.quality import measurement
from sluice_worker.quality.comparison import Agreement, Divergence, agree, diverge, perplexity
from sluice_worker.quality.corpus import Corpus, load_corpus
from sluice_worker.quality.measurement import Settings, measure, variant_config
from sluice_worker.quality.report import VariantQuality, table, variant_quality
from sluice_worker.quality.samples import Sample

SAMPLES = [
    Sample(torch.randint(0, VOCAB_SIZE, (n,), generator=torch.Generator().manual_seed(n)).tolist(), first, 1)
    for n, first in ((2, 1), (40, 1), (90, 33), (70, 69))
]
SETTINGS = Settings(window=64, max_prompts=3, max_tokens=8)


def make_engine(save_model: SaveModel, family: str) -> Engine:
    _, folder = save_model(family)
    return Engine(EngineConfig(model=str(folder), dtype="float32", num_kv_blocks=8, max_chunk=30))


def softmax(save_model: SaveModel, family: str, sample: Sample) -> torch.Tensor:
    """float64 log-probabilities of the scored tokens' positions, [scored, vocab]."""
    model, _ = save_model(family)
    with torch.inference_mode():
        logits = model(torch.tensor([sample.token_ids])).logits[0]
    return logits[sample.first_scored - 1 : -1].double().log_softmax(-1)


def test_divergence_is_what_the_formulas_say(monkeypatch: pytest.MonkeyPatch, save_model: SaveModel) -> None:
    monkeypatch.setattr(runner, "SCORED_ROWS", 7)
    done: list[int] = []
    found = diverge(make_engine(save_model, "llama"), make_engine(save_model, "qwen2"), SAMPLES, done.append)

    nats, kl, same = [], [], []
    for sample in SAMPLES:
        expected, given = softmax(save_model, "llama", sample), softmax(save_model, "qwen2", sample)
        following = torch.tensor(sample.token_ids[sample.first_scored :])
        nats += (-given.gather(1, following[:, None])).flatten().tolist()
        kl += (expected.exp() * (expected - given)).sum(-1).tolist()
        same += (expected.argmax(-1) == given.argmax(-1)).tolist()
    assert found.nats == pytest.approx(nats, abs=1e-4)
    assert found.kl == pytest.approx(kl, abs=1e-4)
    assert found.same_top == same
    assert done == [1, 2, 3, 4]


def test_a_model_beside_its_like_shows_no_difference(save_model: SaveModel) -> None:
    found = diverge(
        make_engine(save_model, "llama"), make_engine(save_model, "llama"), SAMPLES, lambda done: None
    )
    assert found.reference_nats == found.nats
    assert set(found.kl) == {0.0}
    assert all(found.same_top)


def test_agreement_counts_whole_answers_and_common_beginnings() -> None:
    assert agree([[1, 2, 3], [4, 5], [6]], [[1, 2, 3], [4, 9], [6, 7]]) == Agreement(
        identical=1 / 3, common_prefix=(3 + 1 + 1) / 3
    )


def test_figures_of_a_variant() -> None:
    kl = [i / 100 for i in range(200)]
    divergence = Divergence(
        reference_nats=[math.log(2)] * 200,
        nats=[math.log(3)] * 200,
        kl=kl,
        same_top=[True] * 150 + [False] * 50,
    )
    found = variant_quality("x", 7, divergence, Agreement(identical=0.5, common_prefix=2.5))
    assert perplexity(divergence.nats) == pytest.approx(3)
    assert found.perplexity_ratio == pytest.approx(1.5)
    assert found.kl_mean == pytest.approx(0.995)
    assert found.kl_standard_error == pytest.approx(torch.tensor(kl).std().item() / math.sqrt(200))
    assert found.kl_p99 == 1.97  # 198 of 200 are not above it
    assert found.top1_agreement == 0.75


def quality_of_tiny(variants: list[str], progress: Any = lambda line: None) -> Any:
    documents = load_corpus(None).documents[::12]
    base = EngineConfig(model="sluice-tiny", threads=1)
    return measure(base, variants, Corpus("part", "0", documents), SETTINGS, progress)


def test_the_first_variant_is_the_reference_and_each_other_is_gone_before_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive: list[int] = []
    made: list[weakref.ref[Engine]] = []

    def counted(config: EngineConfig) -> Engine:
        gc.collect()
        alive.append(sum(engine() is not None for engine in made))
        engine = Engine(config)
        made.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr(measurement, "Engine", counted)
    lines: list[str] = []
    report = quality_of_tiny(["float32", "bfloat16", "none"], lines.append)

    assert alive == [0, 1, 1]
    names = [variant.name for variant in report.variants]
    assert (report.reference, names) == ("float32", ["float32", "bfloat16", "none"])
    reference, rounded, same = report.variants
    assert (reference.perplexity_ratio, reference.greedy_common_prefix) == (1.0, report.greedy_mean_tokens)
    assert 0 < rounded.kl_mean < 1e-3 and rounded.kl_p99 > rounded.kl_mean
    assert (same.kl_mean, same.perplexity, same.greedy_agreement) == (0.0, reference.perplexity, 1.0)
    assert any("bfloat16" in line for line in lines)


@pytest.mark.parametrize("variants", [["none"], ["none", "none"]])
def test_there_must_be_something_to_compare(variants: list[str]) -> None:
    with pytest.raises(ConfigError, match="two different names"):
        quality_of_tiny(variants)


def test_a_variant_that_does_not_exist_is_refused() -> None:
    for name in ("int7", "", "int8+", "none+int8"):
        with pytest.raises(ConfigError, match=f"{re.escape(repr(name))}; choose among none"):
            variant_config(EngineConfig(model="x"), name)


def test_a_variant_is_the_model_with_some_settings() -> None:
    base = EngineConfig(model="x", dtype="float32")
    assert variant_config(base, "none") == base
    assert variant_config(base, "int8") == EngineConfig(model="x", dtype="float32", quantization="int8")
    assert variant_config(base, "int4+kv-int8").kv_cache_dtype == "int8"
    assert variant_config(base, "int4+bfloat16") == EngineConfig(
        model="x", dtype="bfloat16", quantization="int4"
    )


def test_the_table_has_a_line_a_variant() -> None:
    report = quality_of_tiny(["none", "bfloat16"])
    heading, _, columns, *rows = table(report).splitlines()
    assert "8 samples, 3 prompts" in heading  # two conversations are longer than the window
    assert columns.split()[0] == "variant"
    assert [row.split()[0] for row in rows] == ["none", "bfloat16"]
    assert len({len(line) for line in (columns, *rows)}) == 1


def test_the_command_prints_the_table_and_writes_the_figures(tmp_path: Path) -> None:
    corpus, figures = tmp_path / "corpus.txt", tmp_path / "figures.json"
    corpus.write_text("Once upon a time there was a fox. " * 20)
    arguments = ["quality", "--corpus", str(corpus), "--json", str(figures), "--threads", "1"]
    arguments += ["--variants", "none, bfloat16", "--window", "64", "--prompts", "2", "--max-tokens", "4"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "bfloat16: loading" in result.stderr
    written = json.loads(figures.read_text())
    assert set(written["variants"][0]) == set(VariantQuality.__struct_fields__)
    assert f"{written['variants'][1]['perplexity']:.4f}" in result.stdout
    assert written["corpus"] == "corpus.txt"


def test_the_command_says_in_a_line_what_is_wrong() -> None:
    result = CliRunner().invoke(app, ["quality", "--variants", "none,int7"])
    assert result.exit_code == 1
    assert result.stderr.startswith("sluice-worker: --variants has 'int7'; choose among none, int8, ")


def test_the_bundled_models_quantized_variants_are_near_the_unquantized_one() -> None:
    """The bars of the project: perplexity within 1 % with int8, within 4 % with int4."""
    documents = load_corpus(None).documents[::2]
    report = measure(
        EngineConfig(model="sluice-tiny", threads=1),
        ["none", "int8", "int4"],
        Corpus("half", "0", documents),
        Settings(window=1024, max_prompts=20, max_tokens=32),
        lambda line: None,
    )
    none, int8, int4 = report.variants
    assert report.scored_tokens > 1500
    assert abs(int8.perplexity_ratio - 1) < 0.01
    assert abs(int4.perplexity_ratio - 1) < 0.04
    assert int8.kl_mean < 0.001 < int4.kl_mean < 0.01
    assert int8.greedy_agreement >= 0.8 and int4.greedy_agreement >= 0.6
    assert int4.weight_bytes < int8.weight_bytes < none.weight_bytes
