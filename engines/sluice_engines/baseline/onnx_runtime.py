"""ONNX Runtime's generation loop (onnxruntime-genai), a request at a time.

The folder is what its model builder writes: `model.onnx`, `genai_config.json`, and the tokenizer's files.
Text is made by `tokenizers`, as for the other runtime: the library's own tokenizer knows fewer patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime_genai

from sluice_engines.baseline.runtime import Row


class _Model(msgspec.Struct):
    context_length: int
    eos_token_id: int | list[int] = []


class _Config(msgspec.Struct):
    model: _Model


class OnnxRuntime:
    """A folder of the model builder."""

    name = "onnx"
    max_batch = 1

    def __init__(self, folder: Path) -> None:
        """Raises `OSError` and `ValueError` when it cannot be loaded."""
        config = msgspec.json.decode((folder / "genai_config.json").read_bytes(), type=_Config).model
        try:
            self._model: Any = onnxruntime_genai.Model(str(folder))
        except RuntimeError as error:
            raise ValueError(f"ONNX Runtime cannot load it: {error}") from error
        self.max_model_len = config.context_length
        ends = config.eos_token_id
        self.end_tokens = frozenset(ends if isinstance(ends, list) else [ends])

    def generate(self, rows: Sequence[Row]) -> None:
        """See `Runtime`."""
        (row,) = rows
        generator = onnxruntime_genai.Generator(self._model, self._parameters(row))
        generator.append_tokens(np.array([row.prompt], dtype=np.int32))
        while not row.done:
            generator.generate_next_token()
            row.take(int(generator.get_next_tokens()[0]), self.end_tokens)

    def _parameters(self, row: Row) -> Any:
        sampling = row.sampling
        chosen: dict[str, Any] = {
            # The loop refuses a step past this; the row ends before.
            "max_length": min(self.max_model_len, len(row.prompt) + row.max_tokens + 1),
            "do_sample": sampling.temperature > 0,
            "repetition_penalty": sampling.repetition_penalty,
        }
        if sampling.temperature > 0:
            chosen |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            chosen |= {"top_k": sampling.top_k} if sampling.top_k else {}
            chosen |= {"random_seed": sampling.seed % (1 << 31)} if sampling.seed is not None else {}
        parameters = onnxruntime_genai.GeneratorParams(self._model)
        parameters.set_search_options(**chosen)
        return parameters
