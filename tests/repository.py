"""The repository as its users get it: the files that git tracks."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
def tracked_files() -> tuple[Path, ...]:
    """All tracked files that exist, relative to the root, sorted."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return tuple(sorted(Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()))


def tracked(*suffixes: str) -> list[Path]:
    """Tracked files whose name ends with one of `suffixes`."""
    return [path for path in tracked_files() if path.name.endswith(suffixes)]


def read(path: Path) -> str:
    """The text of a tracked file."""
    return (ROOT / path).read_text(encoding="utf-8")
