"""What a model may ask of a device: about a dozen operations, and nothing else.

A backend is one class with these methods. `reference` is the specification: another backend must agree with
it within rounding, and keep each row's result independent of the other rows of the batch.

Shapes: T rows (tokens) in a step, H query heads, G kv heads, D head dimension, S slots in the KV cache.
Activations are in the model's dtype; sums, norms, rotations and softmax are computed in float32 and rounded
once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from sluice_worker.batch import QueryRange
from sluice_worker.quant.weights import QuantizedWeight, WeightFormat

SCALE_BYTES = 4
"""Of the scale of one head of one token, in a cache of int8 codes."""


class LayerCache(NamedTuple):
    """Keys and values of one layer. The layout belongs to the backend that allocated it."""

    keys: Tensor
    values: Tensor


class CacheShape(NamedTuple):
    """Size of one layer's cache."""

    num_blocks: int
    block_size: int
    num_kv_heads: int
    head_dim: int


class QKNorm(NamedTuple):
    """RMS norm of each query and key head before rotation."""

    q_weight: Tensor
    """[D]."""
    k_weight: Tensor
    """[D]."""
    eps: float


class StepContext(NamedTuple):
    """What all layers share within one step. T rows."""

    positions: Tensor
    """int64 [T]."""
    slots: Tensor
    """int64 [T]."""
    cos_sin: Tensor
    """float32 [positions, D], see `layers.rope`."""
    plan: Any
    """The backend's attention plan of this step."""


class LayerShape(NamedTuple):
    """Sizes that all layers of a decoder share."""

    hidden: int
    inner: int
    """Width of the gate."""
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float


class LayerWeights(NamedTuple):
    """One decoder layer. `qkv`, `out`, `gate_up` and `down` are what `pack` returned."""

    input_norm: Tensor
    """[hidden], as the next."""
    post_norm: Tensor
    qk_norm: QKNorm | None
    qkv: Any
    out: Any
    gate_up: Any
    down: Any
    window: int | None


LayerStack = Callable[[Tensor, Sequence[LayerCache], StepContext], tuple[Tensor, Tensor]]
"""All layers: from embeddings [T, hidden], the cache of each layer and the step, to what the last layer adds
and the residual stream before it, both [T, hidden] and valid until the next call."""


class Draw(NamedTuple):
    """How to draw the token of one row."""

    temperature: float
    """0 is greedy: the rest does not count."""
    top_k: int
    """0 keeps all."""
    top_p: float
    min_p: float
    key: int
    """Of the noise: `sampling.noise.row_key`."""


class PackedParts(NamedTuple):
    """What `Kernels.pack` made of a weight, as tensors that can be stored."""

    layout: int
    """The backend's number for it."""
    shape: tuple[int, int]
    """[out, in]."""
    panels: Tensor
    """uint8."""
    scales: Tensor | None
    bias: Tensor | None


@runtime_checkable
class StoredForm(Protocol):
    """A backend whose packed weights are worth keeping on disk. They are the same on every machine."""

    def parts_of(self, packed: Any) -> PackedParts:
        """Its tensors, not copied."""

    def assemble(self, parts: PackedParts) -> Any:
        """What `pack` returned, on the tensors given."""


class Kernels(Protocol):
    """The operations of one backend. `Any` marks what only the backend itself looks into."""

    name: str
    """`reference`, `cpu` or `cuda`."""

    def allocate_cache(self, shape: CacheShape, dtype: torch.dtype, device: torch.device) -> LayerCache:
        """The KV cache of one layer, zeroed: G * D numbers per slot, once for keys and once for values.

        With dtype int8 they are codes: each head of a token is divided by its largest magnitude / 127, a
        float32 that is kept beside it, and rounded to the nearest integer.
        """

    def quantize(self, weight: Tensor, weight_format: WeightFormat) -> QuantizedWeight:
        """`quant.weights.quantize_weight`: the same codes and scales."""

    def pack(self, weight: Tensor | QuantizedWeight, bias: Tensor | None) -> Any:
        """Bring a weight [out, in] and its bias [out] into the form `linear` wants. Done once, at load."""

    def linear(self, x: Tensor, packed: Any) -> Tensor:
        """`x @ weight.T + bias`: [T, in] to [T, out]."""

    def unpack(self, packed: Any, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of a packed weight, `rows` int64 [T]: [T, in]. The embedding of a model that ties it to its
        output layer, which is then in memory once."""

    def embed(self, token_ids: Tensor, weight: Tensor) -> Tensor:
        """Rows of `weight` [vocab, hidden] for `token_ids` [T]: [T, hidden]."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension."""

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """`(rms_norm(x + residual), x + residual)`, each [T, hidden]."""

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
        """Normalize (if asked) and rotate query and key, write key and value to their slots.

        `query` [T, H, D], `key` and `value` [T, G, D], `cos_sin` float32 [positions, D] (cosines of the D/2
        frequencies, then sines; row p is position p), `positions` and `slots` [T]. Returns the rotated query
        [T, H, D]. The halves of a head rotate against each other, as in Hugging Face checkpoints.
        """

    def plan_attention(
        self,
        queries: Sequence[QueryRange],
        block_size: int,
        windows: frozenset[int | None],
        device: torch.device,
    ) -> Any:
        """Prepare, once a step, what `attention` needs in every layer. `windows`: all that layers use."""

    def attention(self, query: Tensor, cache: LayerCache, plan: Any, window: int | None) -> Tensor:
        """Causal attention of `query` [T, H, D] over each row's own cached sequence: [T, H, D].

        Scores are scaled by `1 / sqrt(D)`. Query head h reads kv head `h // (H / G)`. With a window of w, a
        row sees the last w tokens, itself included.
        """

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """`silu(gate) * up` for [T, 2 * I] holding gate then up: [T, I]."""

    def fuse_layers(self, shape: LayerShape, layers: Sequence[LayerWeights]) -> LayerStack | None:
        """All layers as one operation; `None` if there is none, and the model does them one by one."""

    def copy_blocks(self, cache: LayerCache, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole blocks within one layer; no target is also a source."""

    def sample(self, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
        """A token for each row of `logits` [rows, vocab], as `sampling.draws` chooses it: int64 [rows].

        Penalties and biases are already in the logits. Rows may be further apart than vocab.
        """

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        """`log(sum(exp(row)))` of each row of `logits` [rows, vocab]: float32 [rows]."""
