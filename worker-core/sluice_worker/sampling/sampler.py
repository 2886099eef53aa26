"""The sampler: a batch of logits in, one token a row out.

Rows with penalties or biases are copied and changed first; then the backend chooses for all rows in one call,
by the rules of `draws`. A row's token depends on its own logits, parameters and history only, and the sampler
keeps no state between calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sluice_worker.kernels.interface import Draw, Kernels
from sluice_worker.outputs import TokenLogprobs
from sluice_worker.sampling import processors
from sluice_worker.sampling.logprobs import token_logprobs
from sluice_worker.sampling.row import SampledToken, SamplingRow
from sluice_worker.sampling_params import SamplingParams

_GREEDY = Draw(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, key=0)


class Sampler:
    """Chooses tokens. Stateless, so one instance serves every batch."""

    def __init__(self, vocab_size: int, kernels: Kernels) -> None:
        """`vocab_size`: columns that are real tokens; a model may pad its logits beyond them."""
        self._vocab_size = vocab_size
        self._kernels = kernels

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """Choose a token for every row.

        `logits` is [rows, at least vocab_size], of a type and on a device that the kernels take; it is not
        changed. Raises `ValueError` when the number of rows differs.
        """
        if logits.shape[0] != len(rows):
            raise ValueError(f"{logits.shape[0]} rows of logits for {len(rows)} sequences")
        if not rows:
            return []
        raw = self.real_columns(logits)
        token_ids: list[int] = self._choose(raw, rows).tolist()
        logprobs = self._logprobs(raw, rows, token_ids)
        return [SampledToken(token_id, logprobs.get(i)) for i, token_id in enumerate(token_ids)]

    def score(self, logits: Tensor, token_ids: Sequence[int], params: SamplingParams) -> list[TokenLogprobs]:
        """What the model gave the tokens of a prompt: one for each row of `logits`, as `params` asks."""
        return token_logprobs(
            self._kernels, self.real_columns(logits), token_ids, params.prompt_logprobs or 0
        )

    def real_columns(self, logits: Tensor) -> Tensor:
        """[rows, vocab_size]."""
        return logits[:, : self._vocab_size]

    def _choose(self, raw: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
        """Token ids, int64 [rows]."""
        draws = [row.draw() for row in rows]
        changed = [i for i, row in enumerate(rows) if processors.changes_logits(row)]
        if not changed:
            return self._kernels.sample(raw, draws)
        processed = raw[changed].float()
        for logits, i in zip(processed, changed, strict=True):
            processors.process(logits, rows[i])
        chosen_here = self._kernels.sample(processed, [draws[i] for i in changed])
        if len(changed) == len(rows):
            return chosen_here
        for i in changed:
            draws[i] = _GREEDY  # the cheapest: it is overwritten
        chosen = self._kernels.sample(raw, draws)
        chosen[changed] = chosen_here
        return chosen

    def _logprobs(
        self, raw: Tensor, rows: Sequence[SamplingRow], token_ids: Sequence[int]
    ) -> dict[int, TokenLogprobs]:
        """By row, for those that asked; rows that want equally many alternatives are done together."""
        asking: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            if row.params.logprobs is not None:
                asking.setdefault(row.params.logprobs, []).append(i)
        found: dict[int, TokenLogprobs] = {}
        for num_alternatives, indices in asking.items():
            logits = raw if len(indices) == len(rows) else raw[indices]
            chosen = [token_ids[i] for i in indices]
            entries = token_logprobs(self._kernels, logits, chosen, num_alternatives)
            found.update(zip(indices, entries, strict=True))
        return found
