"""What stands before everything under `/admin/`: who may come in, from where, and with how much.

A plain ASGI application around the control plane, so that it decides before anything of a body is parsed. The
caller needs a key with the scope `admin`. An open gateway has no keys; there a web page must not be able to
administer it through its visitor's browser, so a foreign `Origin` is refused, and what changes something must
be JSON, which browsers do not send across origins without asking first. The body is read whole and bounded.

Source: OWASP's cheat sheet on cross-site request forgery, "Verifying origin with standard headers" and
"Disallowing simple requests".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from sluice_gateway.auth import OPEN, Keyring
from sluice_gateway.body import GONE, read_body
from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.identity import Key
from sluice_gateway.keys.records import Actor
from sluice_gateway.problem_response import problem_response
from sluice_gateway.wire import Message, Receive, Scope, Send

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PREFIX = "/admin/"
_MAX_BODY_BYTES = 65_536
_BODY_TIMEOUT_S = 30.0
_READS = ("GET", "HEAD", "OPTIONS")
_NOT_ADMIN = problem(
    Failure.ADMIN_NOT_ALLOWED,
    "This key may not use the admin API; it takes one with the scope 'admin' (sluice keys create --admin).",
)
_FOREIGN = problem(
    Failure.ORIGIN_NOT_ALLOWED,
    "Without API keys the admin API does not answer web pages of other origins. Make a key with"
    " `sluice keys create --admin`, or add the origin to 'cors.allow_origins'.",
)
_NOT_JSON = problem(Failure.BODY_ENCODING, "Send 'content-type: application/json'.")


class AdminGate:
    """Lets through to `app` what may pass; all other paths pass anyway."""

    def __init__(self, app: Application, keyring: Keyring, origins: Callable[[], Iterable[str]]) -> None:
        """`origins` gives the web pages that are trusted now, from `cors.allow_origins`; `*` trusts nobody
        here."""
        self._app = app
        self._keyring = keyring
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        found = self._admitted(scope, headers)
        body = found if isinstance(found, Problem) else await self._body(scope, headers, receive)
        if isinstance(body, Problem):
            if body is not GONE:
                await problem_response(body)(scope, receive, send)
            return
        scope["state"]["admin_key"] = found
        await self._app(scope, _replaying(body, receive), send)

    def _admitted(self, scope: Scope, headers: dict[bytes, bytes]) -> Key | Problem:
        found = self._keyring.authenticate(headers, scope.get("server"))
        if isinstance(found, Problem):
            return found
        if found is OPEN and self._is_foreign(headers):
            return _FOREIGN
        if not found.scopes.admin:
            return _NOT_ADMIN
        return found

    async def _body(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes | Problem:
        if scope["method"] in _READS:
            return b""
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if scope["method"] != "DELETE" and media_type != b"application/json":
            return _NOT_JSON
        return await read_body(receive, headers, _MAX_BODY_BYTES, _BODY_TIMEOUT_S)

    def _is_foreign(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a browser says that another site's page is behind the request."""
        origin = headers.get(b"origin")
        if origin is None:
            return headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin")
        name = origin.decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        trusted = {origin.rstrip("/") for origin in self._origins()}
        return name not in trusted and name not in (f"http://{host}", f"https://{host}")


def _replaying(body: bytes, receive: Receive) -> Receive:
    """The body once more, for whoever parses it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def admin_key(
    request: Request,
    _shown_in_docs: Annotated[object, Depends(HTTPBearer(auto_error=False, description="A key."))] = None,
) -> Key:
    """The administrator's key. A request that did not come through the gate has none, and fails."""
    key: Key = request.scope["state"]["admin_key"]
    return key


def actor(request: Request, key: Annotated[Key, Depends(admin_key)]) -> Actor:
    """Who is at work, for the audit log."""
    return Actor(key.id, request.scope["state"]["request_id"])
