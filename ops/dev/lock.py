"""Write `constraints.txt` from the installed environment, or check that the two agree.

The lock file pins every distribution that any part of the project or its tests installs. `--check` fails when
something installed is missing from it or pinned to another version, and when it pins what nothing uses.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "constraints.txt"
OURS = {"sluice-router", "sluice-engines", "sluice-gateway", "sluice-worker", "sluice-bench"}
NOT_LOCKED = OURS | {"pip", "setuptools", "wheel"}
HEADER = """\
# Every version that the project and its tests install. `make lock` writes this file, `make lint` checks it.
# torch is pinned here because an open range brings several gigabytes of CUDA libraries on Linux.
"""


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return name.lower().replace("_", "-").replace(".", "-")


def installed() -> dict[str, str]:
    """Name to version of all in this environment but the project itself; labels like `+cpu` are cut."""
    found = {canonical(d.metadata["Name"]): d.version.split("+")[0] for d in metadata.distributions()}
    return {name: version for name, version in found.items() if name not in NOT_LOCKED}


def locked() -> dict[str, str]:
    """Name to version as the lock file has it."""
    lines = [line.strip() for line in LOCK.read_text().splitlines()]
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in pins}


def differences(have: dict[str, str], want: dict[str, str]) -> list[str]:
    """One sentence for each distribution on which the environment and the lock file disagree."""
    missing = [f"{n}=={v} is installed and not in the lock file" for n, v in have.items() if n not in want]
    unused = [
        f"{n}=={v} is in the lock file and nothing installs it" for n, v in want.items() if n not in have
    ]
    other = [
        f"{n} is locked at {want[n]} and {v} is installed" for n, v in have.items() if want.get(n, v) != v
    ]
    return sorted(missing + unused + other)


def main() -> int:
    """Entry point. Returns the exit status."""
    if "--check" not in sys.argv[1:]:
        pins = "".join(f"{name}=={version}\n" for name, version in sorted(installed().items()))
        LOCK.write_text(HEADER + pins)
        return 0
    found = differences(installed(), locked())
    sys.stderr.writelines(f"constraints.txt: {line}\n" for line in found)
    if found:
        sys.stderr.write("Run `make lock` in a fresh environment and commit constraints.txt.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
