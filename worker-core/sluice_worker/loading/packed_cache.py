"""Packed weights kept on disk from one start to the next.

Packing, and quantizing all the more, reads and writes every weight; a file of what came of it is mapped
instead. It is named by a hash of all that made it: files of the checkpoint, settings, and the code that
reads, quantizes and packs. So nothing here is ever wrong, only unused, and what has not been used for longest
goes when there is too much.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sluice_worker.loading.model_folder import ModelFolder
from sluice_worker.loading.packed_file import PackedFileError, PackedWeights, read_packed, write_packed

logger = logging.getLogger(__name__)

SMALLEST_BYTES = 2**28
"""Of weights worth keeping: fewer are packed in a fraction of a second."""

LARGEST_BYTES = 24 * 2**30
"""Of all files together."""

_ABANDONED_S = 3600
_PACKAGE = Path(__file__).parents[1]
_MAKERS = (
    "loading/*.py",
    "quant/*.py",
    "layers/*.py",
    "models/*.py",
    "kernels/cpu/*.h",
    "kernels/cpu/packed.py",
)
"""Sources whose change may change a packed weight."""


def packed_key(folder: ModelFolder, *settings: str) -> str:
    """Of the model's files as they are now, of `settings`, and of the code. Raises `OSError`."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in (folder.config, *folder.weights):
        status = path.stat()
        digest.update(repr((str(path.resolve()), status.st_size, status.st_mtime_ns)).encode())
    for pattern in _MAKERS:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


class PackedCache:
    """A folder of packed weights. Never raises: without it, a start takes longer."""

    def __init__(self, folder: Path, *, smallest: int = SMALLEST_BYTES, largest: int = LARGEST_BYTES) -> None:
        """`smallest`: bytes of a model worth keeping; `largest`: of all files together."""
        self._folder = folder
        self._smallest, self._largest = smallest, largest

    def find(self, key: str) -> PackedWeights | None:
        """The weights kept as `key`, in memory. A damaged file is said to be so, and removed."""
        path = self._path(key)
        try:
            found = read_packed(path)
        except FileNotFoundError:
            return None
        except (PackedFileError, OSError) as error:
            logger.warning("packing the weights anew: %s", error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # a folder that others fill need not be ours to write
            os.utime(path)
        return found

    def wants(self, weight_bytes: int) -> bool:
        """Whether a model of this size is kept."""
        return self._smallest <= weight_bytes <= self._largest

    def keep(self, key: str, weights: PackedWeights) -> None:
        """Write weights to disk, making room first. They must not change meanwhile."""
        needed = weights.summary.weight_bytes
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(needed)
            free = shutil.disk_usage(self._folder).free
            if free < 2 * needed:
                logger.info("packed weights are not kept: %s has %.1f GB left", self._folder, free / 1e9)
                return
            write_packed(self._path(key), weights)
        except OSError as error:
            logger.warning("packed weights are not kept: %s", error)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.packed"

    def _make_room(self, needed: int) -> None:
        """Remove what interrupted writers left, and the least recently used until `needed` bytes fit."""
        for path, used_s, _ in _stats(self._folder.glob("*.part")):
            if time.time() - used_s > _ABANDONED_S:
                path.unlink(missing_ok=True)
        kept = sorted(_stats(self._folder.glob("*.packed")), key=lambda entry: entry[1])
        total = sum(size for _, _, size in kept)
        for path, _, size in kept:
            if total + needed <= self._largest:
                return
            path.unlink(missing_ok=True)
            total -= size


def _stats(paths: Iterable[Path]) -> list[tuple[Path, float, int]]:
    """Path, last use and bytes of the files that are still there."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append((path, status.st_mtime, status.st_size))
    return found
