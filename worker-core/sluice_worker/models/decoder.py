"""One decoder for the Llama family: Llama, TinyLlama, SmolLM2, Mistral, Qwen2 and Qwen3.

The differences between them are flags of `ModelConfig`: biases, norms of q and k, sliding windows, rope
scaling, tied embeddings. The model never mentions a device, knows nothing of requests, and holds no state but
weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sluice_worker.batch import Batch
from sluice_worker.config import ModelConfig
from sluice_worker.kernels.interface import Kernels, LayerCache, LayerShape, LayerWeights, StepContext
from sluice_worker.kv_cache import KVCache
from sluice_worker.layers.attention import Attention
from sluice_worker.layers.linear import load_linear
from sluice_worker.layers.mlp import GatedMLP
from sluice_worker.layers.rope import rope_table
from sluice_worker.loading.weights import Weights


class DecoderLayer:
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, kernels: Kernels, weights: Weights, index: int) -> None:
        prefix = f"model.layers.{index}"
        hidden = (config.hidden_size,)
        self._kernels = kernels
        self._eps = config.rms_norm_eps
        self._input_norm = weights.take(f"{prefix}.input_layernorm.weight", hidden)
        self._post_norm = weights.take(f"{prefix}.post_attention_layernorm.weight", hidden)
        self._attention = Attention(
            config, kernels, weights, f"{prefix}.self_attn", config.sliding_windows[index]
        )
        self._mlp = GatedMLP(config, kernels, weights, f"{prefix}.mlp")

    def __call__(
        self, x: Tensor, residual: Tensor | None, cache: LayerCache, step: StepContext
    ) -> tuple[Tensor, Tensor]:
        """`x` is what the last sublayer added, `residual` the stream before it: both [T, hidden]."""
        if residual is None:
            normed, residual = self._kernels.rms_norm(x, self._input_norm, self._eps), x
        else:
            normed, residual = self._kernels.add_rms_norm(x, residual, self._input_norm, self._eps)
        attended = self._attention(normed, cache, step)
        normed, residual = self._kernels.add_rms_norm(attended, residual, self._post_norm, self._eps)
        return self._mlp(normed), residual

    @property
    def weights(self) -> LayerWeights:
        """As the backend fuses them."""
        attention, mlp = self._attention, self._mlp
        return LayerWeights(
            input_norm=self._input_norm,
            post_norm=self._post_norm,
            qk_norm=attention.qk_norm,
            qkv=attention.qkv.packed,
            out=attention.out.packed,
            gate_up=mlp.gate_up.packed,
            down=mlp.down.packed,
            window=attention.window,
        )


class LayerLoop:
    """The layers one by one, operation by operation: what a backend's fused layers must agree with."""

    def __init__(self, layers: Sequence[DecoderLayer]) -> None:
        self._layers = layers

    def __call__(self, x: Tensor, caches: Sequence[LayerCache], step: StepContext) -> tuple[Tensor, Tensor]:
        """See `kernels.interface.LayerStack`."""
        residual: Tensor | None = None
        for layer, cache in zip(self._layers, caches, strict=True):
            x, residual = layer(x, residual, cache, step)
        assert residual is not None  # a model has layers: `loading.hf_config` checks
        return x, residual


class Decoder:
    """A decoder-only transformer with its weights."""

    def __init__(self, config: ModelConfig, kernels: Kernels, weights: Weights, num_positions: int) -> None:
        self._kernels = kernels
        self._eps = config.rms_norm_eps
        self._windows = frozenset(config.sliding_windows)
        self._cos_sin = rope_table(config.rope, config.head_dim, num_positions, weights.device)
        table = (config.vocab_size, config.hidden_size)
        tied = config.tie_word_embeddings
        self._dtype = weights.dtype
        self._embedding = None if tied else weights.take("model.embed_tokens.weight", table)
        # The largest weight first: what packing it takes beside it is then on top of little else.
        head = ("model.embed_tokens" if tied else "lm_head", config.vocab_size)
        self._head = load_linear(kernels, weights, [head], config.hidden_size, bias=False)
        layers = [DecoderLayer(config, kernels, weights, index) for index in range(config.num_layers)]
        fused = kernels.fuse_layers(_layer_shape(config), [layer.weights for layer in layers])
        self._layers = fused or LayerLoop(layers)
        self._norm = weights.take("model.norm.weight", (config.hidden_size,))

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Compute a step: keys and values go to `cache`; return logits [S, vocab] of `batch.sample_rows`."""
        return self.logits(self.hidden(batch, cache, batch.sample_rows))

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, vocab] for [rows, hidden]."""
        return self._head(hidden)

    def hidden(self, batch: Batch, cache: KVCache, rows: Tensor) -> Tensor:
        """Compute a step; what the output layer reads of `rows` (int64 [R]): [R, hidden]."""
        plan = self._kernels.plan_attention(
            batch.queries, cache.block_size, self._windows, batch.token_ids.device
        )
        step = StepContext(batch.positions, batch.slots, self._cos_sin, plan)
        x, residual = self._layers(self._embed(batch.token_ids), cache.layers, step)
        normed, _ = self._kernels.add_rms_norm(x[rows], residual[rows], self._norm, self._eps)
        return normed

    def _embed(self, token_ids: Tensor) -> Tensor:
        """[T] to [T, hidden]; tied embeddings are rows of the output layer."""
        if self._embedding is None:
            return self._head.rows(token_ids, self._dtype)
        return self._kernels.embed(token_ids, self._embedding)


def _layer_shape(config: ModelConfig) -> LayerShape:
    return LayerShape(
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        norm_eps=config.rms_norm_eps,
    )
