"""The baseline server with the bundled model, managed by the gateway beside our worker.

ONNX Runtime is tried where it is installed, or, with SLUICE_REQUIRE_ENGINES=1, in an environment made for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from running_stack import ROOT, SLUICE, Stack, interrupt, serve

MODEL = ROOT / "worker-core" / "models" / "sluice-tiny"
CONFIG = f"""\
backends:
  - {{name: worker, adapter: worker, managed: {{args: [--kv-memory, 8MiB]}}}}
  - {{name: transformers, adapter: transformers, managed: {{args: [--model, {MODEL}]}}}}
"""
PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "What is 2 + 2? The answer is",
    "A bee lived near the",
)
ONNX_PACKAGES = (
    "onnxruntime-genai==0.18.0",
    "onnxruntime==1.32.0",
    "onnx==1.23.2",
    "onnx-ir==1.1.0",
    "onnxscript==0.7.2",
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = serve(CONFIG, tmp_path_factory.mktemp("baseline"), engines=2)
    yield running
    assert interrupt(running) == []


def complete(stack: Stack, backend: str, prompt: Any, **fields: Any) -> dict[str, Any]:
    body = {"model": "sluice-tiny", "prompt": prompt, "temperature": 0, "max_tokens": 24, **fields}
    headers = {"X-Backend": backend}
    answer = httpx.post(f"{stack.url}/v1/completions", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def texts(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(choice["text"], choice["finish_reason"]) for choice in answer["choices"]]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_decoding_is_that_of_our_worker(stack: Stack, prompt: str) -> None:
    ours, theirs = complete(stack, "worker", prompt), complete(stack, "transformers", prompt)

    assert texts(theirs) == texts(ours)
    assert theirs["usage"]["completion_tokens"] == ours["usage"]["completion_tokens"]
    assert theirs["usage"]["prompt_tokens"] == ours["usage"]["prompt_tokens"]


def test_prompts_of_different_lengths_in_one_batch_do_not_disturb_each_other(stack: Stack) -> None:
    ours = complete(stack, "worker", list(PROMPTS), stop="\n")
    theirs = complete(stack, "transformers", list(PROMPTS), stop="\n")

    assert texts(theirs) == texts(ours)


def test_a_conversation_goes_on_with_the_other_engine(stack: Stack) -> None:
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
    said = []
    with client:
        for backend in ("worker", "transformers"):
            with client.chat.completions.create(
                model="sluice-tiny",
                messages=messages,
                temperature=0,
                stream=True,
                extra_headers={"X-Backend": backend},
            ) as stream:
                said.append("".join(chunk.choices[0].delta.content or "" for chunk in stream))

    assert said[0] == said[1] != ""


def test_seeds_repeat_and_choices_are_counted(stack: Stack) -> None:
    fields = {"temperature": 1, "seed": 11, "max_tokens": 12}
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(complete, stack, "transformers", PROMPTS[1], **fields) for _ in range(3)]
        answers = [one.result() for one in asked]
    two = complete(stack, "transformers", PROMPTS[1], n=2, max_tokens=4)

    assert len({texts(answer)[0] for answer in answers}) == 1
    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    assert two["usage"]["prompt_tokens"] == answers[0]["usage"]["prompt_tokens"]


def test_a_client_that_leaves_frees_the_engine(stack: Stack) -> None:
    body = {"model": "sluice-tiny", "prompt": PROMPTS[1], "max_tokens": 900, "stream": True, "temperature": 0}
    headers = {"X-Backend": "transformers"}
    url = f"{stack.url}/v1/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
        next(answer.iter_bytes())
    after = complete(stack, "transformers", PROMPTS[0], max_tokens=1)

    assert texts(after)[0][1] == "length"


def test_a_look_tells_what_it_is(stack: Stack) -> None:
    listed = httpx.get(f"{stack.url}/admin/v1/engines").json()["data"]
    (url,) = [
        r["url"] for engine in listed if engine["adapter"] == "transformers" for r in engine["replicas"]
    ]
    said = subprocess.run([SLUICE, "engines", "probe", url, "--json"], capture_output=True, check=True)

    found = json.loads(said.stdout)["identity"]
    assert (found["engine"], found["adapter"], found["models"]) == (
        "transformers",
        "transformers",
        ["sluice-tiny"],
    )
    assert found["limits"] == {"max_model_len": 1024}


def test_what_it_lacks_is_a_400_that_names_who_has_it(stack: Stack) -> None:
    body = {"model": "sluice-tiny", "prompt": "a", "logprobs": 1}
    answer = httpx.post(f"{stack.url}/v1/completions", json=body, headers={"X-Backend": "transformers"})

    assert answer.status_code == 400
    assert "logprobs" in answer.text


@pytest.fixture(scope="module")
def onnx_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has onnxruntime-genai and its model builder."""
    if all(find_spec(name) for name in ("onnxruntime_genai", "onnx", "onnx_ir")):
        return sys.executable
    if os.environ.get("SLUICE_REQUIRE_ENGINES") != "1":
        pytest.skip(
            "onnxruntime-genai is not installed; SLUICE_REQUIRE_ENGINES=1 makes an environment for it"
        )
    folder = tmp_path_factory.mktemp("onnx") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "here.pth").write_text("".join(f"{path}\n" for path in sys.path if path))
    pinned = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pinned, *ONNX_PACKAGES], check=True)
    return python


@pytest.mark.slow
def test_onnx_runtime_says_the_same(onnx_python: str, stack: Stack, tmp_path: Path) -> None:
    built = tmp_path / "sluice-tiny"
    builder = [onnx_python, "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
    paths = ["-m", str(MODEL), "-o", str(built), "-c", str(tmp_path / "cache")]
    subprocess.run([*builder, *paths], check=True, capture_output=True)
    command = f"[{onnx_python}, -m, sluice_engines.baseline, --runtime, onnx, --port, '{{port}}']"
    config = (
        "backends:\n  - name: onnx\n    adapter: onnx\n"
        f"    managed: {{command: {command}, args: [--model, {built}]}}\n"
    )
    running = serve(config, tmp_path, engines=1)
    try:
        for prompt in PROMPTS:
            assert texts(complete(running, "onnx", prompt)) == texts(complete(stack, "worker", prompt))
    finally:
        left = interrupt(running)
    assert left == []
