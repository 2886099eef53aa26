"""What compiled modules may not do, and when they are used: all of one build, of exactly these sources."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice_gateway.compiled import build, finder, modules

SUFFIX = finder.EXTENSION_SUFFIXES[0]


def source(module: str) -> str:
    return modules.sources()[module.replace(".", "/") + ".py"].read_text()


def waits_while_handling(tree: ast.AST) -> Iterator[int]:
    """Lines of a module that wait inside `except` or `finally`."""
    for found in ast.walk(tree):
        if isinstance(found, ast.Try):
            for part in (*found.handlers, *found.finalbody):
                for inner in ast.walk(part):
                    if isinstance(inner, ast.Await | ast.AsyncFor | ast.AsyncWith):
                        yield inner.lineno


@pytest.mark.parametrize("module", modules.COMPILED)
def test_no_compiled_module_waits_while_it_handles_an_exception(module: str) -> None:
    assert list(waits_while_handling(ast.parse(source(module)))) == []


def test_waiting_while_handling_is_seen() -> None:
    text = "async def f():\n try:\n  await g()\n except E:\n  await h()\n finally:\n  async with i: pass\n"
    assert sorted(waits_while_handling(ast.parse(text))) == [5, 7]


@pytest.mark.parametrize("module", modules.COMPILED)
def test_no_compiled_module_defines_a_struct(module: str) -> None:
    classes = (found for found in ast.walk(ast.parse(source(module))) if isinstance(found, ast.ClassDef))
    bases = [ast.unparse(base) for found in classes for base in found.bases]
    assert not [base for base in bases if "Struct" in base]


def test_a_build_that_lacks_a_module_is_not_used(tmp_path: Path) -> None:
    for module in modules.COMPILED:
        path = tmp_path / (module.replace(".", "/") + SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert set(finder.files_in(tmp_path)) == set(modules.COMPILED)
    path.unlink()
    assert finder.files_in(tmp_path) == {}


def test_any_change_of_a_source_makes_a_build_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "router.py"
    shutil.copyfile(modules.sources()["sluice_router/router.py"], copy)
    monkeypatch.setattr(modules, "sources", lambda: {"sluice_router/router.py": copy})
    before = modules.current_folder()
    copy.write_text(copy.read_text() + "\n")
    assert modules.current_folder() != before


def test_it_can_be_switched_off() -> None:
    before = list(sys.meta_path)
    assert not finder.install({finder.SWITCH: "0"})
    assert sys.meta_path == before


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(modules, "home", lambda: tmp_path)
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(build.BuildError, match="apt-get install gcc"):
        build.build()


def test_without_pythons_headers_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(modules, "home", lambda: tmp_path)
    monkeypatch.setattr(build.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(build.BuildError, match="apt-get install python3-dev"):
        build.build()


def test_what_the_compiler_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(modules, "home", lambda: tmp_path)
    monkeypatch.setattr(modules, "COMPILED", ("sluice_router.no_such_module",))
    with pytest.raises(build.BuildError, match="no_such_module"):
        build.build()
    assert list(tmp_path.iterdir()) == []


def test_a_process_with_compiled_modules_imports_them() -> None:
    """Compiled by the installation (`make test`), or now: a machine that tests has a compiler."""
    build.build()
    code = (
        "from sluice_gateway.compiled import finder; assert finder.install();"
        "import sluice_gateway.pipeline as p, sluice_router.router as r; print(p.__file__, r.__file__)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [Path(file).suffix for file in said.split()] == [".so", ".so"]


def test_another_program_finds_the_compiled_router_without_knowing_the_gateway() -> None:
    """`sluice-bench simulate` does."""
    build.build()
    code = (
        "from sluice_bench.commands import simulate_command; simulate_command._prefer_compiled_router();"
        "import sluice_router.router as r; print(r.__file__)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()).suffix == ".so"
