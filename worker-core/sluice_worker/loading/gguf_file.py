"""The container format of llama.cpp's models: metadata and the place of each tensor. No torch, no numpy.

Version 2 and 3 of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, little-endian: a header, typed
metadata, one description per tensor, and the tensors' blocks, each at a multiple of the alignment.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

from sluice_worker.errors import CheckpointError, UnsupportedModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""How `struct` calls the number types of metadata."""
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 32


class TensorPlace(NamedTuple):
    """One tensor in the file."""

    shape: tuple[int, ...]
    """Outermost dimension first, as in torch; the file has it the other way round."""
    type: int
    """`GGML_TYPE_*`."""
    offset: int
    """Bytes from the start of the file."""


class GgufFile(NamedTuple):
    """What a file says before its data begin."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorPlace]


def read_gguf(path: Path) -> GgufFile:
    """Read everything but the tensors.

    Raises `CheckpointError` for a file that is not GGUF or is cut short, `UnsupportedModelError` for a
    version that is not read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).read()
    except (OSError, struct.error, ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a readable GGUF file: {error}.") from error


class _Reader:
    """A position in the file, and what is read there."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 0

    def read(self) -> GgufFile:
        if self._data[:4] != MAGIC:
            raise ValueError("it does not begin with GGUF")
        self._at = 4
        version = self._number("I")
        if version not in VERSIONS:
            raise UnsupportedModelError(
                f"{self._path} has version {version} of GGUF; versions 2 and 3 are "
                "read. Convert the model again with a current llama.cpp."
            )
        num_tensors, num_entries = self._number("Q"), self._number("Q")
        metadata = {self._string(): self._value(self._number("I")) for _ in range(num_entries)}
        places = [self._place() for _ in range(num_tensors)]
        alignment = int(metadata.get("general.alignment", ALIGNMENT))
        begin = -(-self._at // alignment) * alignment
        tensors = {name: TensorPlace(shape, kind, begin + offset) for name, shape, kind, offset in places}
        return GgufFile(self._path, metadata, tensors)

    def _number(self, kind: str) -> Any:
        (value,) = self._numbers(kind, 1)
        return value

    def _numbers(self, kind: str, count: int) -> tuple[Any, ...]:
        if count > _LONGEST:
            raise ValueError(f"a list of {count} values")
        layout = f"<{count}{kind}"
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _string(self) -> str:
        length = self._number("Q")
        text = self._data[self._at : self._at + length]
        if len(text) != length:
            raise ValueError("it ends within a text")
        self._at += length
        return text.decode("utf-8", errors="surrogateescape")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(self._number_kind(kind))
        inner, count = self._number("I"), self._number("Q")
        if inner in (_STRING, _ARRAY):
            return [self._value(inner) for _ in range(count)]
        return list(self._numbers(self._number_kind(inner), count))

    def _number_kind(self, kind: int) -> str:
        if kind not in _NUMBERS:
            raise ValueError(f"a value of type {kind}")
        return _NUMBERS[kind]

    def _place(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._string(), self._number("I")
        shape = tuple(reversed(self._numbers("Q", dimensions)))
        return name, shape, self._number("I"), self._number("Q")
