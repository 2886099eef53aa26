"""docs/bench.md, typed in: every command of its fenced blocks is run, in order, against a small stack.

A block without a language, or in `sh`, holds commands and nothing else; what a command prints stands in a
`text` block. The addresses of the page are replaced by those of a gateway with the bundled model. Two remarks
behind a command are read by this test as they are by people:

    # takes minutes        it is run with `--quick` added, or TIME=2s for `make load`
    # status 2, 3          it may end with one of these, beside 0, and 3 for a run that is void

What is only looked at, and why, is in `NOT_RUN`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from repository import ROOT, read
from running_stack import Stack

PAGE = Path("docs/bench.md")
ADDRESS = "http://127.0.0.1:8000"
COMMANDS = ("sluice-bench", "sluice-worker", "sluice", "python", "locust", "make", "curl")
SHELL_LANGUAGES = ("", "sh", "bash")
OTHER_LANGUAGES = ("text", "json", "yaml", "csv", "python", "promql")
GOOD = frozenset({0, 3})

NOT_RUN = {"make bench": "measures for minutes, and what it measures with has tests of its own"}
"""Beginnings of commands that are not run here; tests/test_docs.py looks whether they exist."""


@dataclass(frozen=True)
class Command:
    """One command of the page."""

    section: str
    words: str
    remark: str = ""
    statuses: frozenset[int] = field(default=GOOD)

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.section}: {self.words}"


def commands(page: str) -> Iterator[Command]:
    """All of them. Raises `ValueError` where a block has something else in it."""
    section = ""
    blocks = r"^#+ +(?P<title>[^\n]+)$|^```(?P<language>[^\n]*)\n(?P<body>.*?)^```$"
    for found in re.finditer(blocks, page, re.MULTILINE | re.DOTALL):
        if found["title"]:
            section = found["title"]
        elif (language := found["language"].strip()) in SHELL_LANGUAGES:
            lines = re.sub(r"\\\n\s*", "", found["body"]).splitlines()
            yield from (_command(section, line) for line in lines if line.strip())
        elif language not in OTHER_LANGUAGES:
            raise ValueError(f"a block in {language!r}: neither commands (sh) nor output (text)")


def _command(section: str, line: str) -> Command:
    words, _, remark = line.partition(" # ")
    words, remark = words.strip(), remark.strip()
    if words.split()[0] not in COMMANDS:
        raise ValueError(f"{words!r} is no command that this test knows; output belongs in a text block")
    named = re.search(r"\bstatus (\d(?:(?:, | or )\d)*)", remark)
    statuses = {int(digit) for digit in re.findall(r"\d", named.group(1))} if named else set()
    return Command(section, words, remark, GOOD | statuses)


def runnable(command: Command, url: str) -> list[str]:
    """What is really run: our scripts by path, another address, less work where the page says minutes."""
    words = shlex.split(command.words.replace(ADDRESS, url))
    if words[0] == "make":
        short = ["TIME=2s"] if words[1] == "load" else []
        address = [] if any(word.startswith("URL=") for word in words) else [f"URL={url}"]
        return [*words, *address, *short]
    if "minutes" in command.remark and "--quick" not in words:
        words.append("--quick")
    scripts = Path(sys.executable).parent
    words[0] = sys.executable if words[0] == "python" else words[0]
    if (scripts / words[0]).exists():
        words[0] = str(scripts / words[0])
    return [str(ROOT / word) if word.startswith("bench/") else word for word in words]


GUIDE = list(commands(read(PAGE)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader is: files of a command are there for later ones."""
    return tmp_path_factory.mktemp("guide")


@pytest.mark.parametrize("command", GUIDE, ids=lambda command: command.id)
def test_the_guide_works_as_it_is_written(stack: Stack, folder: Path, command: Command) -> None:
    for beginning, why in NOT_RUN.items():
        if command.words.startswith(beginning):
            pytest.skip(f"{beginning} {why}")
    outer = {"ARGS", "TESTS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    ended = subprocess.run(
        runnable(command, stack.url),
        cwd=ROOT if command.words.startswith("make ") else folder,
        env={**environment, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert ended.returncode in command.statuses, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_there_are_commands_in_every_section_that_shows_one():
    sections = re.findall(r"^## (.+)$", read(PAGE), re.MULTILINE)
    assert {"Five minutes", "Locust, for journeys"} <= {command.section for command in GUIDE}
    assert {command.section for command in GUIDE} <= set(sections)


def test_the_rules_read_a_page_as_people_do():
    page = (
        "## One\n```\nsluice-bench ping http://127.0.0.1:8000\n"
        "sluice-bench run --url http://127.0.0.1:8000 \\\n  --rate 2 # status 1 or 2 without a GPU\n```\n"
        "## Two\n```text\nanything\n```\n```sh\npython bench/benchmark.py # takes minutes\n"
        "make load # takes minutes\n```\n"
    )
    first, second, third, fourth = commands(page)

    assert (first.section, first.statuses) == ("One", GOOD)
    assert second.words == "sluice-bench run --url http://127.0.0.1:8000 --rate 2"
    assert second.statuses == {0, 1, 2, 3}
    assert runnable(first, "http://h:1")[1:] == ["ping", "http://h:1"]
    assert runnable(third, "http://h:1")[1:] == [str(ROOT / "bench/benchmark.py"), "--quick"]
    assert runnable(fourth, "http://h:1") == ["make", "load", "URL=http://h:1", "TIME=2s"]


@pytest.mark.parametrize("page", ["## A\n```\nTTFT 12 ms\n```\n", "## A\n```toml\na = 1\n```\n"])
def test_a_block_that_is_neither_commands_nor_output_is_an_error(page):
    with pytest.raises(ValueError):
        list(commands(page))
