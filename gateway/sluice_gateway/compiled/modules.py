"""Which modules are compiled, where their machine code lies, and whether it belongs to the present sources.

Chosen by profile: what runs for every request or every event of a stream. What a module in this list may not
do, because mypyc does it differently from Python (`tests/compiled/test_modules.py` looks for the first two):

- define a `msgspec.Struct`: it would lose its options and the types of its fields;
- `await` inside `except` or `finally`: which exception is being handled is one fact a thread there, not one a
  coroutine, so that two requests that are both in such a place would raise each other's exceptions. `async
  with` is fine where leaving never waits, as with `asyncio.timeout`;
- assign `None` or an enum's member to an attribute, call what may change it, and look at it again in the same
  function: mypy believes the assignment, and machine code raises `TypeError` where it is not true;
- call an attribute `_real` or `_imag`: with the underscore that mypyc adds, that is a word of C's compilers;
- assign a whole number to a variable declared as `float`: the two are kept differently.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("sluice_gateway", "sluice_engines", "sluice_router")
"""What the compiled modules import; a change anywhere in it makes them older than the sources."""

COMPILED = (
    "sluice_engines.http_headers",
    "sluice_gateway.admission",
    "sluice_gateway.arrival",
    "sluice_gateway.asgi",
    "sluice_gateway.attempt",
    "sluice_gateway.auth",
    "sluice_gateway.body",
    "sluice_gateway.exchange",
    "sluice_gateway.hedging",
    "sluice_gateway.http_protocol",
    "sluice_gateway.interruption",
    "sluice_gateway.keep_alive",
    "sluice_gateway.keys.scopes",
    "sluice_gateway.ledger.row",
    "sluice_gateway.limits.buckets",
    "sluice_gateway.limits.headers",
    "sluice_gateway.limits.memory",
    "sluice_gateway.limits.money",
    "sluice_gateway.metrics",
    "sluice_gateway.native_client",
    "sluice_gateway.pipeline",
    "sluice_gateway.relay",
    "sluice_gateway.request_ids",
    "sluice_gateway.response",
    "sluice_gateway.resumption.transcript",
    "sluice_gateway.sse",
    "sluice_gateway.tally",
    "sluice_gateway.upstream.client",
    "sluice_gateway.upstream.connection",
    "sluice_gateway.upstream.deadline_clock",
    "sluice_gateway.upstream.pool",
    "sluice_gateway.upstream.pump",
    "sluice_gateway.upstream.request_head",
    "sluice_gateway.upstream.response",
    "sluice_router.affinity",
    "sluice_router.breaker",
    "sluice_router.budget",
    "sluice_router.candidates",
    "sluice_router.concurrency_limit",
    "sluice_router.cost",
    "sluice_router.crowd",
    "sluice_router.dispatcher",
    "sluice_router.fairness",
    "sluice_router.forecast",
    "sluice_router.hedging",
    "sluice_router.key_traffic",
    "sluice_router.latency_model",
    "sluice_router.least_squares",
    "sluice_router.neighbours",
    "sluice_router.placement",
    "sluice_router.placer",
    "sluice_router.plan",
    "sluice_router.prefix_chain",
    "sluice_router.prefix_index",
    "sluice_router.prefix_owners",
    "sluice_router.prefixes",
    "sluice_router.priority",
    "sluice_router.queue",
    "sluice_router.replica",
    "sluice_router.return_times",
    "sluice_router.router",
    "sluice_router.scoring",
    "sluice_router.second_attempt",
    "sluice_router.service_model",
    "sluice_router.shedding",
    "sluice_router.shelf",
    "sluice_router.speculation",
    "sluice_router.suspensions",
    "sluice_router.ticket",
    "sluice_router.token_histogram",
    "sluice_router.turns",
    "sluice_router.waiting_room",
    "sluice_router.work_ledger",
)


def package_folder(package: str) -> Path:
    """Where a package's sources are. Imports nothing of it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(package)
    return Path(spec.submodule_search_locations[0])


def sources() -> dict[str, Path]:
    """Every source file of the packages, by its path below the folder that holds the package."""
    found = {}
    for package in PACKAGES:
        folder = package_folder(package)
        for path in sorted(folder.rglob("*.py")):
            found[f"{package}/{path.relative_to(folder).as_posix()}"] = path
    return found


def home() -> Path:
    """Where compiled modules are kept: inside the environment that runs them."""
    return Path(sys.prefix) / "share" / "sluice" / "compiled"


def current_folder() -> Path:
    """Where those of the present sources, for the present Python, belong."""
    digest = sha256(f"{sys.implementation.cache_tag} {sys.platform}".encode())
    for name, path in sources().items():
        digest.update(f"\n{name}\n".encode())
        digest.update(path.read_bytes())
    return home() / digest.hexdigest()[:24]
