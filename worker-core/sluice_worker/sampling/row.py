"""One row of logits and what came of it: the values that go into the sampler and come out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sluice_worker.kernels.interface import Draw
from sluice_worker.outputs import TokenLogprobs
from sluice_worker.sampling import noise
from sluice_worker.sampling_params import SamplingParams

GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy: dividing by them would overflow float32."""


class SamplingRow(NamedTuple):
    """The sequence that a row of logits belongs to."""

    params: SamplingParams
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    """Tokens chosen so far; its length is the position that keys the noise."""

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken, without noise."""
        return self.params.temperature < GREEDY_BELOW

    def draw(self) -> Draw:
        """How the kernels are to choose the next token."""
        params = self.params
        if self.is_greedy:
            return Draw(0.0, params.top_k, params.top_p, params.min_p, 0)
        key = noise.row_key(params.seed, len(self.output_token_ids))
        return Draw(params.temperature, params.top_k, params.top_p, params.min_p, key)


class SampledToken(NamedTuple):
    """The token chosen for a row."""

    token_id: int
    logprobs: TokenLogprobs | None
    """Of the model's own distribution; `None` unless the row asked for it."""
