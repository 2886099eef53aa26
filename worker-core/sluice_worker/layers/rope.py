"""Rotary position embedding: the table of cosines and sines for every position.

Su et al., "RoFormer" (2021); linear scaling by Chen et al. (2023); `llama3` scaling as in Llama 3.1, which
stretches long wavelengths only.
"""

from __future__ import annotations

import math

import msgspec
import torch
from torch import Tensor

from sluice_worker.config import RopeConfig


def rope_table(rope: RopeConfig, head_dim: int, num_positions: int, device: torch.device) -> Tensor:
    """float32 [positions, head_dim]: cosines of the head_dim / 2 frequencies, then their sines."""
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), _frequencies(rope, head_dim))
    return torch.cat((angles.cos(), angles.sin()), dim=-1).to(device)


def rope_divisors(rope: RopeConfig, head_dim: int) -> Tensor:
    """float32 [head_dim / 2]: what scaling divides each frequency by."""
    return _frequencies(msgspec.structs.replace(rope, kind="default"), head_dim) / _frequencies(
        rope, head_dim
    )


def _frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """float32 [head_dim / 2], radians per position."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "llama3":
        return _stretch_long_wavelengths(frequencies, rope)
    return frequencies


def _stretch_long_wavelengths(frequencies: Tensor, rope: RopeConfig) -> Tensor:
    wavelengths = 2 * math.pi / frequencies
    rotations = rope.original_context / wavelengths
    keep = (rotations - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    keep = keep.clamp(0, 1)  # 0: divided by the factor, 1: as it was
    return (1 - keep) * frequencies / rope.factor + keep * frequencies
