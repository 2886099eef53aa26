"""Where a folder is put together before it appears: a hidden neighbour of it, and the lock for both.

    models/vllm                     what engines read: whole, or not there
    models/.vllm.staging/files      the files as they come, with the journal
    models/.vllm.staging/converted  the model quantized, or as GGUF, when that is asked for
    models/.vllm.staging/old        the folder that was replaced, for the moment between two renames
    models/.vllm.lock               held by the one stager that works on the folder

A neighbour lies on the same file system, so that the last step is a rename. After a crash at any point,
`recover` and a new run find everything in one of these places.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sluice_worker.errors import StagingError
from sluice_worker.staging.manifest import read_manifest, sync_folder
from sluice_worker.staging.reporter import Reporter, size

SPARE_BYTES = 16 * 2**20
"""Left free for the file system's own needs."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Workplace:
    """The places of one staged folder."""

    def __init__(self, out: Path) -> None:
        """Raises `StagingError` for a folder that cannot be replaced by a rename."""
        self.out = Path(os.path.abspath(out))  # noqa: PTH100 - links are looked at below, not followed
        self.folder = self.out.with_name(f".{self.out.name}.staging")
        self.files = self.folder / "files"
        self.converted = self.folder / "converted"
        self._old = self.folder / "old"
        if not self.out.name:
            raise StagingError(
                f"{out} cannot be replaced as a whole. Name a folder in it, such as /models/vllm."
            )
        for path in (self.out, self.folder):
            if path.is_symlink():
                raise StagingError(f"{path} is a link. Name the folder that it leads to.")
        if os.path.ismount(self.out):
            raise StagingError(
                f"{self.out} is a volume of its own, which cannot be replaced as a whole. Name a folder in "
                f"it, such as {self.out / 'model'}."
            )

    @contextmanager
    def lock(self, reporter: Reporter) -> Iterator[None]:
        """Held by one process at a time; the others wait. The system frees it when the process dies."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.out.with_name(f".{self.out.name}.lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                reporter.say(f"another stager works on {self.out}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def part(self, name: str) -> Path:
        """Where a file is while it comes."""
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.part"

    def recover(self, reporter: Reporter) -> None:
        """Finish a publication that was cut between its two renames."""
        if self.out.exists() or not self._old.exists():
            return
        reporter.step("recover")
        self._ready().rename(self.out)
        sync_folder(self.out.parent)

    def refuse_strange(self) -> None:
        """Raises `StagingError` when there is something that no stager put there."""
        if not self.out.exists() or read_manifest(self.out) is not None:
            return
        if not self.out.is_dir() or any(self.out.iterdir()):
            raise StagingError(
                f"{self.out} exists, and was not put there by sluice-worker stage. Remove it, or choose "
                "another folder."
            )

    def publish(self, ready: Path, reporter: Reporter) -> None:
        """`ready` becomes the folder; what was there before goes."""
        if self.out.exists():
            reporter.step("move the old folder aside")
            shutil.rmtree(self._old, ignore_errors=True)
            self.out.rename(self._old)
        reporter.step("publish")
        ready.rename(self.out)
        sync_folder(self.out.parent)
        reporter.step("tidy up")
        self.clear()

    def clear(self) -> None:
        """Remove all but the folder itself."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear_converted(self) -> None:
        """Remove what a conversion that was cut has left."""
        for folder in (self.converted, *self.folder.glob(f".{self.converted.name}.*")):
            shutil.rmtree(folder, ignore_errors=True)

    def need_room(self, num_bytes: int) -> None:
        """Raises `StagingError` when so many bytes more do not fit."""
        free = shutil.disk_usage(self.out.parent).free
        if num_bytes + SPARE_BYTES > free:
            raise StagingError(
                f"{self.out.parent} has {size(free)} free, and staging needs "
                f"{size(num_bytes + SPARE_BYTES)} more. Make room, or choose another volume; what is there "
                "is untouched."
            )

    def _ready(self) -> Path:
        for folder in (self.converted, self.files):
            manifest = read_manifest(folder)
            if manifest is not None and manifest.finished:
                return folder
        return self._old


@contextmanager
def disk_errors_in_one_sentence(out: Path) -> Iterator[None]:
    """A full or failing disk as a `StagingError`."""
    try:
        yield
    except OSError as error:
        where = error.filename or out
        if error.errno in _NO_ROOM:
            raise StagingError(
                f"There is no room left to stage {out} ({error.strerror}). Make room, or choose another "
                "volume, and run again: what has come is kept, and what was there before is untouched."
            ) from error
        raise StagingError(f"{where}: {error.strerror or error}. {out} was not staged.") from error
