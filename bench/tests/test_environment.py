"""A report names the machine and the versions, and nothing that is private to it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest

from sluice_bench.environment import describe


def test_machine_and_versions_are_named() -> None:
    found = describe(["msgspec", "no-such-package"])
    assert found.cores == os.cpu_count()
    assert found.memory_gib > 0
    assert found.packages == {"msgspec": msgspec.__version__}


def test_no_host_name_user_or_path_is_in_it() -> None:
    text = msgspec.json.encode(describe()).decode()
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text


def test_outside_a_repository_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert describe([]).commit == "unknown"
