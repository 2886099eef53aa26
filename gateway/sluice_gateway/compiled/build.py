"""Compiling: the packages' sources are copied aside, mypyc turns the listed modules into C, and the C
compiler that into one shared library with a small module for each.

The result appears under its final name only when it is complete; builds of older sources are deleted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from sluice_gateway.compiled import modules
from sluice_gateway.compiled.finder import files_in

_LAST_LINES = 20


class BuildError(Exception):
    """It cannot be compiled here; the text says why and what to do."""


def build() -> Path:
    """Compile the present sources, unless that was done before, and return the folder. Takes about a minute.

    Raises `BuildError`.
    """
    folder = modules.current_folder()
    if files_in(folder):
        return folder
    _require_tools()
    with tempfile.TemporaryDirectory(prefix="sluice-compile-") as scratch:
        work = Path(scratch)
        for name, path in modules.sources().items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, work / name)
        _compile(work)
        _publish(work / "out", folder)
    return folder


def _require_tools() -> None:
    compiler = os.environ.get("CC", "cc").split()[0]
    if shutil.which(compiler) is None:
        raise BuildError(f"There is no C compiler ({compiler}); on Debian: apt-get install gcc libc6-dev.")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise BuildError("This Python's headers are not installed; on Debian: apt-get install python3-dev.")
    for package in ("mypyc", "setuptools"):
        try:
            modules.package_folder(package)
        except ModuleNotFoundError:
            raise BuildError(
                f"{package} is not installed; pip install 'sluice-gateway[compile]' brings it."
            ) from None


def _compile(work: Path) -> None:
    command = [sys.executable, "-P", str(Path(__file__).with_name("extensions.py")), *modules.COMPILED]
    done = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode or not files_in(work / "out"):
        last = done.stdout.decode(errors="replace").splitlines()[-_LAST_LINES:]
        raise BuildError("\n".join(["Compiling failed:", *last]))


def _publish(made: Path, folder: Path) -> None:
    """Move a complete build to its place; whoever was quicker wins."""
    home = folder.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=home) as fresh:
            shutil.copytree(made, Path(fresh) / folder.name)
            if not folder.exists():
                (Path(fresh) / folder.name).rename(folder)
        for other in home.iterdir():
            if other != folder and not other.name.startswith("."):
                shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        raise BuildError(f"Cannot write {home}: {error.strerror or error}.") from error
