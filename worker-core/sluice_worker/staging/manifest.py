"""The record in a staged folder: what was asked for, where it came from, and each file with its SHA-256.

While files arrive it says `finished: false` and is the journal that a later run goes on from; it turns to
`finished: true` last of all. `serve` reads it: a folder that is unfinished, or where a file has another size
than recorded, is not served. It never holds an address or a token.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sluice_worker.errors import CheckpointError

MANIFEST = "sluice-stage.json"
FORMAT = 1


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a staged folder is to hold."""

    source: str
    """A Hub name, a bundled model, or the absolute path of a folder or file."""
    revision: str | None = None
    """Branch, tag or commit of a Hub repository."""
    to: str | None = None
    """What the model is converted to; `None` leaves it as it is."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class StagedFile(msgspec.Struct, frozen=True):
    """A file that was checked, as it lies in the folder."""

    name: str
    """Relative, with slashes."""
    size: int
    sha256: str
    mtime_ns: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file."""

    format: int = FORMAT
    finished: bool
    tool: str
    request: Request
    origin: str
    """The commit on the Hub, or a digest of names, sizes and times in a folder: what the source was then."""
    files: tuple[StagedFile, ...] = ()


def read_manifest(folder: Path) -> Manifest | None:
    """`None` when there is none, or one that this version cannot read: such a folder is not taken as "
    "staged."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None
    return manifest if manifest.format == FORMAT else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest in one step, so that a reader sees the old one or the new one."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    partial = folder / f"{MANIFEST}.new"
    with partial.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.chmod(0o644)
    partial.replace(folder / MANIFEST)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Names in a folder reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def staged_file(folder: Path, name: str, sha256: str) -> StagedFile:
    """The entry of a file that was just hashed."""
    stat = (folder / name).stat()
    return StagedFile(name, stat.st_size, sha256, stat.st_mtime_ns)


def looks_unchanged(folder: Path, file: StagedFile) -> bool:
    """Whether size and time of change are as recorded; a link in its place is a change."""
    try:
        stat = (folder / file.name).lstat()
    except OSError:
        return False
    is_file = stat.st_mode & 0o170000 == 0o100000
    return is_file and stat.st_size == file.size and stat.st_mtime_ns == file.mtime_ns


def refuse_unfinished(folder: Path) -> None:
    """Raises `CheckpointError` for a staged folder that is not whole; other folders pass."""
    if not (folder / MANIFEST).is_file():
        return
    manifest = read_manifest(folder)
    if manifest is None or not manifest.finished:
        raise CheckpointError(
            f"{folder} is not staged to its end: {MANIFEST} in it says so. Run sluice-worker stage again, "
            "and serve the folder that it names."
        )
    for file in manifest.files:
        path = folder / file.name
        found = path.stat().st_size if path.is_file() else None
        if found != file.size:
            what = (
                "is missing"
                if found is None
                else f"has {found} bytes, not the {file.size} it was staged with"
            )
            raise CheckpointError(f"{path} {what}. Run sluice-worker stage again; it fetches what differs.")
