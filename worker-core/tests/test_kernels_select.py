"""Which kernels serve: the fastest, the ones asked for, or plain torch with a word about it."""

from __future__ import annotations

import logging

import pytest
import torch

from sluice_worker.errors import ConfigError
from sluice_worker.kernels.cpu import library as cpu_library
from sluice_worker.kernels.cpu.build import BuildError
from sluice_worker.kernels.select import select_kernels

CPU = torch.device("cpu")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> None:
        raise BuildError("There is no C++ compiler: install g++.")

    monkeypatch.setattr(cpu_library, "library", library)


def test_a_cpu_gets_the_compiled_kernels() -> None:
    assert select_kernels(CPU).name == "cpu"


def test_plain_torch_can_be_asked_for() -> None:
    assert select_kernels(CPU, "reference").name == "reference"


def test_another_device_gets_plain_torch() -> None:
    assert select_kernels(torch.device("cuda")).name == "reference"
    with pytest.raises(ConfigError, match="the device is cuda"):
        select_kernels(torch.device("cuda"), "cpu")


def test_without_a_compiler_plain_torch_serves_and_one_line_says_what_is_lost(
    no_compiler: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert select_kernels(CPU).name == "reference"
    (line,) = caplog.messages
    assert "several times slower" in line
    assert "install g++" in line


def test_asking_for_what_cannot_be_built_is_an_error(no_compiler: None) -> None:
    with pytest.raises(ConfigError, match="install g\\+\\+"):
        select_kernels(CPU, "cpu")
