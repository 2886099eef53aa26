"""Starts a process that serves: the module of this name, with the compiled request path where there is one.

Run as `python -m sluice_gateway.launch MODULE ARGUMENT...`. Compiled modules have to be in place before the
first of them is imported, hence this step before the module's own imports.
"""

from __future__ import annotations

import sys
from importlib import import_module

from sluice_gateway.compiled import finder


def command(module: str, *arguments: str) -> list[str]:
    """The command line that starts `module`, whose `main` returns the exit status."""
    return [sys.executable, "-P", "-m", __name__, module, *arguments]


def main() -> int:
    """The exit status."""
    finder.install()
    del sys.argv[0]
    status: int = import_module(sys.argv[0]).main()
    return status


if __name__ == "__main__":
    sys.exit(main())
