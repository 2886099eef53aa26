"""`sluice-bench quality` against a model whose figures can be computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from sluice_bench.cli import app
from sluice_bench.quality.quality_record import QualityRecord

from ..http_double import serving
from .letter_model import LetterModel

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps. a cat looks on, unseen. " * 3


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["quality", *args])


def words(result: Result) -> str:
    """What it said, however its lines were broken."""
    return " ".join(result.output.split())


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def measured(path: Path) -> QualityRecord:
    return msgspec.json.decode(path.read_bytes(), type=QualityRecord)


def pieces(length: int) -> list[str]:
    return [TEXT[start : start + length] for start in range(0, len(TEXT), length)]


def test_perplexity_is_what_the_model_says(text: Path, tmp_path: Path) -> None:
    model, output = LetterModel(2.0), tmp_path / "quality.json"
    with serving(model.answer) as url:
        result = run("--url", url, "--text", str(text), "--window", "40", "--output", str(output))

    assert result.exit_code == 0, result.output
    found = measured(output)
    assert found.backend.perplexity.value == pytest.approx(model.perplexity(pieces(40)), rel=1e-9)
    assert found.backend.perplexity.low is not None
    assert found.backend.perplexity.low < found.backend.perplexity.value
    assert (found.windows, found.cut_by, found.backend.model) == (7, "tokens", "letters")
    assert found.scored_tokens == len(TEXT) - 7
    assert found.reference is None
    assert "perplexity" in result.output


def test_beside_a_reference_the_divergence_is_a_lower_bound_and_says_so(text: Path, tmp_path: Path) -> None:
    sharp, dull, output = LetterModel(3.0), LetterModel(2.0), tmp_path / "quality.json"
    with serving(sharp.answer) as here, serving(dull.answer) as there:
        result = run(
            *("--url", there, "--reference", here, "--reference-variant", "sharp", "--variant", "dull"),
            *("--text", str(text), "--window", "40", "--output", str(output), "--prompts", "8"),
        )

    assert result.exit_code == 0, result.output
    found = measured(output)
    assert found.divergence is not None and found.agreement is not None and found.reference is not None
    true_value = sharp.divergence(dull, pieces(40))
    assert 0 < found.divergence.kl_lower_bound.value <= true_value + 1e-9
    assert found.divergence.kl_lower_bound.value == pytest.approx(true_value, rel=0.2)
    assert found.divergence.same_top_token.value == 1.0
    assert found.reference.perplexity.value == pytest.approx(sharp.perplexity(pieces(40)))
    assert found.agreement.same_answers.value == 0.0
    assert found.agreement.common_share is not None
    assert found.agreement.common_share.value == pytest.approx(3 / 5)
    assert "lower bound" in words(result)


def test_all_alternatives_give_the_true_divergence(text: Path, tmp_path: Path) -> None:
    """With nothing in the remainder the bound is the value."""
    sharp, dull, output = LetterModel(8.0), LetterModel(7.0), tmp_path / "quality.json"
    with serving(sharp.answer) as here, serving(dull.answer) as there:
        run("--url", there, "--reference", here, "--text", str(text), "--output", str(output))

    divergence = measured(output).divergence
    assert divergence is not None
    true_value = sharp.divergence(dull, [TEXT])
    assert divergence.remainder < 0.02
    assert divergence.kl_lower_bound.value == pytest.approx(true_value, rel=0.05)


def test_without_a_tokenizer_windows_are_text(text: Path, tmp_path: Path) -> None:
    model, output = LetterModel(2.0, tokenizer=False), tmp_path / "quality.json"
    with serving(model.answer) as url:
        result = run("--url", url, "--text", str(text), "--window", "20", "--output", str(output))

    found = measured(output)
    assert found.cut_by == "characters"
    assert all(isinstance(prompt, str) for prompt in model.prompts)
    assert found.backend.perplexity.value == pytest.approx(model.perplexity(model.prompts), rel=1e-9)
    assert "no /tokenize" in words(result)


def test_tasks_with_reference_texts_give_bleu(text: Path, tmp_path: Path) -> None:
    tasks, output = tmp_path / "tasks.jsonl", tmp_path / "quality.json"
    lines = [{"prompt": "go on from a", "reference": "bcdef"}, {"prompt": "from k", "reference": "lmnop"}]
    tasks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serving(LetterModel(2.0).answer) as url:
        result = run("--url", url, "--text", str(text), "--tasks", str(tasks), "--output", str(output))

    assert result.exit_code == 0, result.output
    assert measured(output).backend.bleu is not None


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (LetterModel(2.0, most_alternatives=5), "at most 5 logprobs"),
        (LetterModel(2.0, most_alternatives=0), "vLLM and Sluice's worker have them"),
    ],
)
def test_a_server_that_refuses_is_named_with_those_that_can(
    text: Path, model: LetterModel, says: str
) -> None:
    with serving(model.answer) as url:
        result = run("--url", url, "--text", str(text))

    assert result.exit_code == 1
    assert says in words(result)
    assert "Traceback" not in result.output


def test_a_server_that_ignores_echo_is_found_out(text: Path) -> None:
    def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"id": "m"}], "tokens": [1, 2], "choices": [{"text": "", "logprobs": None}]}

    with serving(answer) as url:
        result = run("--url", url, "--text", str(text))

    assert result.exit_code == 1
    assert "sends no log-probabilities of a prompt" in words(result)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--text", "/nowhere/text"], "No such file"),
        (["--reference-header", "X-Quant: int8"], "need --reference"),
    ],
)
def test_what_was_typed_wrong_is_said(args: list[str], says: str) -> None:
    with serving(LetterModel(2.0).answer) as url:
        result = run("--url", url, *args)

    assert result.exit_code == 1
    assert says in words(result)


def test_keys_and_headers_stay_out_of_the_file(text: Path, tmp_path: Path, monkeypatch: Any) -> None:
    output = tmp_path / "quality.json"
    with serving(LetterModel(2.0).answer) as url:
        args = ["--url", url, "--text", str(text), "--api-key", "sk-secret-1", "--output", str(output)]
        args += ["--header", "X-Secret: word-2"]
        monkeypatch.setattr("sys.argv", ["sluice-bench", "quality", *args])
        assert run(*args).exit_code == 0

    assert "sk-secret-1" not in output.read_text()
    assert "word-2" not in output.read_text()
