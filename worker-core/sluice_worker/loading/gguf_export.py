"""Write a checkpoint as one GGUF file, which llama.cpp and this worker read.

The reverse of `gguf_source`: the same names, and for the `llama` architecture the rows of queries and keys in
pairs of neighbours. Q8_0 and Q4_0 hold the codes of our own 8-bit and 4-bit groups of 32, bit for bit; in a
Q4_0 file the tables of input and output have 8 bits, as with `--quantization int4`. Tensor by tensor: what is
held in memory is one of them.

Source of the format: ggml's docs/gguf.md, version 3; of keys and names: gguf-py/gguf/constants.py of
llama.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import torch
from torch import Tensor

from sluice_worker.config import ModelConfig
from sluice_worker.errors import CheckpointError, UnsupportedModelError
from sluice_worker.layers.rope import rope_divisors
from sluice_worker.loading.gguf_blocks import BLOCK_TYPES
from sluice_worker.loading.gguf_config import ARCHITECTURES
from sluice_worker.loading.gguf_file import ALIGNMENT, MAGIC
from sluice_worker.loading.gguf_source import PARTS, ROPE_FACTORS, TABLES
from sluice_worker.loading.hf_config import read_model_config
from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.loading.safetensors_source import SafetensorsSource
from sluice_worker.loading.tensor_source import EMBEDDING, HEAD
from sluice_worker.quant.recipe import Quantizer
from sluice_worker.quant.weights import GROUP, WeightFormat

GgufType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
"""Of the matrices; vectors are always float32."""

VERSION = 3
_NUMBERS: Mapping[str, int] = {kind.name.lower(): number for number, kind in BLOCK_TYPES.items()}
_FILE_TYPES: Mapping[GgufType, int] = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
"""`general.file_type`: what most tensors are."""
_OF_DTYPE: Mapping[str, GgufType] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
"""Types of metadata."""

_THEIR_TABLES = {ours: theirs for theirs, ours in TABLES.items()}
_THEIR_PARTS = {ours: theirs for theirs, ours in PARTS.items()}
_LEFT_OUT = ".rotary_emb.inv_freq"
"""Old checkpoints store what follows from the config."""


class _Planned(NamedTuple):
    """A tensor of the file."""

    name: str
    shape: tuple[int, ...]
    type: GgufType
    num_bytes: int
    read: Callable[[], Tensor]


def write_gguf(
    folder: ModelFolder,
    path: Path,
    to: GgufType | None,
    vocabulary: Mapping[str, Any],
    quantizer: Quantizer,
    progress: Callable[[int, int], None],
) -> None:
    """Write the model in `folder` as the file `path`; `None` keeps the type of its floats.

    `vocabulary` are the metadata of the tokenizer. Raises `ModelLoadError` for a model that has no place in a
    GGUF file.
    """
    config = read_model_config(folder)
    chosen = to or _OF_DTYPE.get(config.dtype, "f32")
    metadata = {**_metadata(folder, config, chosen), **vocabulary}
    with ExitStack() as stack:
        source = SafetensorsSource(folder)
        stack.callback(source.close)
        plan = list(_plan(source, config, chosen))
        file = stack.enter_context(path.open("wb"))
        _write_head(file, metadata, plan)
        for done, tensor in enumerate(plan):
            progress(done, len(plan))
            file.write(bytes(-file.tell() % ALIGNMENT))
            for piece in _encoded(tensor, quantizer):
                file.write(piece)
            source.drop_pages()
        progress(len(plan), len(plan))


def their_name(name: str) -> str:
    """What llama.cpp calls a tensor. Raises `UnsupportedModelError` for one that it has no name for."""
    stem, _, kind = name.rpartition(".")
    if name in _THEIR_TABLES:
        return _THEIR_TABLES[name]
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    if not stem.startswith("model.layers.") or part not in _THEIR_PARTS:
        raise UnsupportedModelError(f"{name} has no place in a GGUF file. Stage the model as it is.")
    return f"blk.{layer}.{_THEIR_PARTS[part]}.{kind}"


def paired_rows(rows: int, heads: int) -> Tensor:
    """int64 [rows]: which of our rows each row of a `llama` file is; halves of a head become neighbours."""
    return torch.arange(rows).view(heads, 2, -1).transpose(1, 2).flatten()


def _plan(source: SafetensorsSource, config: ModelConfig, chosen: GgufType) -> Iterator[_Planned]:
    if config.rope.kind == "llama3":
        divisors = rope_divisors(config.rope, config.head_dim)
        yield _Planned(ROPE_FACTORS, tuple(divisors.shape), "f32", 4 * divisors.numel(), lambda: divisors)
    for name, stored in source.stored.items():
        if (config.tie_word_embeddings and name == HEAD) or name.endswith(_LEFT_OUT):
            continue
        kind = _type_of(name, stored.shape, chosen)
        block = BLOCK_TYPES[_NUMBERS[kind]]
        numbers = torch.Size(stored.shape).numel()
        yield _Planned(
            their_name(name),
            stored.shape,
            kind,
            numbers // block.numbers * block.num_bytes,
            lambda name=name: _in_their_order(source.read(name, None), name, config),  # type: ignore[misc]
        )


def _type_of(name: str, shape: tuple[int, ...], chosen: GgufType) -> GgufType:
    if len(shape) == 1:
        return "f32"
    if chosen not in ("q8_0", "q4_0"):
        return chosen
    if shape[-1] % GROUP:
        return "f16"
    return "q8_0" if name in (EMBEDDING, HEAD) else chosen


def _in_their_order(tensor: Tensor, name: str, config: ModelConfig) -> Tensor:
    if _architecture(config) == "llama":
        if ".q_proj." in name:
            return tensor[paired_rows(len(tensor), config.num_heads)]
        if ".k_proj." in name:
            return tensor[paired_rows(len(tensor), config.num_kv_heads)]
    return tensor


def _encoded(tensor: _Planned, quantizer: Quantizer) -> Iterator[memoryview]:
    values = tensor.read()
    match tensor.type:
        case "f32":
            data = values.float()
        case "bf16":
            data = values.bfloat16().view(torch.int16)
        case "f16":
            data = values.half()
            if not data.isfinite().all():
                raise CheckpointError(f"{tensor.name} has numbers beyond float16. Choose gguf-bf16.")
        case "q8_0":
            data = _blocks(*_codes(values, WeightFormat.INT8_GROUP, quantizer))
        case "q4_0":
            codes, scales = _codes(values, WeightFormat.INT4_GROUP, quantizer)
            nibbles = (codes + 8).view(torch.uint8)
            data = _blocks(nibbles[..., : GROUP // 2] | nibbles[..., GROUP // 2 :] << 4, scales)
    array: Any = data.contiguous().numpy()
    yield memoryview(array).cast("B")


def _codes(weight: Tensor, kind: WeightFormat, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """int8 [rows, groups, 32] and float16 [rows, groups]."""
    quantized = quantizer(weight, kind)
    return quantized.codes.view(len(weight), -1, GROUP), quantized.scales


def _blocks(codes: Tensor, scales: Tensor) -> Tensor:
    """uint8 [rows, groups, bytes of a block]: the scale, then the codes."""
    head = scales.contiguous().view(torch.uint8).view(*scales.shape, 2)
    return torch.cat((head, codes.view(torch.uint8)), dim=-1)


def _architecture(config: ModelConfig) -> str:
    """llama.cpp has no other for Mistral than that of Llama."""
    by_class = {ours: theirs for theirs, ours in ARCHITECTURES.items()}
    return by_class.get(config.architecture.replace("Mistral", "Llama"), "")


def _metadata(folder: ModelFolder, config: ModelConfig, chosen: GgufType) -> dict[str, Any]:
    """Raises `UnsupportedModelError` for what llama.cpp would compute in another way."""
    name = _architecture(config)
    if not name or any(config.sliding_windows):
        what = "an attention window" if name else f"the architecture {config.architecture}"
        raise UnsupportedModelError(
            f"{folder.path} has {what}, which is not written as GGUF. Stage it as it is."
        )
    model: dict[str, Any] = {
        "block_count": config.num_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope.theta,
        "vocab_size": config.vocab_size,
    }
    if config.rope.kind == "linear":
        model |= {"rope.scaling.type": "linear", "rope.scaling.factor": config.rope.factor}
    general = {
        "general.architecture": name,
        "general.name": folder.name.rpartition("/")[2],
        "general.file_type": _FILE_TYPES[chosen],
        "general.quantization_version": 2,
    }
    return {**general, **{f"{name}.{key}": value for key, value in model.items()}}


def _write_head(file: BinaryIO, metadata: Mapping[str, Any], plan: list[_Planned]) -> None:
    """Everything before the tensors; offsets count from where these begin."""
    file.write(MAGIC + struct.pack("<IQQ", VERSION, len(plan), len(metadata)))
    for key, value in metadata.items():
        file.write(_string(key) + _value(value))
    offset = 0
    for tensor in plan:
        shape = tensor.shape[::-1]
        layout = f"<I{len(shape)}QIQ"
        file.write(_string(tensor.name))
        file.write(struct.pack(layout, len(shape), *shape, _NUMBERS[tensor.type], offset))
        offset += tensor.num_bytes + -tensor.num_bytes % ALIGNMENT


def _value(value: Any) -> bytes:
    """The type, then the value."""
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _UINT32, value)
        case float():
            return struct.pack("<If", _FLOAT32, value)
        case str():
            return struct.pack("<I", _STRING) + _string(value)
    items = cast("list[Any]", value)
    if all(isinstance(item, int) for item in items):
        return struct.pack(f"<IIQ{len(items)}i", _ARRAY, _INT32, len(items), *items)
    return struct.pack("<IIQ", _ARRAY, _STRING, len(items)) + b"".join(map(_string, items))


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
