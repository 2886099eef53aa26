"""The model of an experiment: a folder, from what was typed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from sluice_bench.checkpoint import SHAPES
from sluice_bench.experiments.plan import ExperimentOptions
from sluice_bench.experiments.requirement import RequirementMissing
from sluice_bench.model_files import kept_checkpoint

Dtype = Literal["float32", "bfloat16"]
BUNDLED = "sluice-tiny"
CONTEXT = 8192
"""Of random checkpoints: those of the worker's report, which are kept under the same names."""
_HEAVY_BYTES = 2**28
_ELEMENT_BYTES: Mapping[Dtype, int] = {"float32": 4, "bfloat16": 2}


class ModelChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What is served."""

    label: str
    folder: Path
    random: bool = False
    """Weights are noise: speed and memory mean something, text does not."""

    @property
    def heavy(self) -> bool:
        """Whether a token takes so long that a load should have few of them."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors")) > _HEAVY_BYTES


def chosen_model(options: ExperimentOptions, usual: str = BUNDLED) -> ModelChoice:
    """The model that was asked for, made if it is a random one that is not there yet.

    Raises `ValueError` for a name that is none, `RequirementMissing` without the bundled model, and
    `ServerFailed` when a checkpoint cannot be made.
    """
    name = options.model or (BUNDLED if options.quick else usual)
    if name == BUNDLED:
        return ModelChoice(label=BUNDLED, folder=_bundled(options))
    if name in SHAPES:
        folder = kept_checkpoint(options.models_folder, name, _bundled(options), CONTEXT)
        return ModelChoice(label=f"random {name}", folder=folder, random=True)
    folder = Path(name)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"--model {name} is neither a folder with a config.json nor one of "
            f"{', '.join([BUNDLED, *SHAPES])}"
        )
    return ModelChoice(label=folder.resolve().name, folder=folder)


def _bundled(options: ExperimentOptions) -> Path:
    if not (options.bundled_model / "config.json").is_file():
        raise RequirementMissing(
            f"This needs the bundled model, and there is none in {options.bundled_model}; give its "
            "folder with --bundled-model."
        )
    return options.bundled_model


def kv_bytes(model: Path, dtype: Dtype, tokens: int = 1) -> int:
    """Bytes of keys and values of so many tokens, from a model's `config.json`."""
    shape = msgspec.json.decode((model / "config.json").read_bytes(), type=_Shape)
    head_dim = shape.head_dim or shape.hidden_size // shape.num_attention_heads
    kv_heads = shape.num_key_value_heads or shape.num_attention_heads
    return 2 * shape.num_hidden_layers * kv_heads * head_dim * _ELEMENT_BYTES[dtype] * tokens


class _Shape(msgspec.Struct):
    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
