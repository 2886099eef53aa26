"""Which program is started when the configuration names none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sluice_engines.registry import create_adapter, load_adapters
from sluice_engines.start_command import (
    NotInstalledError,
    StartCommand,
    command_line,
    find_program,
    start_command,
)

COMMAND = StartCommand(program="some-engine", arguments=("serve", "--port", "{port}"), install="fetch it")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def a_program(folder: Path, name: str) -> str:
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(program)


def test_a_program_on_path_is_taken(path: Path) -> None:
    program = a_program(path, "some-engine")

    assert command_line(COMMAND) == (program, "serve", "--port", "{port}")


def test_one_beside_this_python_goes_before_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = path / "venv"
    beside.mkdir()
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    a_program(path, "some-engine")

    assert find_program("some-engine") == str(path / "some-engine")
    assert a_program(beside, "some-engine") == find_program("some-engine")


def test_a_module_does_for_a_program_that_is_missing(path: Path) -> None:
    here = StartCommand(program="some-engine", arguments=("serve",), module="http.server")

    assert command_line(here) == (sys.executable, "-m", "http.server", "serve")


@pytest.mark.parametrize("module", [None, "no_such_package", "no_such_package.inside.it"])
def test_what_is_nowhere_is_told_with_what_to_do(path: Path, module: str | None) -> None:
    missing = StartCommand(program="some-engine", arguments=(), module=module, install="fetch it")

    with pytest.raises(
        NotInstalledError, match=r"^the program 'some-engine' is not installed.*; fetch it\.$"
    ):
        command_line(missing)


@pytest.mark.parametrize(
    ("adapter", "program", "needs"),
    [
        ("worker", "sluice-worker", ""),
        ("llamacpp", "llama-server", "[--model, FILE.gguf]"),
        ("vllm", "vllm", "[MODEL]"),
        ("transformers", "python", "[--model, FOLDER]"),
        ("onnx", "python", "[--model, FOLDER]"),
        ("echo", None, None),
        ("openai_compatible", None, None),
    ],
)
def test_adapters_of_engines_that_run_here_know_how(
    adapter: str, program: str | None, needs: str | None
) -> None:
    found = start_command(create_adapter(load_adapters([adapter])[adapter]))

    assert (found and found.program, found and found.needs_args) == (program, needs)
    assert found is None or "{port}" in found.arguments
