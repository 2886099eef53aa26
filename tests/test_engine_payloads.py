"""Answers as engines really gave them, read as the gateway reads them.

`engines/tests/payloads` has a folder for each engine, made by `record_payloads` of `ops/gpu-check/check.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from repository import ROOT

from sluice_gateway.errors import Failure
from sluice_gateway.sse import Splitter, event_data
from sluice_gateway.upstream_failure import from_response
from sluice_gateway.usage import StreamObserver, read_body
from sluice_router.types import Usage

PAYLOADS = ROOT / "engines" / "tests" / "payloads"
FOLDERS = sorted(path for path in PAYLOADS.iterdir() if path.is_dir())
every_engine = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def counted(usage: Usage | None) -> tuple[int, int]:
    assert usage is not None
    return usage.prompt_tokens, usage.completion_tokens


def status(folder: Path, name: str) -> int:
    found: int = json.loads((folder / "statuses.json").read_text())[name]
    return found


def test_every_folder_is_described() -> None:
    rows = [line for line in (PAYLOADS / "README.md").read_text().splitlines() if line.startswith("| `")]

    assert [row.split("`")[1] for row in rows] == [folder.name for folder in FOLDERS]


@every_engine
def test_a_stream_says_what_the_plain_answer_says(folder: Path) -> None:
    plain = (folder / "chat.json").read_bytes()
    observer, splitter, said = StreamObserver(hide_usage=False), Splitter(), ""
    for event in splitter.feed((folder / "chat.sse").read_bytes()):
        assert observer.keep(event)
        data = event_data(event)
        if data and data != b"[DONE]":
            said += "".join(c["delta"].get("content") or "" for c in json.loads(data)["choices"])
    choice = json.loads(plain)["choices"][0]

    assert splitter.flush() == b""
    assert observer.ended
    assert said == choice["message"]["content"] != ""
    assert choice["finish_reason"] in ("stop", "length")
    assert counted(observer.usage) == counted(read_body(plain).usage)
    assert min(counted(observer.usage)) > 0


@every_engine
def test_log_probabilities_have_the_asked_for_alternatives(folder: Path) -> None:
    if status(folder, "chat-logprobs.json") != 200:
        pytest.skip("the engine has none")
    answer = json.loads((folder / "chat-logprobs.json").read_bytes())
    entries = answer["choices"][0]["logprobs"]["content"]

    assert len(entries) == answer["usage"]["completion_tokens"] > 0
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in entries)


@every_engine
def test_a_prompt_over_the_context_is_refused_in_openais_words(folder: Path) -> None:
    name = "chat-too-long.json"
    found = from_response(status(folder, name), (), (folder / name).read_bytes(), "engine")

    assert (found.failure, found.status) == (Failure.UPSTREAM_REFUSED, 400)
    assert found.code == "context_length_exceeded"
