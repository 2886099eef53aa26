"""From logits to the next token."""

from sluice_worker.sampling.row import SampledToken, SamplingRow
from sluice_worker.sampling.sampler import Sampler

__all__ = ["SampledToken", "Sampler", "SamplingRow"]
