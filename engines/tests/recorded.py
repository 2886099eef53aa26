"""The pages in `pages/`, as an engine would answer them."""

from __future__ import annotations

import json
from pathlib import Path

from sluice_engines.page import Page

from .record_pages import file_name

PAGES = Path(__file__).parent / "pages"


def load_pages(folder: str, *paths: str, busy: bool = False) -> dict[str, bytes]:
    """Bodies by path, for `parse_load`; with `busy`, as they were under load where that was recorded."""
    bodies = {}
    for path in paths:
        plain, loaded = PAGES / folder / file_name(path), PAGES / folder / f"{file_name(path)}.busy"
        bodies[path] = (loaded if busy and loaded.exists() else plain).read_bytes()
    return bodies


def answers(folder: str) -> dict[str, Page]:
    """Every path that was asked, with its answer."""
    statuses = json.loads((PAGES / folder / "statuses.json").read_text())
    found = {}
    for path, status in statuses.items():
        file = PAGES / folder / file_name(path)
        found[path] = Page(status, file.read_bytes() if status == 200 and file.exists() else b"{}")
    return found
