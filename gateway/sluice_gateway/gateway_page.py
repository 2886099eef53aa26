"""The tables of `docs/gateway.md`, made from the code that they describe.

`python -m sluice_gateway.gateway_page docs/gateway.md` writes them into the page, between the comments that
mark their places; a test compares the page with what it would write.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from sluice_gateway.errors import Failure, failure_class, problem
from sluice_gateway.reference import REQUEST_HEADERS, RESPONSE_HEADERS
from sluice_gateway.routes import ROUTES

_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MEMBER = re.compile(r'^    ([A-Z_]+) = "[a-z_]+"\n    """(.*?)"""', re.DOTALL | re.MULTILINE)


def filled(page: str) -> str:
    """The page with its tables as the code has them now. Raises `KeyError` on an unknown table."""
    tables = {
        "paths": _paths(),
        "errors": _errors(),
        "request_headers": _table(("header", "meaning"), REQUEST_HEADERS),
        "response_headers": _table(("header", "meaning"), RESPONSE_HEADERS),
    }
    return _PLACE.sub(lambda place: f"{place[1]}\n{tables[place[2]]}\n{place[3]}", page)


def _paths() -> str:
    rows = (
        (f"`POST {route.path}`", f"`{route.kind}`", "`multipart/form-data`" if route.multipart else "JSON")
        for route in ROUTES
    )
    return _table(("path", "kind", "body"), rows)


def _errors() -> str:
    meanings = {name: " ".join(text.split()) for name, text in _MEMBER.findall(inspect.getsource(Failure))}
    rows = []
    for failure in Failure:
        found = problem(failure, "")
        code = "`null`" if found.code is None else f"`{found.code}`"
        engine = f"`{failure_class(found).value}`"
        rows.append(
            (f"`{failure.value}`", str(found.status), f"`{found.type}`", code, engine, meanings[failure.name])
        )
    rows.sort(key=lambda row: row[1])
    return _table(("outcome", "status", "`type`", "`code`", "class", "when"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Entry point."""
    page = Path(sys.argv[1])
    page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
