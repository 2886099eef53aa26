"""From the name a user gave to the files of a model.

A name is, in this order: a GGUF file or a folder; the name of a model that ships with the package; a Hugging
Face Hub repository, fetched into the Hub's own cache. Nothing is read here but the names of files.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from sluice_worker.errors import CheckpointError, ModelNotFoundError
from sluice_worker.staging.manifest import refuse_unfinished

_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")

BUNDLED_MODELS = ("sluice-tiny", "sluice-tiny-draft")
"""Models that come with the package."""

HUB_PATTERNS = ("*.json", "*.safetensors", "*.jinja")
"""What is fetched of a Hub repository."""


class ModelFolder(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts of one model lie. Optional files are `None` when absent."""

    name: str
    """What to call the model: the name given, or the folder's own name."""
    path: Path
    config: Path
    """`config.json`, or the GGUF file, which holds its own."""
    weights: tuple[Path, ...]
    """Safetensors files; with a sharded index, those the index names. Or one GGUF file."""
    weights_index: Path | None
    tokenizer: Path | None
    tokenizer_config: Path | None
    chat_template: Path | None
    """`chat_template.jinja`; older models keep the template inside `tokenizer_config.json`."""
    generation_config: Path | None
    gguf: Path | None = None
    """The model in one file, when it is that."""

    @property
    def stored_bytes(self) -> int:
        """Size of the weight files."""
        return sum(path.stat().st_size for path in self.weights)


def resolve_model(name: str) -> ModelFolder:
    """Find `name` on disk or on the Hub.

    Raises `ModelNotFoundError` when there is no such model, `CheckpointError` when the folder lacks its
    config or its weights.
    """
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        refuse_unfinished(path.parent)
        return _open_gguf(path)
    if path.is_dir():
        return open_folder(path, name=path.resolve().name)
    if name in BUNDLED_MODELS:
        return open_folder(bundled_path(name), name=name)
    return open_folder(_download(name), name=name)


def open_folder(path: Path, name: str) -> ModelFolder:
    """List the files of the model in `path`. Raises `CheckpointError` naming the file that is missing."""
    refuse_unfinished(path)
    config = path / "config.json"
    if not config.is_file() and (files := sorted(path.glob("*.gguf"))):
        return _open_gguf(_the_only(files))
    if not config.is_file():
        raise CheckpointError(
            f"{path} has no config.json. A model folder needs config.json, *.safetensors and tokenizer.json "
            "in the layout Hugging Face transformers saves, or one *.gguf file."
        )
    index = _optional(path / "model.safetensors.index.json")
    return ModelFolder(
        name=name,
        path=path,
        config=config,
        weights=_weight_files(path, index),
        weights_index=index,
        tokenizer=_optional(path / "tokenizer.json"),
        tokenizer_config=_optional(path / "tokenizer_config.json"),
        chat_template=_optional(path / "chat_template.jinja"),
        generation_config=_optional(path / "generation_config.json"),
    )


def _open_gguf(path: Path) -> ModelFolder:
    return ModelFolder(
        name=path.stem,
        path=path,
        config=path,
        weights=(path,),
        weights_index=None,
        tokenizer=_optional(path.parent / "tokenizer.json"),
        tokenizer_config=_optional(path.parent / "tokenizer_config.json"),
        chat_template=None,
        generation_config=None,
        gguf=path,
    )


def _the_only(files: list[Path]) -> Path:
    if len(files) == 1:
        return files[0]
    names = ", ".join(file.name for file in files)
    if any(_SPLIT.search(file.name) for file in files):
        raise CheckpointError(
            f"{files[0].parent} holds a model in several parts: {names}. Join them with "
            "llama-gguf-split --merge."
        )
    raise CheckpointError(f"{files[0].parent} holds several models: {names}. Give the path of one file.")


def _optional(path: Path) -> Path | None:
    return path if path.is_file() else None


def _weight_files(path: Path, index: Path | None) -> tuple[Path, ...]:
    if index:
        files = _indexed_files(path, index)
    elif (path / "model.safetensors").is_file():
        files = (path / "model.safetensors",)  # a folder may hold the same weights in another layout as well
    else:
        files = tuple(sorted(path.glob("*.safetensors")))
    if not files:
        others = sorted(p.name for pattern in ("*.bin", "*.pth", "*.gguf") for p in path.glob(pattern))
        found = f" It has {', '.join(others)}, a format that is not supported." if others else ""
        raise CheckpointError(
            f"{path} has no *.safetensors file.{found} Save the model with transformers' "
            "save_pretrained(safe_serialization=True), or pick a repository that ships safetensors."
        )
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{index} names {file.name}, which is not in {path}. Fetch the model again."
            )
    return files


def _indexed_files(path: Path, index: Path) -> tuple[Path, ...]:
    try:
        weight_map = msgspec.json.decode(index.read_bytes(), type=dict[str, object]).get("weight_map")
        names = set(msgspec.convert(weight_map, dict[str, str]).values())
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{index} is not a safetensors index: {error}.") from error
    return tuple(path / name for name in sorted(names))


def bundled_path(name: str) -> Path:
    """The folder of a model that ships with the package. Raises `ModelNotFoundError`.

    In a wheel the models are package data; in a checkout they lie beside the package.
    """
    package = Path(__file__).resolve().parent.parent
    candidates = (package / "bundled_models" / name, package.parent / "models" / name)
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    raise ModelNotFoundError(
        f"The bundled model {name} is not installed: neither {candidates[0]} nor {candidates[1]} has it."
    )


def is_path(name: str) -> bool:
    """Whether a name can only be meant as a path, not as a repository of the Hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _download(name: str) -> Path:
    if is_path(name):
        path = Path(name).expanduser()
        if path.with_name(f".{path.name}.staging").exists():
            raise ModelNotFoundError(
                f"{path} is not staged to its end. Wait for sluice-worker stage, or run it again."
            )
        raise ModelNotFoundError(f"There is no model folder {name}. Give a folder that has a config.json.")
    from huggingface_hub import snapshot_download  # a slow import, needed by few
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"{name} is neither a folder here, nor a bundled model ({', '.join(BUNDLED_MODELS)}), and it "
            f"could not be fetched from the Hugging Face Hub: {type(error).__name__}. "
            "Check the name and the network, or give the path of a downloaded folder."
        ) from error
