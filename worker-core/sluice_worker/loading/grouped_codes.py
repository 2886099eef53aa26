"""Unsigned codes with zero points, as AWQ and GPTQ store them, in the formats that are computed with.

A weight is `scale * (code - zero)`, with a scale and a zero point for each output and group of inputs. Where
`quant.weights` has a format that holds exactly this, codes and scales are kept as they are; elsewhere (other
group sizes, 8 bits with zero points, scales that float16 does not hold) the weight becomes floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sluice_worker.quant.weights import GROUP, QuantizedWeight, WeightFormat

_ROWS_AT_ONCE = 1024


class GroupedCodes(NamedTuple):
    """A weight [out, in] of `bits` bits, with one scale and zero point for `size` inputs."""

    bits: int
    size: int
    codes: Tensor
    """uint8 [out, in]."""
    scales: Tensor
    """Any float type, [out, groups]."""
    zeros: Tensor
    """int32 [out, groups]."""
    group_of: Tensor | None = None
    """int64 [in]: the group of each input, where groups are not stretches of `size`."""

    def weight(self) -> QuantizedWeight | Tensor:
        """Codes if there is a format for them, else float32 [out, in]."""
        codes = self._as_codes()
        return self._as_floats() if codes is None else codes

    def _as_codes(self) -> QuantizedWeight | None:
        middle = 2 ** (self.bits - 1)
        centred = bool((self.zeros == middle).all())
        if self.group_of is not None or not self._groups_fit() or (self.bits == 8 and not centred):
            return None
        scales = self.scales.half()
        if not torch.equal(scales.float(), self.scales.float()):
            return None
        codes, scales = (self.codes - middle).view(torch.int8), self._spread(scales)  # modulo 256
        if self.bits == 8:
            return QuantizedWeight(WeightFormat.INT8_GROUP, codes, scales)
        if centred:
            return QuantizedWeight(WeightFormat.INT4_GROUP, codes, scales)
        shifts = self._spread(((self.zeros - middle) / 8).half())
        return QuantizedWeight(WeightFormat.INT4_SHIFT, codes, scales, shifts)

    def _groups_fit(self) -> bool:
        """Whether every stretch of `GROUP` inputs lies in one group."""
        return self.size % GROUP == 0 or self.size >= self.codes.shape[1]

    def _spread(self, per_group: Tensor) -> Tensor:
        """[out, groups] to one for each `GROUP` inputs."""
        wanted = -(-self.codes.shape[1] // GROUP)
        return per_group.repeat_interleave(-(-self.size // GROUP), dim=1)[:, :wanted]

    def _as_floats(self) -> Tensor:
        group_of = self.group_of
        if group_of is None:
            group_of = torch.arange(self.codes.shape[1]) // self.size
        out = torch.empty(self.codes.shape)
        for first in range(0, len(out), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            zeros, scales = self.zeros[rows, group_of], self.scales[rows, group_of].float()
            out[rows] = (self.codes[rows] - zeros) * scales
        return out


def group_size(settings: Mapping[str, Any], in_features: int) -> int:
    """Inputs that share a scale, from a `quantization_config`: all, where that says -1."""
    size = int(settings.get("group_size", settings.get("q_group_size", -1)))
    return size if size > 0 else in_features


def unpack_columns(packed: Tensor, bits: int) -> Tensor:
    """int32 [rows, n] to uint8 [rows, n * 32 / bits]: each number holds several, the lowest bits first."""
    numbers = packed.contiguous().view(torch.uint8)  # little-endian, as all files here are
    return numbers if bits == 8 else torch.stack((numbers & 15, numbers >> 4), dim=-1).flatten(1)
