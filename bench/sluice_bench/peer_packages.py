"""Other projects' gateways, each in a virtual environment of its own that is made once and kept.

Versions are pinned, so that two reports compare the same peers. Only ready-made wheels are installed, after a
dry run whose list must hold nothing of torch or CUDA: a gateway needs neither, and either is gigabytes.
Nothing is installed beside Sluice itself.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

DEFAULT_FOLDER = Path.home() / ".cache" / "sluice-bench" / "peers"

_HEAVY = re.compile(r"torch|nvidia-|triton|cuda|jaxlib|tensorflow")
_INSTALL_LIMIT_S = 900


Programs = Mapping[str, Path | str]
"""By a peer's name its program, or why there is none."""


class PeerUnavailable(Exception):
    """A peer cannot be measured here; the message says why."""


class PeerPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution on PyPI that holds a gateway."""

    name: str
    version: str
    extras: str = ""
    script: str
    """The console script that starts it."""

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.name}{f'[{self.extras}]' if self.extras else ''}=={self.version}"


LITELLM = PeerPackage(name="litellm", version="1.106.2", extras="proxy", script="litellm")
SGLANG_ROUTER = PeerPackage(name="sglang-router", version="0.3.2", script="sglang-router")
VLLM_ROUTER = PeerPackage(name="vllm-router", version="0.1.17", script="vllm-router")


def installed_programs(
    packages: Mapping[str, PeerPackage], folder: Path, on_step: Callable[[str], None]
) -> Programs:
    """Every peer's program below `folder`, installing what is missing."""
    programs: dict[str, Path | str] = {}
    for name, package in packages.items():
        on_step(f"installing {package.requirement}")
        try:
            programs[name] = installed_script(package, folder)
        except PeerUnavailable as error:
            programs[name] = str(error)
    return programs


def installed_script(package: PeerPackage, folder: Path) -> Path:
    """Path of the package's console script below `folder`, installing it if need be.

    Raises `PeerUnavailable`.
    """
    home = folder / f"{package.name}-{package.version}"
    complete = home / "installed"
    if not complete.exists():
        shutil.rmtree(home, ignore_errors=True)
        _install(package, home)
        complete.touch()
    return home / "bin" / package.script


def _install(package: PeerPackage, home: Path) -> None:
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(home)])
    except OSError as error:
        raise PeerUnavailable(f"{home} cannot be made: {error}") from error
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    plan = _run([*pip, "--dry-run", "--report", "-", package.requirement])
    heavy = heavy_distributions(plan)
    if heavy:
        raise PeerUnavailable(f"{package.requirement} would install {', '.join(heavy)}")
    _run([*pip, package.requirement])


def heavy_distributions(report: str) -> list[str]:
    """Names of what is too large for a gateway in pip's installation report (JSON)."""
    planned = msgspec.json.decode(report[report.index("{") :])["install"]
    names = (item["metadata"]["name"].lower() for item in planned)
    return sorted(name for name in names if _HEAVY.search(name))


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_INSTALL_LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise PeerUnavailable(f"the installation took more than {_INSTALL_LIMIT_S} s") from None
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise PeerUnavailable(f"the installation failed: {last[0][:300] if last else 'no output'}")
    return done.stdout
