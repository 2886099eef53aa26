"""The same from JavaScript: OpenAI's npm package, run by Node's own test runner.

The package is installed from `node/package-lock.json` into the user's cache folder, once for each version of
that file. Node and npm have to be there; without them the tests fail and say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from running_stack import Stack

from .conftest import CAPABILITIES, engines_for
from .scripted_upstream import ScriptedServer

SOURCES = Path(__file__).parent / "node"
INSTALL_WITHIN_S = 300
RUN_WITHIN_S = 120


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is missing: install Node.js 20 or newer with npm"
    return found


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder `node_modules`, complete."""
    lock = hashlib.sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice-tests"
    folder = cache / f"node-{lock}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _install(folder)
    return folder / "node_modules"


def _install(folder: Path) -> None:
    """Under another name first: a folder that is there is whole, whoever else installs at the same time."""
    fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, fresh)
    command = [_program("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(
        command, cwd=fresh, capture_output=True, text=True, timeout=INSTALL_WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        fresh.rename(folder)
    except OSError:
        assert folder.exists()
        shutil.rmtree(fresh)


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((SOURCES / "package-lock.json").read_text())["packages"]

    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert all(package["integrity"] for name, package in packages.items() if name)


@pytest.mark.parametrize("program", sorted(path.name for path in SOURCES.glob("*.test.mjs")))
def test_the_npm_package(
    sluice: Stack, upstream: ScriptedServer, packages: Path, tmp_path: Path, program: str
) -> None:
    for source in (*SOURCES.glob("*.mjs"), SOURCES / "package.json"):
        shutil.copy(source, tmp_path)
    (tmp_path / "node_modules").symlink_to(packages)
    told = {
        "SLUICE_URL": sluice.url,
        "SLUICE_UPSTREAM": upstream.url,
        "SLUICE_ENGINES": json.dumps({name: engines_for(name) for name in CAPABILITIES}),
    }
    done = subprocess.run(
        [_program("node"), "--test", program],
        cwd=tmp_path,
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
