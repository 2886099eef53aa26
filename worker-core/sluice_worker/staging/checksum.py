"""Checksums of files: SHA-256, and that of git, which the Hub gives for small files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

CHUNK_BYTES = 2**20


class Expected(NamedTuple):
    """What a file must hash to: either is enough."""

    sha256: str | None = None
    git_blob: str | None = None
    """SHA-1 of `blob <size>\\0` and the content."""


def copy_hashed(source: BinaryIO, target: BinaryIO, advance: Callable[[int], None]) -> str:
    """Copy all of `source`; the SHA-256 of what was read."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
        advance(len(chunk))
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, expected: Expected) -> str | None:
    """The SHA-256 of the file if it is as expected, else `None`."""
    sha256 = sha256_of(path)
    if expected.sha256 is not None:
        return sha256 if sha256 == expected.sha256 else None
    if expected.git_blob is not None:
        return sha256 if _git_blob_of(path) == expected.git_blob else None
    return sha256


def _git_blob_of(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
