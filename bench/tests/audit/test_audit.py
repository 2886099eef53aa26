"""Servers that cheat are caught, each by the check that is meant for it; honest ones are clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sluice_bench.cli import app

from ..http_double import serving
from ..traps.cheats import Trick, WordServer

CACHED, CUT, SEED = "cached answers", "truncated answers", "seed"
CHUNKS, USAGE = "chunks and tokens", "usage and /tokenize"

Findings = dict[str, dict[str, str]]


def audited(server: WordServer, tmp_path: Path, *args: str) -> tuple[int, Findings]:
    """Exit status and findings by check."""
    output = tmp_path / "audit.json"
    with serving(server.answer) as url:
        asked = ["audit", "--url", url, "--max-tokens", "16", "--pairs", "6", "--output", str(output), *args]
        result = CliRunner().invoke(app, asked)
    assert output.exists(), result.output
    findings: list[dict[str, str]] = json.loads(output.read_bytes())["findings"]
    return result.exit_code, {finding["check"]: finding for finding in findings}


def verdicts(findings: Findings, verdict: str) -> set[str]:
    return {check for check, finding in findings.items() if finding["verdict"] == verdict}


SLOW: dict[str, Any] = {"word_s": 0.004, "reading_s": 0.06}
"""For what is told by time, and long beside how long a busy machine keeps anyone waiting. Without it, who is
faster is chance."""


def test_an_honest_server_is_clean(tmp_path: Path) -> None:
    status, findings = audited(WordServer(**SLOW), tmp_path)

    assert verdicts(findings, "pass") == {CACHED, CUT, SEED, CHUNKS, USAGE}, findings
    assert status == 0


@pytest.mark.parametrize("trick", ["caches answers", "caches answers and sends them in one piece"])
def test_answers_that_are_not_written_anew_are_found(trick: Trick, tmp_path: Path) -> None:
    status, findings = audited(WordServer(trick, **SLOW), tmp_path)

    assert verdicts(findings, "fail") == {CACHED}, findings
    assert status == 1


TRICKS: list[tuple[Trick, set[str]]] = [
    ("cuts answers", {CUT}),
    ("cuts answers and says that they ended", {CUT}),
    ("cuts answers and says nothing", {CUT}),
    ("writes more than was asked", {CUT}),
    ("ignores the seed", {SEED}),
    ("draws nothing", {SEED}),
    ("splits words over chunks", {CHUNKS}),
    ("counts twice in usage", {CHUNKS, USAGE}),
    ("counts chunks in usage", {CHUNKS, USAGE}),
    ("counts prompts twice", {USAGE}),
]


@pytest.mark.parametrize(("trick", "found_by"), TRICKS, ids=[trick for trick, _ in TRICKS])
def test_a_trick_is_found_by_its_check_and_by_no_other(
    trick: Trick, found_by: set[str], tmp_path: Path
) -> None:
    status, findings = audited(WordServer(trick), tmp_path)

    assert verdicts(findings, "fail") - {CACHED} == found_by, findings
    assert status == 1


def test_a_prefix_cache_that_usage_tells_of_is_named_and_not_accused(tmp_path: Path) -> None:
    status, findings = audited(WordServer(prefix_cache=True, **SLOW), tmp_path)

    assert status == 0, findings
    assert findings[CACHED]["verdict"] == "pass"
    assert "from a prefix cache" in findings[CACHED]["evidence"]


def test_a_prefix_cache_that_nobody_tells_of_cannot_be_told(tmp_path: Path) -> None:
    status, findings = audited(WordServer(prefix_cache=True, tells_cache=False, **SLOW), tmp_path)

    assert status == 0, findings
    assert findings[CACHED]["verdict"] == "cannot tell"


def test_a_cache_of_answers_does_not_hide_behind_a_prefix_cache(tmp_path: Path) -> None:
    status, findings = audited(WordServer("caches answers", prefix_cache=True, **SLOW), tmp_path)

    assert (status, findings[CACHED]["verdict"]) == (1, "fail")


def test_several_tokens_in_a_chunk_are_nothing_bad(tmp_path: Path) -> None:
    _, findings = audited(WordServer(tokens_a_chunk=3), tmp_path)

    assert verdicts(findings, "fail") - {CACHED} == set()


@pytest.mark.parametrize(
    ("without", "cannot_tell"),
    [
        ({"tokenizer": False}, {USAGE}),
        ({"logprobs": False}, set()),
        ({"logprobs": False, "tokens_a_chunk": 3}, {CHUNKS}),
        ({"seeds": False}, {SEED}),
        ({"usage": False}, {USAGE}),
        ({"usage": False, "logprobs": False}, {USAGE, CHUNKS, CUT}),
    ],
)
def test_what_a_server_does_not_offer_cannot_be_told(
    without: dict[str, Any], cannot_tell: set[str], tmp_path: Path
) -> None:
    _, findings = audited(WordServer(**without), tmp_path)

    assert verdicts(findings, "cannot tell") - {CACHED} == cannot_tell, findings
    assert verdicts(findings, "fail") - {CACHED} == set()


def test_a_count_that_lies_is_found_without_logprobs_too(tmp_path: Path) -> None:
    _, findings = audited(WordServer("counts twice in usage", logprobs=False), tmp_path)

    assert findings[USAGE]["verdict"] == "fail"


def test_a_server_that_fails_is_said_in_a_sentence() -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        return {"data": [{"id": "m"}]} if path == "/v1/models" else (500, {"error": {"message": "broken"}})

    with serving(answer) as url:
        result = CliRunner().invoke(app, ["audit", "--url", url])

    assert result.exit_code == 1
    assert "gave no answer: http_status: broken" in " ".join(result.output.split())
