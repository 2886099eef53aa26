"""One file with all weights of a model in the form the kernels use, to be mapped and used as it is.

    8 bytes magic, 8 bytes length of the header, the header in JSON, then tensors at multiples of 64 bytes

The header gives every tensor's place, counted from the first multiple of 4096 bytes behind it: first what a
step reads whole, then tables and norms. A file appears under its name complete or not at all; what is cut
short later is told by its size.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from sluice_worker.errors import WorkerError
from sluice_worker.kernels.interface import PackedParts
from sluice_worker.loading.pages import in_fast_memory

_MAGIC = b"SLUICEP1"
_ALIGNMENT, _PAGE = 64, 4096
_WRITE_BYTES = 2**24
_DTYPES = {"uint8": torch.uint8, "float32": torch.float32, "bfloat16": torch.bfloat16}


class PackedFileError(WorkerError):
    """The file is not what `write_packed` wrote."""


class WeightSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a load counted."""

    num_parameters: int
    weight_bytes: int
    quantization: str


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a tensor lies, in bytes, and what it is."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


class _Linear(msgspec.Struct, frozen=True):
    """`PackedParts` with places for tensors."""

    layout: int
    shape: tuple[int, int]
    panels: _Place
    scales: _Place | None
    bias: _Place | None


class _Header(msgspec.Struct, frozen=True):
    data_bytes: int
    linear_bytes: int
    """Up to where packed weights lie."""
    summary: WeightSummary
    tensors: dict[str, _Place]
    linears: dict[str, _Linear]


class PackedWeights(NamedTuple):
    """A model's weights, as they are written and as they are found again."""

    summary: WeightSummary
    tensors: Mapping[str, Tensor]
    """By name; of any type in use."""
    linears: Mapping[str, PackedParts]


def write_packed(path: Path, weights: PackedWeights) -> None:
    """Write `path` in one step, through a file beside it. Raises `OSError`."""
    layout = _Layout()
    linears = {name: layout.place_linear(parts) for name, parts in weights.linears.items()}
    linear_bytes = layout.size
    tensors = {name: layout.place(tensor) for name, tensor in weights.tensors.items()}
    header = _Header(
        data_bytes=layout.size,
        linear_bytes=linear_bytes,
        summary=weights.summary,
        tensors=tensors,
        linears=linears,
    )
    encoded = msgspec.json.encode(header)
    start = _data_start(len(encoded))
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        with unfinished.open("wb", buffering=0) as file:
            for chunk in (_MAGIC, len(encoded).to_bytes(8, "little"), encoded):
                _write(file.fileno(), chunk)
            for offset, tensor in layout.tensors:
                os.lseek(file.fileno(), start + offset, os.SEEK_SET)
                _write(file.fileno(), tensor.reshape(-1).view(torch.uint8).numpy().data)
            os.truncate(file.fileno(), start + layout.size)
            _settle(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_packed(path: Path) -> PackedWeights:
    """Map the file and bring it into memory. Raises `PackedFileError`, or `OSError` when it is not there."""
    with path.open("rb") as file:
        prefix, size = file.read(16), os.fstat(file.fileno()).st_size
        length = int.from_bytes(prefix[8:], "little")
        if prefix[:8] != _MAGIC or length > size:
            raise PackedFileError(f"{path} does not begin as a file of packed weights.")
        try:
            header = msgspec.json.decode(file.read(length), type=_Header)
        except msgspec.DecodeError as error:
            raise PackedFileError(f"{path} has a damaged header: {error}.") from error
        start = _data_start(length)
        if size != start + header.data_bytes:
            raise PackedFileError(f"{path} has another length than its header says.")
        data = in_fast_memory(_map(file.fileno()), start + header.linear_bytes)[start:]
    return PackedWeights(
        header.summary,
        {name: _tensor(data, place) for name, place in header.tensors.items()},
        {name: _parts(data, linear) for name, linear in header.linears.items()},
    )


class _Layout:
    """Places given to tensors, one behind the other."""

    def __init__(self) -> None:
        self.size = 0
        self.tensors: list[tuple[int, Tensor]] = []

    def place(self, tensor: Tensor) -> _Place:
        offset = self.size
        self.tensors.append((offset, tensor.contiguous()))
        self.size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        return _Place(offset, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))

    def place_linear(self, parts: PackedParts) -> _Linear:
        scales, bias = (None if part is None else self.place(part) for part in (parts.scales, parts.bias))
        return _Linear(parts.layout, parts.shape, self.place(parts.panels), scales, bias)


def _data_start(header_bytes: int) -> int:
    return -(-(16 + header_bytes) // _PAGE) * _PAGE


def _write(descriptor: int, data: bytes | memoryview) -> None:
    for chunk in _chunks(memoryview(data)):
        while chunk:
            chunk = chunk[os.write(descriptor, chunk) :]


def _chunks(data: memoryview) -> Iterator[memoryview]:
    for first in range(0, len(data), _WRITE_BYTES):
        yield data[first : first + _WRITE_BYTES]


def _settle(descriptor: int) -> None:
    """Onto the disk and out of the page cache: what is read back in one sweep lies in huge pages."""
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _map(descriptor: int) -> Tensor:
    """uint8 [bytes of the file]. Private, so that nothing written to it could reach the file."""
    memory = mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _tensor(data: Tensor, place: _Place) -> Tensor:
    dtype = _DTYPES[place.dtype]
    size = dtype.itemsize * math.prod(place.shape)
    return data[place.offset : place.offset + size].view(dtype).view(place.shape)


def _parts(data: Tensor, linear: _Linear) -> PackedParts:
    scales, bias = (None if place is None else _tensor(data, place) for place in (linear.scales, linear.bias))
    return PackedParts(linear.layout, linear.shape, _tensor(data, linear.panels), scales, bias)
