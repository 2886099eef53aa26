"""Where this user's machine keeps what can be made again: compiled kernels, packed weights."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`$XDG_CACHE_HOME/sluice/<kind>`, under `~/.cache` by default. It need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice" / kind
