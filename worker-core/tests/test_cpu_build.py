"""Building the CPU kernels: once, whole or not at all, and with a sentence when it cannot be done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sluice_worker.kernels.cpu import build as builder
from sluice_worker.kernels.cpu.build import BuildError, build, find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")


@needs_compiler
def test_a_library_is_built_once() -> None:
    library = build()
    built_at = library.stat().st_mtime_ns
    assert build() == library
    assert library.stat().st_mtime_ns == built_at


@needs_compiler
def test_a_library_built_elsewhere_serves_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(build(), tmp_path)
    monkeypatch.setattr(builder, "find_compiler", lambda: None)
    monkeypatch.setattr(builder, "PREBUILT", tmp_path)
    assert build(tmp_path / "empty").parent == tmp_path


def test_without_compiler_and_library_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "find_compiler", lambda: None)
    with pytest.raises(BuildError, match="install g\\+\\+"):
        build(tmp_path)


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "c++"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo broken && exit\necho "no such flag" >&2\nexit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    folder = tmp_path / "cache"
    with pytest.raises(BuildError, match="no such flag"):
        build(folder)
    assert list(folder.iterdir()) == []


def test_another_source_is_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in builder.SOURCE.glob("*.[hc]*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(builder, "SOURCE", tmp_path)
    before = builder._source_hash()
    (tmp_path / "registers.h").write_text("// changed\n")
    assert builder._source_hash() != before
