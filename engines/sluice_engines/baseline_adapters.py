"""The baseline server's adapters: transformers' `generate` and ONNX Runtime behind one plain server.

Both are the server of `sluice_engines/baseline`, which tells how many requests run and wait, and no more.
"""

from __future__ import annotations

from typing import ClassVar

from sluice_engines.adapter import Quirk
from sluice_engines.load_signals import Signal, gauge
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_engines.start_command import StartCommand
from sluice_router.types import Capabilities

_REQUESTS = "sluice_baseline_requests_"


def _started(runtime: str, needs_args: str) -> StartCommand:
    arguments = ("-m", "sluice_engines.baseline", "--runtime", runtime)
    return StartCommand(
        program="python",
        arguments=(*arguments, "--host", "127.0.0.1", "--port", "{port}"),
        install=f"install 'sluice-engines[{runtime}]' beside the gateway",
        needs_args=needs_args,
    )


class TransformersAdapter(OpenAICompatibleAdapter):
    """transformers, with static batching."""

    name = "transformers"
    title = "transformers"
    default_port = 8008
    capabilities = Capabilities(endpoints=frozenset({"chat", "completions"}), logprobs=False)
    health_path = "/health"
    ready_path = "/ready"
    metrics_path = "/metrics"
    start = _started("transformers", "[--model, FOLDER]")
    signals: ClassVar[tuple[Signal, ...]] = (
        gauge("running", f"{_REQUESTS}running"),
        gauge("waiting", f"{_REQUESTS}waiting"),
        gauge("max_running", f"{_REQUESTS}max"),
    )
    quirks: tuple[Quirk, ...] = (
        Quirk(
            about="A batch runs until its longest answer is done, and nothing joins it meanwhile; requests"
            " with different sampling settings, or with a seed, do not share one.",
            source="engines/sluice_engines/baseline/batcher.py",
        ),
    )


class OnnxAdapter(TransformersAdapter):
    """ONNX Runtime (onnxruntime-genai), a request at a time."""

    name = "onnx"
    title = "ONNX Runtime"
    default_port = 8009
    start = _started("onnx", "[--model, FOLDER]")
    quirks = (
        Quirk(
            about="One request at a time: batches of the library want prompts of one length.",
            source="engines/sluice_engines/baseline/onnx_runtime.py",
        ),
        Quirk(
            about="The library's own tokenizer does not know every pattern of a tokenizer.json, ours for one;"
            " the server makes text with tokenizers.",
            source="seen with onnxruntime-genai 0.18.0",
        ),
    )
