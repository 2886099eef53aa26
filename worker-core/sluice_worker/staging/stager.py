"""Put a model into a folder, whole or not at all.

    nothing to do?  lock  recover  list  make room
    fetch each file, check it, note it  convert  finish  publish

Each file goes into the journal once its checksum was right, so that a run that was cut goes on where it
stopped, and a byte that is wrong never gets a name that engines read. The folder appears, or is replaced, by
a rename after everything else. Files that the folder had already, with the right content, are linked over
instead of fetched: what differs is all that a repair costs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from sluice_worker.errors import StagingError
from sluice_worker.staging.checksum import check, sha256_of
from sluice_worker.staging.manifest import (
    Manifest,
    Request,
    StagedFile,
    looks_unchanged,
    read_manifest,
    staged_file,
    write_manifest,
)
from sluice_worker.staging.reporter import Reporter, size
from sluice_worker.staging.source import FolderSource, Listing, Source, SourceFile
from sluice_worker.staging.workplace import Workplace, disk_errors_in_one_sentence

Converter = Callable[[Path, Path, str], None]
"""Makes of the model in a folder a new folder, which may not exist, in the format named."""


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to."""

    manifest: Manifest
    changed: bool

    @property
    def num_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size for file in self.manifest.files)


class Stager:
    """Stages one request into one folder."""

    def __init__(
        self,
        request: Request,
        source: Source,
        workplace: Workplace,
        convert: Converter,
        reporter: Reporter,
        tool: str,
    ) -> None:
        """`tool` is noted in the manifest."""
        self._request, self._source, self._place = request, source, workplace
        self._convert, self._reporter, self._tool = convert, reporter, tool

    def run(self, *, rehash: bool = False) -> Outcome:
        """Stage what is missing. Raises `StagingError`, or what converting raises.

        Without `rehash`, files whose size and time of change are as recorded count as unchanged.
        """
        with disk_errors_in_one_sentence(self._place.out):
            if not rehash and not self._place.folder.exists() and (manifest := self._current(rehash=False)):
                return Outcome(manifest, changed=False)
            with self._place.lock(self._reporter):
                self._place.recover(self._reporter)
                if manifest := self._current(rehash):
                    self._place.clear()
                    return Outcome(manifest, changed=False)
                return Outcome(self._stage(), changed=True)

    def verify(self) -> Outcome:
        """Change nothing; hash everything. Raises `StagingError` naming what differs."""
        out = self._place.out
        with disk_errors_in_one_sentence(out):
            manifest = read_manifest(out)
            if manifest is None or not manifest.finished or manifest.request != self._request:
                raise StagingError(f"{out} does not hold {described(self._request)}. Stage it first.")
            if wrong := [file.name for file in manifest.files if not _is_right(out, file)]:
                raise StagingError(
                    f"{out} is damaged: {', '.join(wrong[:5])}{' and others' if wrong[5:] else ''} differ "
                    "from what was staged. Run again with --rehash to fetch what differs."
                )
            return Outcome(manifest, changed=False)

    def _current(self, rehash: bool) -> Manifest | None:
        """The folder's manifest, if it is what is asked for."""
        out = self._place.out
        manifest = read_manifest(out)
        if manifest is None or not manifest.finished or manifest.request != self._request:
            return None
        if self._source_changed(manifest.origin):
            return None
        if not all(looks_unchanged(out, file) for file in manifest.files):
            return None
        if rehash and not all(_is_right(out, file) for file in manifest.files):
            return None
        return manifest

    def _source_changed(self, origin: str) -> bool:
        """Only a folder is looked at: a finished model needs no network, and no source that is gone."""
        source = self._source
        return isinstance(source, FolderSource) and source.root.exists() and source.listing().origin != origin

    def _stage(self) -> Manifest:
        self._place.refuse_strange()
        self._reporter.step("list")
        listing = self._source.listing()
        in_place = self._request.to is not None and isinstance(self._source, FolderSource)
        journal = self._journal(listing)
        self._make_room(listing, journal, in_place)
        if in_place:
            ready = self._converted(journal, self._model_path())
        else:
            journal = self._fetch_all(listing, journal)
            ready = journal if self._request.to is None else self._converted(journal, self._place.files)
        folder = self._place.files if self._request.to is None else self._place.converted
        self._reporter.step("finish")
        done = msgspec.structs.replace(ready, finished=True)
        write_manifest(folder, done)
        self._place.publish(folder, self._reporter)
        return done

    def _journal(self, listing: Listing) -> Manifest:
        """That of a run that was cut, if it fetched the same; else a new one in an empty place."""
        found = read_manifest(self._place.files)
        if found and (found.request, found.origin) == (self._request, listing.origin):
            return msgspec.structs.replace(found, finished=False, tool=self._tool)
        self._reporter.step("clear")
        self._place.clear()
        self._place.files.mkdir(parents=True)
        journal = Manifest(
            finished=False, tool=self._tool, request=self._request, origin=listing.origin, files=()
        )
        write_manifest(self._place.files, journal)
        return journal

    def _make_room(self, listing: Listing, journal: Manifest, in_place: bool) -> None:
        """A converted model is smaller than what it is made of, or as large."""
        there = {file.name for file in journal.files} | self._reusable(listing)
        missing = (
            0 if in_place else sum(self._missing(file) for file in listing.files if file.name not in there)
        )
        total = sum(file.size for file in listing.files)
        self._place.need_room(missing + (total if self._request.to else 0))

    def _missing(self, file: SourceFile) -> int:
        part = self._place.part(file.name)
        return max(0, file.size - (part.stat().st_size if part.exists() else 0))

    def _reusable(self, listing: Listing) -> set[str]:
        """Files whose place in the folder there is now has the size and the checksum asked for."""
        manifest = read_manifest(self._place.out)
        recorded = {file.name: file for file in manifest.files} if manifest else {}
        return {
            file.name
            for file in listing.files
            if (old := recorded.get(file.name)) and old.size == file.size and file.expected != (None, None)
        }

    def _fetch_all(self, listing: Listing, journal: Manifest) -> Manifest:
        reusable = self._reusable(listing)
        for file in listing.files:
            noted = {entry.name: entry for entry in journal.files}
            if file.name in noted and looks_unchanged(self._place.files, noted[file.name]):
                continue
            sha256 = self._linked(file) if file.name in reusable else None
            entry = staged_file(self._place.files, file.name, sha256 or self._fetched(file))
            self._reporter.step(f"note {file.name}")
            others = tuple(other for other in journal.files if other.name != file.name)
            journal = msgspec.structs.replace(journal, files=(*others, entry))
            write_manifest(self._place.files, journal)
        return journal

    def _linked(self, file: SourceFile) -> str | None:
        """Give the file that the folder has now a second name, if its content is right."""
        old, new = self._place.out / file.name, self._place.files / file.name
        if not old.is_file() or old.is_symlink() or (sha256 := check(old, file.expected)) is None:
            return None
        self._reporter.step(f"link {file.name}")
        self._make_parents(new)
        new.unlink(missing_ok=True)
        try:
            new.hardlink_to(old)
        except OSError:  # not every file system has links
            return None
        return sha256

    def _fetched(self, file: SourceFile) -> str:
        part, target = self._place.part(file.name), self._place.files / file.name
        if target.exists():  # it came, but the run was cut before that was noted
            if target.stat().st_nlink > 1:  # also in the folder that engines read: never written to
                target.unlink()
            else:
                target.replace(part)
        self._reporter.step(f"fetch {file.name}")
        self._reporter.begin(file.name, file.size, part.stat().st_size if part.exists() else 0)
        expected = self._source.fetch(file, part, self._reporter)
        self._reporter.end()
        sha256 = check(part, expected)
        if sha256 is None or part.stat().st_size != file.size:
            part.unlink()
            raise StagingError(
                f"{file.name} of {self._request.source} came with other bytes than its checksum says. Run "
                "again to fetch it anew; if it repeats, something between here and the source changes files."
            )
        part.chmod(0o644)
        _sync(part)
        self._make_parents(target)
        self._reporter.step(f"keep {file.name}")
        part.replace(target)
        return sha256

    def _make_parents(self, path: Path) -> None:
        """Engines run as other users: folders are for everybody to read, whatever the umask."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.parents:
            folder.chmod(0o755)
            if folder == self._place.files:
                break

    def _model_path(self) -> Path:
        assert isinstance(self._source, FolderSource)
        return self._source.root

    def _converted(self, journal: Manifest, model: Path) -> Manifest:
        self._reporter.step("convert")
        self._place.clear_converted()
        to = self._request.to or ""
        self._reporter.say(f"converting to {to}")
        self._convert(model, self._place.converted, to)
        files = []
        for path in sorted(self._place.converted.rglob("*")):
            if path.is_file():
                path.chmod(0o644)
                _sync(path)
                name = path.relative_to(self._place.converted).as_posix()
                files.append(staged_file(self._place.converted, name, sha256_of(path)))
        return msgspec.structs.replace(journal, files=tuple(files))


def described(request: Request) -> str:
    """`Qwen/Qwen3-0.6B at main as int8`."""
    revision = f" at {request.revision}" if request.revision else ""
    return f"{request.source}{revision}{f' as {request.to}' if request.to else ''}"


def summary(outcome: Outcome, out: Path) -> str:
    """One line about a run."""
    facts = f"{len(outcome.manifest.files)} files, {size(outcome.num_bytes)}"
    return (
        f"{out}: {described(outcome.manifest.request)}, {facts}{'' if outcome.changed else ', nothing to do'}"
    )


def _is_right(folder: Path, file: StagedFile) -> bool:
    path = folder / file.name
    return path.is_file() and not path.is_symlink() and sha256_of(path) == file.sha256


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
