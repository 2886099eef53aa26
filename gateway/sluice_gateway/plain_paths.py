"""Health, readiness, metrics, model list: what load balancers, Prometheus and SDKs ask for all the time.

They are answered here by plain functions, so that a process that is asked for nothing else never loads the
control plane with its web framework (fifteen megabytes, half a second). All of them take GET and HEAD. What
they answer is described for `/openapi.json` in `DESCRIBED`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.gateway import Gateway
from sluice_gateway.metrics_names import CONTENT_TYPE
from sluice_gateway.wire import Header

_JSON = "application/json"
_MODELS = "/v1/models"
_MODEL = _MODELS + "/"
_ALLOW: Header = (b"allow", b"GET, HEAD")

Address = tuple[str, int | None] | None
"""Of the socket that a request came in on."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """One path, for people."""

    path: str
    tag: str
    summary: str
    content_type: str = _JSON
    failures: tuple[str, ...] = ()
    """Statuses beside 200."""


DESCRIBED: tuple[Description, ...] = (
    Description(path="/health", tag="life", summary="200 while the process lives."),
    Description(
        path="/ready",
        tag="life",
        summary="200 when at least one engine can serve, otherwise 503.",
        failures=("503",),
    ),
    Description(
        path="/metrics",
        tag="life",
        summary="Metrics in Prometheus' text format.",
        content_type="text/plain",
    ),
    Description(
        path=_MODELS, tag="models", summary="Models that the key may use.", failures=("401", "403", "503")
    ),
    Description(
        path=_MODEL + "{name}", tag="models", summary="One model.", failures=("401", "403", "404", "503")
    ),
)


class Reply(msgspec.Struct, frozen=True):
    """What is answered with 200."""

    body: bytes
    content_type: str = _JSON


class PlainPaths:
    """Answers them for one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @staticmethod
    def serve(path: str) -> bool:
        """Whether the path is one of these."""
        return path in _PATHS or path.startswith(_MODEL)

    async def answer(
        self, method: str, path: str, headers: Mapping[bytes, bytes], server: Address
    ) -> Reply | Problem:
        """The answer to a request for one of the paths; to HEAD it is the one to GET."""
        if method not in ("GET", "HEAD"):
            found = problem(Failure.METHOD_NOT_ALLOWED, f"{path} does not support {method}; see /docs.")
            return msgspec.structs.replace(found, headers=(*found.headers, _ALLOW))
        if path == "/health":
            return Reply(b'{"status":"ok"}')
        if path == "/ready":
            return self._readiness()
        if path == "/metrics":
            return Reply(await self._gateway.overseer.metrics_page(), CONTENT_TYPE)
        return self._models(path, headers, server)

    def _readiness(self) -> Reply | Problem:
        readiness = self._gateway.readiness()
        if not readiness.ready:
            return problem(Failure.NO_ENGINE, readiness.reason)
        return Reply(msgspec.json.encode({"status": "ready", "message": readiness.reason}))

    def _models(self, path: str, headers: Mapping[bytes, bytes], server: Address) -> Reply | Problem:
        key = self._gateway.keyring.authenticate(headers, server)
        if isinstance(key, Problem):
            return key
        catalog = self._gateway.catalog
        found = catalog.models(key) if path == _MODELS else catalog.model(path.removeprefix(_MODEL), key)
        return found if isinstance(found, Problem) else Reply(msgspec.json.encode(found))


_PATHS = frozenset(described.path for described in DESCRIBED)
