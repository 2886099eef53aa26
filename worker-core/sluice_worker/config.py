"""Settings of an engine, and the shape of a model, as plain values.

This module knows no torch and no files: the server process imports it too. `loading.hf_config` fills
`ModelConfig` from a Hugging Face `config.json`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sluice_worker.batching import BatchingMode
from sluice_worker.errors import ConfigError
from sluice_worker.kv_allocation import KVMode

DTypeName = Literal["auto", "float32", "bfloat16"]
KernelsName = Literal["auto", "reference", "cpu"]
QuantizationName = Literal["none", "int8", "int4"]
ConversionName = Literal["int8", "int4", "gguf", "gguf-f16", "gguf-bf16", "gguf-q8_0", "gguf-q4_0"]
"""What a model can be converted to ahead; plain `gguf` keeps the type of its floats."""

KVCacheDTypeName = Literal["auto", "int8"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]

_LONGEST_WAIT_MS = 60_000.0


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How one engine runs. Raises `ConfigError` when two settings contradict each other."""

    model: str
    """A folder, the name of a bundled model, or a Hugging Face Hub name."""
    dtype: DTypeName = "auto"
    """`auto`: the checkpoint's own type, with float16 computed in bfloat16; on CPU a small model is
    computed in float32, see `device.resolve_dtype`."""
    device: DeviceName = "auto"
    """`auto`: CUDA when there is one, else CPU. `mps` is accepted and runs on the CPU, with a warning."""
    quantization: QuantizationName = "none"
    """What the weights of linear layers become that the checkpoint holds as floats; see `quant.recipe`."""
    packed_cache: str | None = None
    """Folder that keeps large packed weights from one start to the next. `None`: they are packed anew."""
    kernels: KernelsName = "auto"
    """`auto`: the fastest that the device has; `reference` is plain torch everywhere."""
    block_size: int | None = None
    """Tokens per KV block. `None`: 32 on CPU, 16 on CUDA."""
    num_kv_blocks: int | None = None
    """Blocks in the KV cache. `None`: as many as `kv_cache_bytes` holds."""
    kv_cache_bytes: int | None = None
    """Memory for the KV cache. `None`: chosen from the device's free memory and what could ever be used."""
    kv_cache_dtype: KVCacheDTypeName = "auto"
    """`auto`: that of the activations; `int8` holds almost twice as many tokens as bfloat16."""
    max_num_seqs: int = 64
    """Requests in the running batch."""
    max_num_batched_tokens: int = 1024
    """Tokens computed in one step, over all requests."""
    max_chunk: int = 512
    """Tokens of one request computed in one step: a longer prompt is prefilled in chunks between decodes."""
    decode_stretch: float = 2.0
    """How many times longer a step that decodes may take because of one prompt beside it; every further one
    adds as much, see `pacing`. 0 is no limit."""
    max_model_len: int | None = None
    """Longest prompt plus output. `None`: the model's context."""
    batching: BatchingMode = "continuous"
    """When a waiting request may join the batch: see `batching`."""
    max_batch: int = 8
    """Requests of a static or dynamic batch; never more than `max_num_seqs`."""
    batch_wait_ms: float = 50.0
    """How long a static or dynamic batch that is not full waits for more requests."""
    schedule_tick_ms: float = 0.0
    """Least time between two admissions to the batch; those in it go on meanwhile. 0: none."""
    kv: KVMode = "paged"
    """How a request gets KV memory: see `kv_allocation`."""
    enable_prefix_caching: bool = True
    threads: int | None = None
    """CPU threads of one operation. `None`: torch's choice."""

    def __post_init__(self) -> None:
        positive = ("block_size", "num_kv_blocks", "kv_cache_bytes", "max_num_seqs", "max_num_batched_tokens")
        for name in (*positive, "max_chunk", "max_model_len", "max_batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1.")
        for name in ("batch_wait_ms", "schedule_tick_ms"):
            value = getattr(self, name)
            if not 0 <= value <= _LONGEST_WAIT_MS:
                raise ConfigError(f"{name} is {value:g}; choose milliseconds from 0 to {_LONGEST_WAIT_MS:g}.")
        if self.decode_stretch and self.decode_stretch <= 1:
            raise ConfigError(
                f"decode_stretch is {self.decode_stretch}; it must be more than 1, or 0 for no limit."
            )
        if self.max_num_batched_tokens < self.max_num_seqs:
            # Every running request must be able to get one token a step, or the last ones would starve.
            raise ConfigError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}): a step computes one token for each running request."
            )


class RopeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Rotary position embedding: base frequency and how it is stretched for longer contexts."""

    theta: float = 10000.0
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    """llama3 only, as the next two: wavelengths longer than context / low are divided by `factor`."""
    high_freq_factor: float = 4.0
    """Wavelengths shorter than context / high are kept; those between are blended."""
    original_context: int = 8192


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Shape and options of one Llama-family decoder."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    rope: RopeConfig
    sliding_windows: tuple[int | None, ...]
    """Per layer: how many last tokens a query sees, itself included; `None` is all of them."""
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    """RMS norm over each head of q and k before rotation (Qwen3)."""
    tie_word_embeddings: bool
    dtype: str
    """The checkpoint's own type, as config.json names it."""
    eos_token_ids: tuple[int, ...]

    def kv_bytes_per_token(self, element_bytes: int, scale_bytes: int = 0) -> int:
        """Bytes of keys and values of one token in all layers, with a scale for each head if it has one."""
        return 2 * self.num_layers * self.num_kv_heads * (self.head_dim * element_bytes + scale_bytes)
