"""Where a model is fetched from: a folder, or a single file, here. The Hub is in `hub`.

A source lists its files first, with sizes, then gives them one by one. Names are relative paths that stay
inside the folder they are written to, whoever gave them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from sluice_worker.errors import StagingError
from sluice_worker.staging.checksum import Expected, copy_hashed
from sluice_worker.staging.manifest import MANIFEST, Request, read_manifest, refuse_unfinished
from sluice_worker.staging.reporter import Reporter


class SourceFile(NamedTuple):
    """A file to stage."""

    name: str
    size: int
    expected: Expected = Expected()


class Listing(NamedTuple):
    """All files to stage."""

    origin: str
    """Changes whenever the files do."""
    files: tuple[SourceFile, ...]


class Source(Protocol):
    """Somewhere that has a model."""

    def listing(self) -> Listing:
        """Raises `StagingError` when it cannot be had, or nothing is to be staged."""

    def fetch(self, file: SourceFile, part: Path, reporter: Reporter) -> Expected:
        """Bring `part`, which may hold a beginning of the file, to its end; what it must hash to."""


class FolderSource:
    """A folder on this machine, or one file of it. Links to files count as the files they lead to."""

    def __init__(self, request: Request, root: Path, only: str | None = None) -> None:
        self._request, self.root, self._only = request, root, only

    @property
    def path(self) -> str:
        """Of the folder, or of the one file."""
        return str(self.root / self._only if self._only else self.root)

    def listing(self) -> Listing:
        """Hidden files and folders are left out, and what is neither a file nor a link to one is refused."""
        if not self.root.is_dir():
            raise StagingError(f"There is no model folder {self.root}. Give a folder, or a name on the Hub.")
        refuse_unfinished(self.root)
        manifest = read_manifest(self.root)
        known = {file.name: file.sha256 for file in manifest.files} if manifest else {}
        state = hashlib.sha256()
        files = []
        for name in self._names():
            stat = (self.root / name).stat()
            state.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
            files.append(SourceFile(name, stat.st_size, Expected(sha256=known.get(name))))
        if not files:
            raise StagingError(
                f"{self.root} has no file to stage{_but_for_patterns(self._request)}. Give a model folder."
            )
        return Listing(state.hexdigest(), tuple(files))

    def fetch(self, file: SourceFile, part: Path, reporter: Reporter) -> Expected:
        """A copy begins anew: reading the beginning again costs as much as writing it."""
        if part.exists():
            reporter.advance(-part.stat().st_size)
        with (self.root / file.name).open("rb") as source, part.open("wb") as target:
            sha256 = copy_hashed(source, target, reporter.advance)
        if file.expected.sha256 not in (None, sha256):
            raise StagingError(
                f"{self.root / file.name} is not what {MANIFEST} beside it records: its content has changed. "
                "Stage that folder again."
            )
        return Expected(sha256=sha256)

    def _names(self) -> list[str]:
        found = [self._only] if self._only else sorted(_walk(self.root))
        names = [name for name in found if self._wanted(name)]
        for name in names:
            path = self.root / name
            if path.is_symlink() and not path.exists():
                raise StagingError(f"{path} is a link that leads nowhere. Remove it, or --exclude it.")
            if not path.is_file():
                raise StagingError(
                    f"{path} is neither a file nor a link to one. Stage the folder it leads to, or "
                    "--exclude it."
                )
        return names

    def _wanted(self, name: str) -> bool:
        if name == MANIFEST or any(part.startswith(".") for part in name.split("/")):
            return False
        return matches(name, self._request.include or ("*",), self._request.exclude)


def _walk(root: Path) -> Iterator[str]:
    """Everything but folders, and links to folders, whose content would be taken for the model's."""
    for base, folders, files in os.walk(root):
        for name in files + [name for name in folders if (Path(base) / name).is_symlink()]:
            yield (Path(base) / name).relative_to(root).as_posix()


def matches(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a pattern of `include` fits and none of `exclude`; `*` fits slashes too."""
    return any(fnmatchcase(name, p) for p in include) and not any(fnmatchcase(name, p) for p in exclude)


def check_name(name: str) -> str:
    """`name`, when it stays inside a folder. Raises `StagingError` otherwise."""
    path = PurePosixPath(name)
    strange = not name.isprintable() or "\\" in name or ":" in name or str(path) != name
    if strange or path.is_absolute() or not path.parts or {"..", "."} & set(path.parts):
        raise StagingError(
            f"The source lists a file named {name!r}, which could be written outside the model's folder. "
            "Nothing of it was staged; use a source that you trust."
        )
    return name


def _but_for_patterns(request: Request) -> str:
    return " that fits --include and --exclude" if request.include or request.exclude else ""
