"""The documentation names nothing that does not exist."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from repository import ROOT, read, tracked, tracked_files

PAGES = tracked(".md")
COMMANDS = ("sluice", "sluice-worker", "sluice-bench")
COMMAND_LINE = r"(?:^|[\s/(])(sluice(?:-\w+)?)((?: +[^\s;&|)]+)*)"


def code(page: Path) -> Iterator[str]:
    """Each line of each fenced block, and each span of inline code."""
    text = read(page)
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"^```.*?^```", "", read(page), flags=re.S | re.M), re.M)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h)).lower() for h in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


def exists(path: Path) -> bool:
    """Whether a clone has this file or folder."""
    return any(path in (file, *file.parents) for file in tracked_files())


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        linked = Path(os.path.normpath(page.parent / name)) if name else page
        if not exists(linked) or (fragment and fragment not in anchors(linked)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_named_in_code_exists(page):
    folders = "|".join(sorted({path.parts[0] for path in tracked_files() if len(path.parts) > 1}))
    named = {
        found.rstrip("/.")
        for line in code(page)
        for found in re.findall(rf"(?<![\w./-])(?:\./)?((?:{folders})/[\w./-]+)", line)
        if "*" not in line
    }

    # From the root, or from the folder of the page or one above it.
    assert [name for name in sorted(named) if not any(exists(base / name) for base in page.parents)] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z][a-z-]*):", read(Path("Makefile")), re.MULTILINE))
    named = {
        target
        for line in code(page)
        for target in re.findall(r"(?:^|[\s;&(])make ([a-z][a-z-]*)", line.split(" # ")[0])
    }

    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_of_ours_exists_with_its_options(page):
    complaints = [
        complaint
        for line in code(page)
        for command, rest in re.findall(
            r"(?:^|[\s/(])(sluice(?:-\w+)?)((?: +[^\s;&|)]+)*)", line.split(" # ")[0]
        )
        if command in COMMANDS
        for complaint in check_command(command, rest.split())
    ]

    assert complaints == []


def check_command(command: str, words: list[str]) -> Iterator[str]:
    """What is wrong with a command line of ours."""
    path: tuple[str, ...] = (command,)
    while "COMMAND" in help_of(path) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        path, words = (*path, words[0]), words[1:]
        if not help_of(path):
            yield f"there is no '{' '.join(path)}'"
            return
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        if not re.search(rf"(?<![\w-]){option}(?![\w-])", help_of(path)):
            yield f"'{' '.join(path)}' has no {option}"


@cache
def help_of(path: tuple[str, ...]) -> str:
    """The help page of a command; empty when there is no such command."""
    (script,) = entry_points(group="console_scripts", name=path[0])
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown), redirect_stderr(io.StringIO()):
        patch.setattr(sys, "argv", [*path, "--help"])
        for name, value in {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}.items():
            patch.setenv(name, value)
        try:
            script.load()()
        except SystemExit as end:
            return "" if end.code else shown.getvalue()
    return shown.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_python_object_named_by_path_exists(page):
    named = {match for line in code(page) for match in re.findall(r"\b(sluice_\w+(?:\.\w+)*):(\w+)", line)}

    for module, attribute in named:
        assert hasattr(importlib.import_module(module), attribute), f"{module}:{attribute}"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("sluice serve --config sluice.yaml", None),
        ("sluice fly", "there is no 'sluice fly'"),
        ("sluice serve --no-such-option", "'sluice serve' has no --no-such-option"),
    ],
)
def test_the_command_rule_sees_what_it_should(line, complaint):
    command, *words = line.split()

    assert list(check_command(command, words)) == ([complaint] if complaint else [])


def test_the_readme_names_the_two_commands_a_newcomer_needs():
    lines = list(code(Path("README.md")))

    assert {"make run", "make test"} <= {line.split("#")[0].strip() for line in lines}
    assert (ROOT / "Makefile").is_file()
