"""Where and with what a report was measured: everything a reader needs to judge or repeat it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import psutil

PACKAGES = (
    "sluice-gateway",
    "sluice-worker",
    "uvloop",
    "uvicorn",
    "fastapi",
    "httpx",
    "msgspec",
    "torch",
    "transformers",
)


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Machine, system and versions."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    commit: str
    """Of the working tree; ends in `+` when it has changes."""
    packages: dict[str, str]
    load_average: float
    """One minute, before the first measurement."""


def describe(packages: Sequence[str] = PACKAGES) -> Environment:
    """Look around. Unknown things are the word `unknown`."""
    return Environment(
        cpu=_cpu_name(),
        cores=psutil.cpu_count() or 0,
        memory_gib=psutil.virtual_memory().total / 2**30,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=sys.version.split()[0],
        commit=_commit(Path.cwd()),
        packages={name: found for name in packages if (found := _version(name)) is not None},
        load_average=os.getloadavg()[0],
    )


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _commit(folder: Path) -> str:
    """When it was first asked for: what runs was loaded then, and an A/B describes itself in every slot."""
    commit = _git(folder, "rev-parse", "--short", "HEAD")
    if commit is None:
        return "unknown"
    return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(("git", *arguments), cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
