"""What `sluice serve` runs for a managed engine whose configuration names no command.

`{port}` stands for the engine's port. Further arguments, the model above all, come from `managed.args`.
"""

from __future__ import annotations

from collections.abc import Mapping

_LOCAL = ("--host", "127.0.0.1", "--port", "{port}")
_BASELINE = ("python", "-m", "sluice_engines.baseline", *_LOCAL, "--runtime")

MANAGED_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "worker": ("sluice-worker", "serve", *_LOCAL),
    "transformers": (*_BASELINE, "transformers"),
    "onnx": (*_BASELINE, "onnx"),
    "llamacpp": ("llama-server", *_LOCAL, "--metrics"),
    "vllm": ("vllm", "serve", *_LOCAL),
}
"""By adapter. A program beside this Python wins over one on PATH."""
