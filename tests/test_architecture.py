"""The house rules that no single package's tests can see."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import ROOT, read, tracked

WORKSPACE = tomllib.loads(read(Path("pyproject.toml")))["tool"]["sluice"]["workspace"]
PACKAGES = sorted(
    path.parent for path in tracked("__init__.py") if re.match(r"[^/]+/sluice_\w+/__", str(path))
)
MAX_LINES = 500
SOURCES = (".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".txt", ".cfg", "Makefile", "Dockerfile", "run")
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def modules(*folders: Path) -> list[Path]:
    return [path for path in tracked(".py") if any(path.is_relative_to(folder) for folder in folders)]


def test_imports_run_one_way():
    linter = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert linter.returncode == 0, linter.stdout + linter.stderr


def test_no_module_is_too_long_to_read():
    lengths = {str(path): len(read(path).splitlines()) for path in tracked(".py")}

    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


@pytest.mark.parametrize("folder", WORKSPACE)
def test_every_distribution_says_what_it_is_and_how_to_test_it(folder):
    readme = read(Path(folder) / "README.md")

    assert len(readme.split("\n")) >= 8
    assert f"{folder}/tests" in readme, "it tells how to run only its tests"
    assert re.search(r"\bnever\b|\bdoes not\b|\bknows nothing\b", readme, re.IGNORECASE), (
        "it tells its limits"
    )


@pytest.mark.parametrize("folder", WORKSPACE)
def test_every_distribution_is_typed_and_tested(folder):
    names = {path.name for path in modules(Path(folder) / "tests")}
    typed = [path for path in tracked("py.typed") if path.is_relative_to(folder)]

    assert any(name.startswith("test_") for name in names)
    assert len(typed) == 1


def test_the_workspace_has_exactly_these_packages():
    names = {package.name for package in PACKAGES if package.name.startswith("sluice_")}

    assert names == {"sluice_router", "sluice_engines", "sluice_gateway", "sluice_worker", "sluice_bench"}
    assert {str(package.parent) for package in PACKAGES if package.name.startswith("sluice_")} == set(
        WORKSPACE
    )


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a path that exists on one machine only", r"(?<![\w.])/(?:work|Users|root|home/\w+)/\w"),
        ("work left undone", r"\b(?:TO" r"DO|FIX" r"ME)\b"),
        ("a breakpoint", r"\bbreakpoint\(\)|\bpdb\.set_trace\b"),
    ],
)
def test_no_source_contains(what, pattern):
    found = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path in tracked(*SOURCES)
        if path != Path("tests/test_architecture.py")
        for number, line in enumerate(read(path).splitlines(), start=1)
        if re.search(pattern, line)
    ]

    assert found == [], what


def test_every_public_name_has_a_docstring():
    missing = [
        f"{path}: {name}" for path in modules(*PACKAGES) for name in undocumented(ast.parse(read(path)))
    ]

    assert missing == []


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public names without a docstring: the module, its classes, their methods, its functions."""
    if not ast.get_docstring(tree):
        yield "the module itself"
    for node in tree.body:
        yield from undocumented_definition(node, "")


def undocumented_definition(node: ast.stmt, prefix: str) -> Iterator[str]:
    if not isinstance(node, Definition) or node.name.startswith("_") or is_repeated(node):
        return
    if not ast.get_docstring(node):
        yield prefix + node.name
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            yield from undocumented_definition(member, f"{node.name}.")


def is_repeated(node: Definition) -> bool:
    """An overload or a setter: documented once, at the definition it belongs to."""
    decorators = {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in node.decorator_list}
    return bool(decorators & {"overload", "setter", "override"})


def test_the_docstring_rule_sees_what_it_should():
    source = '''
class Shown:
    """Documented."""
    def bare(self): ...
    def _hidden(self): ...
class _Hidden:
    def bare(self): ...
def bare(): ...
'''

    assert list(undocumented(ast.parse(source))) == ["the module itself", "Shown.bare", "bare"]
