"""What the tests of staging share: a model that is no model, and reporters that keep quiet or kill."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sluice_worker.stage_command import make_stager
from sluice_worker.staging.checksum import sha256_of
from sluice_worker.staging.manifest import MANIFEST, Request, read_manifest
from sluice_worker.staging.stager import Outcome

FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "model.safetensors": bytes(range(256)) * 12_000,
    "sub/notes.txt": b"beside the model",
}


class Silent:
    """Says nothing, and remembers the steps."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, name: str) -> None:
        self.steps.append(name)

    def begin(self, what: str, total: int, done: int) -> None: ...

    def advance(self, num_bytes: int) -> None: ...

    def end(self) -> None: ...


class Deadly(Silent):
    """Ends the process, as `kill -9` does, when it is told something for the n-th time."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def __getattribute__(self, name: str) -> object:
        if name in ("say", "step", "begin", "advance", "end"):
            self._left -= 1
            if self._left < 0:
                os._exit(9)
        return super().__getattribute__(name)


def make_model(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def stage(
    model: Path | str, out: Path, reporter: Silent | None = None, *, rehash: bool = False, **request: object
) -> Outcome:
    wanted = Request(source=str(model), **request)  # type: ignore[arg-type]
    stager, _ = make_stager(wanted, out, reporter or Silent())
    return stager.run(rehash=rehash)


def verify(model: Path | str, out: Path) -> Outcome:
    return make_stager(Request(source=str(model)), out, Silent())[0].verify()


def content(folder: Path) -> dict[str, bytes]:
    """Of all files but the manifest."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def in_child(act: Callable[[], object]) -> int:
    """The exit status of a process of its own that does so."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def is_whole(out: Path) -> bool:
    manifest = read_manifest(out)
    return (
        manifest is not None
        and manifest.finished
        and all(sha256_of(out / file.name) == file.sha256 for file in manifest.files)
    )
