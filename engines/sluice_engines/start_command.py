"""How an engine is started on this machine when the configuration does not say: data of its adapter.

An adapter that knows has an attribute `start`. One without is managed only with a `command` of the
configuration. `{port}` in the arguments stands for the engine's port.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec

from sluice_engines.adapter import EngineAdapter


class StartCommand(msgspec.Struct, frozen=True, kw_only=True):
    """The default command of one engine."""

    program: str
    """Its name on PATH, or beside this Python: a virtual environment need not be activated."""
    arguments: tuple[str, ...]
    module: str | None = None
    """The module of this Python that does the same, for where the program is missing."""
    install: str = ""
    """How it is installed, as the end of a sentence."""
    needs_args: str = ""
    """What the configuration has to add, at least; empty when the engine runs as it is."""


class NotInstalledError(Exception):
    """The engine's program is not on this machine. The message is a sentence for the user."""


def start_command(adapter: EngineAdapter) -> StartCommand | None:
    """What the adapter knows; `None` when it does not."""
    found = getattr(adapter, "start", None)
    return found if isinstance(found, StartCommand) else None


def command_line(command: StartCommand) -> tuple[str, ...]:
    """Program and arguments. Raises `NotInstalledError`."""
    program = find_program(command.program)
    if program is not None:
        return (program, *command.arguments)
    if command.module is not None and _is_importable(command.module):
        return (sys.executable, "-m", command.module, *command.arguments)
    install = f"; {command.install}" if command.install else ""
    raise NotInstalledError(f"the program '{command.program}' is not installed, or not on PATH{install}.")


def find_program(name: str) -> str | None:
    """The path of a program: beside this Python, or on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


def _is_importable(module: str) -> bool:
    """Without importing more than the packages that it is in."""
    try:
        return find_spec(module) is not None
    except ImportError:
        return False
