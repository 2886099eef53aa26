"""A build script, run by `build.py` in a folder with the sources: MODULE... → `out/`.

Runs in a process of its own, since setuptools works on the process's folder, arguments and output.
"""

from __future__ import annotations

import os
import sys

from mypyc.build import mypycify
from setuptools import Distribution

_MYPY = ("--strict", "--ignore-missing-imports", "--no-warn-unused-ignores", "--cache-dir=/dev/null")


def main(names: list[str]) -> None:
    """Compile the modules called `names`."""
    sys.path.insert(0, ".")
    paths = [name.replace(".", "/") + ".py" for name in names]
    extensions = mypycify([*_MYPY, *paths], opt_level="2", debug_level="0", strip_asserts=False)
    distribution = Distribution({"name": "sluice-compiled", "ext_modules": extensions})
    command = distribution.get_command_obj("build_ext")
    command.build_lib = "out"
    command.build_temp = "objects"
    command.parallel = os.cpu_count() or 1
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    main(sys.argv[1:])
