"""The baseline server without a model: what shares a batch, what text comes of tokens, what is refused."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sluice_engines.baseline.batcher import Batcher, take_batch
from sluice_engines.baseline.requests import ChatBody, CompletionBody, parse_body
from sluice_engines.baseline.runtime import Row, Sampling
from sluice_engines.baseline.text import RowText
from sluice_engines.baseline_adapters import OnnxAdapter, TransformersAdapter
from sluice_engines.openai_bodies import BadRequest
from sluice_router.types import EngineLoad

END = 99
GREEDY = Sampling(temperature=0)


class Counting:
    """A runtime that counts up from each prompt's last token, and shows which rows ran together."""

    name = "counting"
    max_model_len = 100
    max_batch = 3
    end_tokens = frozenset({END})

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.steps = 0
        self.may_go = threading.Event()
        self.may_go.set()
        self.fails = False

    def generate(self, rows: Sequence[Row]) -> None:
        self.may_go.wait()
        self.batches.append([row.prompt[0] for row in rows])
        if self.fails:
            raise ValueError("no memory")
        for step in range(1, self.max_model_len):
            if all(row.done for row in rows):
                return
            self.steps += 1
            for row in rows:
                row.take(row.prompt[-1] + step, self.end_tokens)


class Told:
    """What came of one row."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tokens: list[int] = []
        self.reason: str | None = None
        self.ended = asyncio.Event()
        self._loop = loop

    def __call__(self, token: int | None, reason: str | None) -> None:
        if token is not None:
            self.tokens.append(token)
        if reason is not None:
            self.reason = reason
            self._loop.call_soon_threadsafe(self.ended.set)


async def run(
    runtime: Counting, *rows: tuple[int, int, Sampling], touch: Callable[[list[Row]], None] | None = None
) -> list[Told]:
    """Generate rows of (first token, limit, sampling), all there when the engine becomes free."""
    loop = asyncio.get_running_loop()
    batcher = Batcher(runtime, wait_s=0)
    told = [Told(loop) for _ in rows]
    made = [
        Row([first], limit, sampling, one) for (first, limit, sampling), one in zip(rows, told, strict=True)
    ]
    for row in made:
        batcher.add(row)
    if touch is not None:
        touch(made)
    task = asyncio.create_task(batcher.run())
    async with asyncio.timeout(20):
        for one, row in zip(told, made, strict=True):
            if not row.done:
                await one.ended.wait()
    assert batcher.waiting == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return told


async def test_what_waits_runs_together_until_the_longest_is_done() -> None:
    runtime = Counting()
    told = await run(runtime, (10, 2, GREEDY), (20, 5, GREEDY), (30, 1, GREEDY), (40, 1, GREEDY))

    assert runtime.batches == [[10, 20, 30], [40]]
    assert [one.tokens for one in told] == [[11, 12], [21, 22, 23, 24, 25], [31], [41]]
    assert {one.reason for one in told} == {"length"}
    assert runtime.steps == 5 + 1


async def test_an_end_token_ends_its_row_only() -> None:
    told = await run(Counting(), (97, 9, GREEDY), (10, 3, GREEDY))

    assert [(one.tokens, one.reason) for one in told] == [([98], "stop"), ([11, 12, 13], "length")]


async def test_rows_that_are_sampled_differently_run_apart() -> None:
    runtime = Counting()
    warm = Sampling(temperature=0.7)
    await run(runtime, (10, 1, GREEDY), (20, 1, warm), (30, 1, GREEDY), (40, 1, warm))

    assert runtime.batches == [[10, 30], [20, 40]]


async def test_a_cancelled_row_is_not_generated() -> None:
    runtime = Counting()
    await run(runtime, (10, 1, GREEDY), (20, 1, GREEDY), touch=lambda rows: rows[0].cancel())

    assert runtime.batches == [[20]]


async def test_a_batch_that_fails_costs_only_itself() -> None:
    runtime = Counting()
    runtime.fails = True
    (failed,) = await run(runtime, (10, 1, GREEDY))
    runtime.fails = False
    (well,) = await run(runtime, (20, 1, GREEDY))

    assert (failed.reason, well.tokens) == ("error: ValueError: no memory", [21])


@pytest.mark.parametrize(
    ("sampling", "together"),
    [(GREEDY, 2), (Sampling(temperature=0, seed=1), 2), (Sampling(seed=1), 1), (Sampling(), 2)],
)
def test_a_seeded_sample_does_not_depend_on_neighbours(sampling: Sampling, together: int) -> None:
    rows = [Row([1], 1, sampling, lambda _token, _reason: None) for _ in range(2)]

    assert len(take_batch(rows, 8)) == together


def by_bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("héllo wörld €", (), "héllo wörld €"),
        ("hello world", ("o w",), "hell"),
        ("hello world", ("worlds",), "hello world"),
        ("a€b", ("€",), "a"),
    ],
)
def test_text_comes_in_whole_characters_and_never_with_a_stop(
    text: str, stops: tuple[str, ...], expected: str
) -> None:
    row, pieces = RowText(by_bytes, stops), []
    for byte in text.encode():
        pieces.append(row.feed(byte))
        if row.stopped:
            break
    pieces.append(row.flush())

    assert "".join(pieces) == expected
    assert not any("\ufffd" in piece for piece in pieces)
    assert row.stopped == (expected != text)


def test_half_a_character_at_the_end_is_told_as_such() -> None:
    row = RowText(by_bytes, ())

    assert (row.feed(0xE2), row.feed(0x82), row.flush()) == ("", "", "\ufffd")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": 1}, "logprobs"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperature": 3}, "temperature"),
        ({"stream_options": {}}, "stream_options"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"n": 0}, "n"),
    ],
)
def test_what_it_lacks_is_refused_and_named(fields: dict[str, Any], param: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    with pytest.raises(BadRequest) as refused:
        parse_body(json.dumps(body).encode(), ChatBody)

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])],
)
def test_prompts_are_text_or_tokens(prompt: Any, prompts: list[Any]) -> None:
    body = parse_body(json.dumps({"model": "m", "prompt": prompt}).encode(), CompletionBody)

    assert body.prompts == prompts


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{}", "model", "invalid_type"),
        (b'{"model": "m", "messages": 1}', "messages", "invalid_type"),
        (b'{"model": "m", "messages": [{"content": 1}], "stop": [[]]}', "stop", "invalid_type"),
        (b"{", None, "invalid_json"),
        (b'{"model": "m", "messages": [{"content": ' + b"[" * 100_000, None, "invalid_json"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_by_name(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_body(body, ChatBody)

    assert (refused.value.param, refused.value.code, refused.value.status) == (param, code, 400)


def test_what_means_nothing_changes_nothing() -> None:
    body = {"model": "m", "prompt": "a", "logprobs": None, "presence_penalty": 0, "top_k": -1, "user": "x"}

    assert parse_body(json.dumps(body).encode(), CompletionBody).sampling == Sampling()


@pytest.mark.parametrize("adapter", [TransformersAdapter(), OnnxAdapter()])
def test_its_load_is_how_many_run_and_wait(adapter: TransformersAdapter) -> None:
    gauges = {"running": 3, "waiting": 2, "max": 8}
    page = "".join(f"sluice_baseline_requests_{name} {value}\n" for name, value in gauges.items()).encode()

    assert adapter.parse_load({"/metrics": page}) == EngineLoad(running=3, waiting=2, max_running=8)


def test_the_command_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sluice_engines.baseline", "--model", str(tmp_path / "nowhere")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("There is no folder ")
    assert "Traceback" not in ended.stderr


def test_adapters_are_found_without_torch() -> None:
    """The gateway's image has none."""
    code = (
        "import sys; from sluice_engines.registry import load_adapters; load_adapters();"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'onnxruntime_genai'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"
