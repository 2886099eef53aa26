"""The specification of every kernel, in plain torch. Runs anywhere torch runs; also the fallback.

Attention is written with matrix products in float32, never with bfloat16 `scaled_dot_product_attention`,
whose CPU path is several times slower than this for decode. The cache of a layer is [kv heads, blocks, block
size, head dim], so that gathering the blocks of many requests needs no transposition afterwards.

Decode rows are batched: contexts are padded to the longest of a group, and a group's longest is at most four
times its shortest. Longer chunks are done one request at a time, in tiles of query rows that bound the memory
for scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sluice_worker.batch import QueryRange
from sluice_worker.kernels.interface import (
    SCALE_BYTES,
    CacheShape,
    Draw,
    LayerCache,
    LayerShape,
    LayerStack,
    LayerWeights,
    QKNorm,
)
from sluice_worker.quant.weights import QuantizedWeight, WeightFormat, quantize_weight
from sluice_worker.sampling.draws import choose

QUERY_TILE = 128
"""Query rows of one request attended at once."""


class PackedLinear(NamedTuple):
    """A weight as it came, [out, in], and its bias."""

    weight: Tensor
    bias: Tensor | None


class AttentionGroup(NamedTuple):
    """Query rows attended together: R requests with n rows each, contexts padded to L slots."""

    rows: Tensor
    """int64 [R * n], rows of the flat batch, request by request."""
    num_requests: int
    block_ids: Tensor
    """int64 [R * L / block size], padded with block 0."""
    masks: dict[int | None, Tensor]
    """Per window: bool [R, n, L], which slots a row sees."""


class ReferenceKernels:
    """Plain torch for every operation of `kernels.interface.Kernels`."""

    name = "reference"

    def allocate_cache(self, shape: CacheShape, dtype: torch.dtype, device: torch.device) -> LayerCache:
        """Two tensors [kv heads, blocks, block size, head dim]; int8 codes are followed by their scale."""
        width = shape.head_dim + (SCALE_BYTES if dtype == torch.int8 else 0)
        size = (shape.num_kv_heads, shape.num_blocks, shape.block_size, width)
        return LayerCache(
            torch.zeros(size, dtype=dtype, device=device), torch.zeros(size, dtype=dtype, device=device)
        )

    def quantize(self, weight: Tensor, weight_format: WeightFormat) -> QuantizedWeight:
        """As specified there."""
        return quantize_weight(weight, weight_format)

    def pack(self, weight: Tensor | QuantizedWeight, bias: Tensor | None) -> PackedLinear:
        """A weight stays where it is, possibly memory-mapped; a quantized one becomes what it stands for."""
        if isinstance(weight, QuantizedWeight):
            weight = weight.dequantize(weight.dtype)
        return PackedLinear(weight, bias)

    def linear(self, x: Tensor, packed: PackedLinear) -> Tensor:
        """`x @ weight.T + bias`."""
        return F.linear(x, packed.weight, packed.bias)

    def unpack(self, packed: PackedLinear, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """By indexing."""
        return F.embedding(rows, packed.weight).to(dtype)

    def embed(self, token_ids: Tensor, weight: Tensor) -> Tensor:
        """Rows of the table."""
        return F.embedding(token_ids, weight)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Normalized in float32, rounded, then scaled: the order of the Hugging Face models."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return normed.to(x.dtype) * weight

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """The sum is rounded to the activation dtype before it is normalized."""
        total = x + residual
        return self.rms_norm(total, weight, eps), total

    def rope_and_cache(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos_sin: Tensor,
        positions: Tensor,
        slots: Tensor,
        cache: LayerCache,
        qk_norm: QKNorm | None = None,
    ) -> Tensor:
        """Rotate in float32; write one [kv heads, head dim] column per token."""
        if qk_norm is not None:
            query = self.rms_norm(query, qk_norm.q_weight, qk_norm.eps)
            key = self.rms_norm(key, qk_norm.k_weight, qk_norm.eps)
        cos, sin = cos_sin[positions].unsqueeze(1).chunk(2, dim=-1)
        for tensor, heads in ((cache.keys, _rotate(key, cos, sin)), (cache.values, value)):
            columns = quantize_heads(heads) if tensor.dtype == torch.int8 else heads
            _slot_view(tensor).index_copy_(1, slots, columns.transpose(0, 1))
        return _rotate(query, cos, sin)

    def plan_attention(
        self,
        queries: Sequence[QueryRange],
        block_size: int,
        windows: frozenset[int | None],
        device: torch.device,
    ) -> list[AttentionGroup]:
        """Cut the step into groups that are attended with one set of matrix products each."""
        decodes = sorted((q for q in queries if q.length == 1), key=lambda q: -q.context_length)
        chunks = [tile for query in queries if query.length > 1 for tile in _tiles(query, block_size)]
        groups = [*_similar_contexts(decodes), *([tile] for tile in chunks)]
        return [_plan_group(group, block_size, windows, device) for group in groups]

    def attention(
        self, query: Tensor, cache: LayerCache, plan: list[AttentionGroup], window: int | None
    ) -> Tensor:
        """Gather, multiply, softmax, multiply: all in float32."""
        out = torch.empty_like(query)
        for group in plan:
            out[group.rows] = _attend(query[group.rows], cache, group, window)
        return out

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """The gate and the product are rounded one after the other, as in the Hugging Face models."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    def fuse_layers(self, shape: LayerShape, layers: Sequence[LayerWeights]) -> LayerStack | None:
        """One by one is how it is specified."""
        return None

    def copy_blocks(self, cache: LayerCache, sources: Sequence[int], targets: Sequence[int]) -> None:
        """By indexing."""
        for tensor in cache:
            tensor[:, list(targets)] = tensor[:, list(sources)]

    def sample(self, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
        """As `sampling.draws` says, step by step."""
        return choose(logits, draws)

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        """One row at a time, so that its rounding does not change with its neighbours."""
        return torch.stack([row.float().logsumexp(0) for row in logits])


def _slot_view(cache: Tensor) -> Tensor:
    """[kv heads, blocks, block size, D] as [kv heads, slots, D]."""
    return cache.flatten(1, 2)


def quantize_heads(x: Tensor) -> Tensor:
    """The codes of each head, and the bytes of its scale: [T, heads, D] to int8 [T, heads, D + 4]."""
    wide = x.float()
    magnitude = wide.abs().amax(-1)
    # Not `127 / magnitude`, which would be a rounded reciprocal times 127.
    inverse = torch.where(magnitude < 1e-30, 0.0, torch.tensor(127.0) / magnitude)
    codes = (wide * inverse.unsqueeze(-1)).round().to(torch.int8)
    return torch.cat((codes, (magnitude / 127).unsqueeze(-1).view(torch.int8)), dim=-1)


def dequantize_heads(codes: Tensor) -> Tensor:
    """What `quantize_heads` kept: int8 [..., D + 4] to float32 [..., D]."""
    scales = codes[..., -SCALE_BYTES:].contiguous().view(torch.float32)
    return codes[..., :-SCALE_BYTES].float() * scales


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the halves of each head: `x` [T, heads, D], `cos` and `sin` [T, 1, D/2]."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def _numbers(blocks: Tensor) -> Tensor:
    """Blocks of a cache in float32."""
    return dequantize_heads(blocks) if blocks.dtype == torch.int8 else blocks.float()


def _tiles(query: QueryRange, block_size: int) -> Iterator[QueryRange]:
    """Cut a chunk into pieces of at most `QUERY_TILE` rows, each with the context its last row sees."""
    computed_before = query.context_length - query.length
    for offset in range(0, query.length, QUERY_TILE):
        length = min(QUERY_TILE, query.length - offset)
        context = computed_before + offset + length
        yield QueryRange(query.start + offset, length, context, query.block_ids[: -(-context // block_size)])


def _similar_contexts(queries: Sequence[QueryRange]) -> Iterator[list[QueryRange]]:
    """Groups of decode rows, given longest first, that waste little on padding."""
    group: list[QueryRange] = []
    for query in queries:
        if group and 4 * query.context_length < group[0].context_length:
            yield group
            group = []
        group.append(query)
    if group:
        yield group


def _plan_group(
    group: list[QueryRange], block_size: int, windows: frozenset[int | None], device: torch.device
) -> AttentionGroup:
    """Index tensors and masks of queries with the same number of rows each."""
    num_blocks = max(len(query.block_ids) for query in group)
    rows = [row for query in group for row in range(query.start, query.start + query.length)]
    block_ids = [b for q in group for b in (*q.block_ids, *[0] * (num_blocks - len(q.block_ids)))]
    length = group[0].length
    ends = torch.tensor([query.context_length for query in group], device=device)
    positions = ends[:, None] - length + torch.arange(length, device=device)
    distance = positions[:, :, None] - torch.arange(num_blocks * block_size, device=device)
    causal = distance >= 0
    return AttentionGroup(
        rows=torch.tensor(rows, device=device),
        num_requests=len(group),
        block_ids=torch.tensor(block_ids, device=device),
        masks={w: causal if w is None else causal & (distance < w) for w in windows},
    )


def _attend(query: Tensor, cache: LayerCache, group: AttentionGroup, window: int | None) -> Tensor:
    """Attention of R * n rows over R gathered contexts of L slots: [R * n, H, D] to the same shape."""
    num_kv_heads, head_dim = cache.keys.shape[0], query.shape[-1]
    requests, heads = group.num_requests, query.shape[1]
    length, per_kv = query.shape[0] // requests, heads // num_kv_heads
    keys, values = (
        _numbers(tensor.index_select(1, group.block_ids)).view(num_kv_heads, requests, -1, head_dim)
        for tensor in cache
    )
    # [R, n, G, H/G, D] -> [G, R, H/G * n, D]: rows that read the same keys become one matrix.
    q = query.view(requests, length, num_kv_heads, per_kv, head_dim).permute(2, 0, 3, 1, 4)
    q = q.reshape(num_kv_heads, requests, per_kv * length, head_dim).float() * head_dim**-0.5
    scores = q @ keys.transpose(-1, -2)
    hidden = ~group.masks[window].repeat(1, per_kv, 1)
    weights = scores.masked_fill_(hidden, float("-inf")).softmax(dim=-1)
    out: Tensor = (weights @ values).view(num_kv_heads, requests, per_kv, length, head_dim)
    return out.permute(1, 3, 0, 2, 4).reshape(query.shape).to(query.dtype)
