"""llama.cpp's server, built once from the source package of llama-cpp-python and kept.

The source comes from PyPI, pinned, so that two reports compare the same peer; it is built for this very
machine (all of its CPU's instructions, OpenMP), which is how its users are told to build it.
`llama-quantize`, built beside it, makes the quantized files.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from sluice_bench.peer_packages import PeerUnavailable, run_step

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"

_BUILD_LIMIT_S = 3600
_INSIDE = "vendor/llama.cpp/"
_OFF = (
    "LLAMA_OPENSSL",
    "LLAMA_BUILD_TESTS",
    "LLAMA_BUILD_EXAMPLES",
    "LLAMA_BUILD_APP",
    "LLAMA_BUILD_UI",
    "LLAMA_USE_PREBUILT_UI",
)
"""What a server on loopback does not need; some of it would be downloaded."""


class LlamaCpp(msgspec.Struct, frozen=True):
    """Its programs."""

    server: Path
    quantize: Path


def installed_llama_cpp(folder: Path, on_step: Callable[[str], None]) -> LlamaCpp:
    """The programs below `folder`, building what is missing (some minutes). Raises `PeerUnavailable`."""
    home = folder / f"{PACKAGE}-{VERSION}"
    programs = llama_programs(home)
    complete = home / "installed"
    if complete.exists():
        return programs
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            raise PeerUnavailable(f"llama.cpp cannot be built: there is no {tool} here; install it")
    if not (home / "source").exists():
        on_step(f"downloading the source of {PACKAGE} {VERSION}")
        _unpack_source(home)
    on_step("building llama.cpp, which takes some minutes")
    for command in build_commands(home, os.cpu_count() or 1):
        run_step(command, _BUILD_LIMIT_S)
    complete.touch()
    return programs


def llama_programs(home: Path) -> LlamaCpp:
    """Where the programs of a build in `home` are."""
    folder = home / "build" / "bin"
    return LlamaCpp(folder / "llama-server", folder / "llama-quantize")


def build_commands(home: Path, jobs: int) -> list[list[str]]:
    """Configure, then build."""
    source, build = str(home / "source"), str(home / "build")
    configure = ["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release"]
    configure += ["-DGGML_NATIVE=ON", "-DGGML_OPENMP=ON", *(f"-D{name}=OFF" for name in _OFF)]
    targets = ["--target", "llama-server", "llama-quantize"]
    return [configure, ["cmake", "--build", build, "--parallel", str(jobs), *targets]]


def _unpack_source(home: Path) -> None:
    downloads = home / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE]
    run_step([*pip, "--dest", str(downloads), f"{PACKAGE}=={VERSION}"])
    archives = sorted(downloads.glob("*.tar.gz"))
    if not archives:
        raise PeerUnavailable(f"{PACKAGE} {VERSION} has no source package")
    unfinished = home / "unpacking"
    shutil.rmtree(unfinished, ignore_errors=True)
    with tarfile.open(archives[0]) as archive:
        archive.extractall(unfinished, filter="data")
    top = next(unfinished.iterdir())
    (top / _INSIDE).rename(home / "source")
    shutil.rmtree(unfinished)
    shutil.rmtree(downloads)
