"""Counter-based noise: what a draw is depends on (seed, output position, token id) and on nothing else.

No generator state exists, so a row draws the same noise alone or in a batch of sixty-four, before or after a
preemption, and whichever other tokens were cut away first.

The stream is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), read
at random access: the state of token `t` is `key + (t + 1) * gamma`, where `key` mixes seed and position.
torch has no unsigned 64-bit arithmetic on every device; signed multiplication wraps to the same bits, and a
logical shift is an arithmetic one with the copied sign bits masked away.

The upper 32 bits become a uniform in (0, 1), and that becomes Gumbel noise: `argmax(logits + gumbel)` is then
a draw from `softmax(logits)` (Gumbel, 1954; Maddison, Tarlow and Minka, 2014).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB

MAX_GUMBEL = -math.log(-math.log1p(-0.5 / 2**32))
"""The largest noise a token can get (about 22.9): uniforms have 32 bits."""


def row_key(seed: int, position: int) -> int:
    """The key of one output position, a signed 64-bit integer.

    `seed` may be any integer (its low 64 bits count), `position` counts output tokens from 0.
    """
    return _signed(_mix(_mix((seed + _GAMMA) & _MASK) + position))


def gumbel(keys: Tensor, token_ids: Tensor) -> Tensor:
    """Gumbel noise, float32, for pairs of key and token id.

    `keys` and `token_ids` are int64 and broadcast against each other.
    """
    state = keys + (token_ids + 1) * _signed(_GAMMA)
    state = (state ^ _shift_right(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift_right(state, 27)) * _signed(_MIX_2)
    state = state ^ _shift_right(state, 31)
    uniform = (_shift_right(state, 32).double() + 0.5) * 2.0**-32
    return (-(-uniform.log()).log()).float()


def _shift_right(value: Tensor, bits: int) -> Tensor:
    return torch.bitwise_and(torch.bitwise_right_shift(value, bits), (1 << (64 - bits)) - 1)


def _mix(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
