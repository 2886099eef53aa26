"""Finds compiled modules in the place of their sources, in a process that asked for it before importing them.

Nothing is mixed: either all modules of the list come from one build, which was made of exactly the present
sources, or all are Python.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from sluice_gateway.compiled import modules

SWITCH = "SLUICE_COMPILED"
"""Environment variable; `0` serves from Python whatever is there."""


class CompiledFinder(MetaPathFinder):
    """Knows the modules of one build."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """`files`: extension modules by the full names of their modules."""
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        file = self._files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))


def files_in(folder: Path) -> dict[str, Path]:
    """The extension modules below a folder, by full name; empty unless every module of the list is there."""
    suffix = EXTENSION_SUFFIXES[0]
    found = {
        path.relative_to(folder).as_posix().removesuffix(suffix).replace("/", "."): path
        for path in folder.rglob(f"*{suffix}")
    }
    return found if set(modules.COMPILED) <= set(found) else {}


def install(environment: Mapping[str, str] = os.environ) -> bool:
    """Have the compiled modules imported from here on. False when there are none for these sources.

    Another program that runs the router finds this by the entry point group `sluice.compiled`.
    """
    if environment.get(SWITCH) == "0":
        return False
    if is_active():
        return True
    files = files_in(modules.current_folder())
    if files:
        sys.meta_path.insert(0, CompiledFinder(files))
    return bool(files)


def describe() -> str:
    """What this process serves from, for the log."""
    if is_active():
        return "serves from compiled modules"
    return "serves from Python sources, at two thirds of the speed; `sluice compile` compiles them"


def is_active() -> bool:
    """Whether this process serves with compiled modules."""
    return any(isinstance(finder, CompiledFinder) for finder in sys.meta_path)
