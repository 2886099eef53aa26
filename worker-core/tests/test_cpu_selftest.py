"""The kernels without Python: under AddressSanitizer, and cross-compiled for arm64.

`kernels_selftest.cpp` compares every operation with a scalar loop. Here it is compiled and run.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cpu_variants import ISAS, forced_kernels

from sluice_worker.kernels.cpu.build import COMMON_FLAGS, SOURCE, compile_commands, find_compiler

PROGRAM = Path(__file__).with_name("kernels_selftest.cpp")
SANITIZE = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
"""Without optimization: it compiles in a third of the time, and every read is where the source has it."""

ARM_COMPILER, EMULATOR, ARM_LIBRARIES = "aarch64-linux-gnu-g++", "qemu-aarch64", "/usr/aarch64-linux-gnu"


def build_program(folder: Path, compiler: str, machine: str, flags: Sequence[str]) -> Path:
    """Compile the kernels and the self-test, and link them."""
    commands = compile_commands(compiler, folder, machine)
    test_object = folder / "selftest.o"
    commands[test_object] = [
        compiler,
        *COMMON_FLAGS,
        "-I",
        str(SOURCE),
        "-c",
        str(PROGRAM),
        "-o",
        str(test_object),
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(run, [[*command, *flags] for command in reversed(commands.values())]):
            assert done.returncode == 0, done.stderr
    program = folder / "selftest"
    linked = run([compiler, *flags, *map(str, commands), "-pthread", "-o", str(program)])
    assert linked.returncode == 0, linked.stderr
    return program


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # Leaks are looked for by tracing the process, which many containers forbid.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    return build_program(tmp_path_factory.mktemp("sanitized"), compiler, platform.machine(), SANITIZE)


@pytest.mark.parametrize("isa", ISAS)
def test_no_operation_leaves_its_buffers(isa: str, sanitized: Path) -> None:
    forced_kernels(isa)
    done = run([str(sanitized), isa])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("isa", ISAS)
def test_one_number_past_a_buffer_is_seen(isa: str, sanitized: Path) -> None:
    """The check can fail: a kernel is told of one number more than there is."""
    forced_kernels(isa)
    done = run([str(sanitized), isa, "overrun"])
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


def test_arm64_computes_what_scalar_loops_do(tmp_path: Path) -> None:
    for tool, package in ((ARM_COMPILER, "g++-aarch64-linux-gnu"), (EMULATOR, "qemu-user")):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} (Debian: apt install {package})")
    program = build_program(tmp_path, ARM_COMPILER, "aarch64", ("-O1",))
    done = run([EMULATOR, "-L", ARM_LIBRARIES, str(program), "plain"])
    assert done.returncode == 0, done.stdout + done.stderr
