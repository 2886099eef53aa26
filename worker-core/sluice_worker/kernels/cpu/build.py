"""Compile the kernels into a shared library, once per source, compiler and machine type.

`python -m sluice_worker.kernels.cpu.build [FOLDER]` prints the library's path. The library is named by hashes
of all that goes into it and moved into place in one step, so that several processes may build at once and an
interrupted build leaves nothing behind. It needs g++ or clang++ with C++17, and no header but the system's; a
library of the same source that was built elsewhere, into `prebuilt` beside the source, serves without them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sluice_worker.user_cache import cache_folder

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).parent
PREBUILT = SOURCE / "prebuilt"
COMMON_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-Wno-psabi",
)
AVX2_FLAGS = ("-mavx2", "-mfma", "-mf16c")
AVX512_FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mavx512bf16")
PLAIN_SOURCES = ("decoder", "dispatch", "team")
"""Compiled once, for any CPU."""

VARIANT_FLAGS = {"plain": (), "avx2": AVX2_FLAGS, "avx512": AVX2_FLAGS + AVX512_FLAGS}


class BuildError(RuntimeError):
    """There is no library and it cannot be built here; the message is a sentence that says what to do."""


def build(folder: Path | None = None) -> Path:
    """Path of the library; compiled into `folder`, by default a cache, unless it is there or prebuilt.

    Raises `BuildError`.
    """
    folder = folder or cache_folder("kernels")
    source, compiler = _source_hash(), find_compiler()
    name = f"libsluice_cpu-{source}-{_version_hash(compiler) if compiler else '*'}.so"
    for place in (folder, PREBUILT):
        if found := sorted(place.glob(name)):
            return found[0]
    if compiler is None:
        raise BuildError("There is no C++ compiler: install g++ (Debian: apt install g++) for fast kernels.")
    return _make(compiler, folder / name)


def find_compiler() -> str | None:
    """`$CXX` or the first compiler with a usual name."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _source_hash() -> str:
    sources = sorted(path for path in SOURCE.iterdir() if path.suffix in (".h", ".cpp"))
    flags = repr((COMMON_FLAGS, VARIANT_FLAGS, platform.machine()))
    return _hash(flags.encode(), *(path.read_bytes() for path in sources))


def _version_hash(compiler: str) -> str:
    return _hash(subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout)


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _make(compiler: str, library: Path) -> Path:
    """Compile in a scratch folder beside the library, then rename."""
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=library.parent) as scratch:
            _compile(compiler, Path(scratch), Path(scratch) / library.name)
            (Path(scratch) / library.name).replace(library)
    except OSError as error:
        raise BuildError(f"The CPU kernels cannot be written to {library.parent}: {error}.") from error
    return library


def _compile(compiler: str, scratch: Path, library: Path) -> None:
    objects = compile_commands(compiler, scratch, platform.machine())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, reversed(objects.values())))  # the slowest first
    # Of a template of the standard library that several variants use, the linker keeps the first: one of
    # `plain`, which every CPU can run.
    _run([compiler, "-shared", "-pthread", "-o", str(library), *map(str, objects)])


def compile_commands(compiler: str, scratch: Path, machine: str) -> dict[Path, list[str]]:
    """Command by object file, in the order of linking; for `machine`, as `platform.machine` names it."""
    variants = list(VARIANT_FLAGS) if machine in ("x86_64", "AMD64") else ["plain"]
    base = [compiler, *COMMON_FLAGS, "-c"]
    commands = {scratch / f"{name}.o": [*base, str(SOURCE / f"{name}.cpp")] for name in PLAIN_SOURCES}
    for isa in variants:
        flags = (*VARIANT_FLAGS[isa], f"-DSLUICE_ISA={isa}")
        commands[scratch / f"{isa}.o"] = [*base, *flags, str(SOURCE / "variant.cpp")]
    return {target: [*command, "-o", str(target)] for target, command in commands.items()}


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        logger.error("%s\n%s", " ".join(command), done.stderr)
        lines = done.stderr.splitlines() or ["it says nothing"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise BuildError(f"{command[0]} cannot compile the CPU kernels: {reason.strip()}")


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{build(Path(sys.argv[1]) if len(sys.argv) > 1 else None)}\n")
    except BuildError as error:
        sys.exit(str(error))
