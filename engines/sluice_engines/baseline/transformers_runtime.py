"""transformers' `generate`, a batch at a time: padded on the left, until the longest answer is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from sluice_engines.baseline.runtime import Row


class TransformersRuntime:
    """A checkpoint's folder, loaded by transformers."""

    name = "transformers"

    def __init__(self, folder: Path, *, dtype: str, device: str, max_batch: int) -> None:
        """`dtype` is torch's name of one. Raises `OSError` and `ValueError` when it cannot be loaded."""
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        self._model = model.to(device).eval()
        self._device = device
        self.max_batch = max_batch
        self.max_model_len = int(model.config.max_position_embeddings)
        ends = model.generation_config.eos_token_id
        self.end_tokens = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def generate(self, rows: Sequence[Row]) -> None:
        """See `Runtime`."""
        longest = max(len(row.prompt) for row in rows)
        padded = [[0] * (longest - len(row.prompt)) + list(row.prompt) for row in rows]
        mask = [[0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
        seed = rows[0].sampling.seed
        if seed is not None:
            torch.manual_seed(seed % (1 << 63))
        with torch.inference_mode():
            self._model.generate(
                input_ids=torch.tensor(padded, device=self._device),
                attention_mask=torch.tensor(mask, device=self._device),
                generation_config=self._config(rows),
                stopping_criteria=StoppingCriteriaList([_Tap(rows, self.end_tokens)]),
            )

    def _config(self, rows: Sequence[Row]) -> Any:
        sampling = rows[0].sampling
        chosen: dict[str, Any] = {}
        if sampling.temperature > 0:
            chosen = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        make: Any = GenerationConfig  # it is not typed
        return make(
            do_sample=sampling.temperature > 0,
            max_new_tokens=max(row.max_tokens for row in rows),
            repetition_penalty=sampling.repetition_penalty,
            eos_token_id=sorted(self.end_tokens) or None,
            pad_token_id=0,
            **chosen,
        )


class _Tap(StoppingCriteria):
    """Sees each step's tokens, and says which rows are done."""

    def __init__(self, rows: Sequence[Row], end_tokens: frozenset[int]) -> None:
        self._rows = rows
        self._end_tokens = end_tokens

    def __call__(self, input_ids: torch.Tensor, scores: object, **_kwargs: object) -> torch.Tensor:
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            row.take(int(token), self._end_tokens)
        return torch.tensor([row.done for row in self._rows], device=input_ids.device)
