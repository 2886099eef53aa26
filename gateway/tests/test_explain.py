"""`sluice explain`: the gateway's decision without a gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sluice_gateway.cli import app
from sluice_gateway.config import ConfigError

CONFIG = """
backends:
  - {name: gpu, adapter: openai_compatible, url: [http://127.0.0.1:1, http://127.0.0.1:2], models: [big]}
  - {name: cpu, adapter: openai_compatible, url: http://127.0.0.1:3, models: [big, tiny], quant: int8}
  - {name: any, adapter: openai_compatible, url: http://127.0.0.1:4}
aliases:
  fast:
    - {model: big, backend: gpu}
    - {model: tiny}
"""


@pytest.fixture
def explain(tmp_path: Path):
    file = tmp_path / "sluice.yaml"
    file.write_text(CONFIG)
    return lambda *options: CliRunner().invoke(app, ["explain", *options, "--config", str(file)])


def lines(result: Result) -> list[str]:
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_every_target_and_every_endpoint_has_its_line(explain) -> None:
    result = explain("--model", "fast")

    assert result.exit_code == 0
    assert lines(result) == [
        "1. model big, backend gpu",
        "gpu-0 could serve",
        "gpu-1 could serve",
        "cpu no: another backend was asked for",
        "any no: another backend was asked for",
        "2. model tiny",
        "gpu-0 no: does not have the model",
        "gpu-1 no: does not have the model",
        "cpu could serve",
        "any no: takes any model, but another one names it",
        "Engines without configured models are taken to have any; the gateway asks them.",
        "expected tokens: 256 of the answer; work 512",
        "class default: its first token is due within 10 s",
        "=> model=big; backend=gpu; endpoint=gpu-0; reason=least_loaded",
    ]


def test_the_options_are_the_headers(explain) -> None:
    assert lines(explain("--model", "tiny", "--backend", "gpu", "--prefer"))[-1].endswith(
        "endpoint=cpu; reason=relaxed,least_loaded"
    )
    assert lines(explain("--model", "big", "--quant", "int8", "--priority", "bulk"))[-1].endswith(
        "endpoint=cpu; reason=least_loaded"
    )
    assert lines(explain("--model", "big", "--session", "s"))[-1].endswith("reason=affinity")


def test_what_it_is_expected_to_cost_and_by_when_it_is_due_are_those_of_the_gateway(
    explain, tmp_path
) -> None:
    with (tmp_path / "sluice.yaml").open("a") as file:
        file.write("admission: {bulk_ttft_s: 90}\n")
    body = tmp_path / "body.json"
    chat = {"model": "x", "max_tokens": 20, "messages": [{"role": "user", "content": "word " * 400}]}
    body.write_text(json.dumps(chat))
    shown = "\n".join(lines(explain("--model", "big", "--priority", "bulk", "--body", str(body))))

    assert "class bulk: its first token is due within 90 s" in shown
    found = re.search(r"expected tokens: (\d+) of the prompt and 20 of the answer; work (\d+)", shown)
    assert found is not None
    assert int(found[2]) == int(found[1]) + 2 * 20 > 400


def test_with_a_body_its_prompt_places_it_and_the_candidates_are_shown(explain, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": "x", "messages": [{"role": "user", "content": "long " * 200}]}))
    shown = lines(explain("--model", "big", "--body", str(body)))

    candidates = [line for line in shown if line.startswith("candidate")]
    assert [line.partition(" (")[2][:6] for line in candidates] == ["first)", "second"]
    assert len({line.partition(", ")[2] for line in candidates}) == 1, "no load, and nothing cached"
    assert shown[-1].endswith(f"endpoint={candidates[0].split()[1]}; reason=prefix_hash")


def test_a_body_that_cannot_be_used_is_refused(explain, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    assert "Cannot read the body" in str(explain("--model", "big", "--body", str(body)).exception)
    body.write_text("{")
    assert "is not valid JSON" in str(explain("--model", "big", "--body", str(body)).exception)
    assert explain("--model", "big", "--kind", "rerank", "--body", str(body)).exit_code == 2


def test_what_nothing_serves_is_an_error_after_the_table(explain) -> None:
    result = explain("--model", "tiny", "--backend", "gpu")

    assert "gpu-0 no: does not have the model" in lines(result)
    assert lines(result)[-1] == "=> nowhere"
    assert isinstance(result.exception, ConfigError)
    assert "'tiny' is not served on backend 'gpu'" in str(result.exception)


def test_what_the_gateway_would_refuse_is_refused_in_the_same_words(explain) -> None:
    assert "There is no backend 'x'; valid ones are: gpu, cpu, any." in str(
        explain("--model", "big", "--backend", "x").exception
    )
    assert explain("--model", "big", "--kind", "song").exit_code == 2
