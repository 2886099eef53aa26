"""The control plane: administration, files, batches, stored responses, API docs.

A FastAPI application behind the front door. Every error it makes has OpenAI's shape, also those that FastAPI
and Starlette would word themselves.
"""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from sluice_gateway.admin.engines import engines_router
from sluice_gateway.admin.gate import AdminGate
from sluice_gateway.admin.keys import keys_router
from sluice_gateway.admin.reload import reload_router
from sluice_gateway.admin.router import router_router
from sluice_gateway.admin.usage import usage_router
from sluice_gateway.answers import Authenticate
from sluice_gateway.batches.routes import batches_router
from sluice_gateway.errors import Failure, Problem, internal, problem
from sluice_gateway.files.routes import files_router
from sluice_gateway.gateway import Gateway
from sluice_gateway.identity import Key
from sluice_gateway.keys.records import Refused
from sluice_gateway.ledger.report import UsageReport
from sluice_gateway.openapi import describe_front_door
from sluice_gateway.problem_response import problem_response
from sluice_gateway.responses_api.routes import build_router as responses_router


def build_control(gateway: Gateway) -> FastAPI:
    """The control-plane application of a gateway."""
    app = FastAPI(
        title="Sluice",
        summary="One OpenAI endpoint in front of every inference engine you run.",
        description="OpenAI's and Anthropic's APIs, and the gateway's own administration. Of the inference"
        " paths' bodies, what the gateway reads is described; other fields go to the engine as they are.",
        redirect_slashes=False,
    )
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_bug)
    _add_files(app, gateway)
    _add_admin(app, gateway)
    describe_front_door(app)
    return app


def _add_admin(app: FastAPI, gateway: Gateway) -> None:
    app.add_exception_handler(Refused, _on_refused)
    app.include_router(keys_router(gateway.identities.service))
    app.include_router(usage_router(UsageReport(gateway.database), gateway.wall_clock))
    app.include_router(engines_router(gateway, gateway.clock))
    app.include_router(router_router(gateway, gateway.clock))
    app.include_router(reload_router(lambda: gateway.overseer.reload()))
    app.add_middleware(
        AdminGate, keyring=gateway.keyring, origins=lambda: gateway.settings.cors.allow_origins
    )


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return problem_response(error.problem)


def _responses_router(gateway: Gateway, authenticate: Authenticate) -> APIRouter:
    settings, services = gateway.settings, gateway.services
    return responses_router(
        services.responses,
        authenticate,
        services.count_tokens,
        max_body_bytes=settings.server.max_body_bytes,
        body_timeout_s=settings.server.body_timeout_s,
        keep_alive_s=settings.timeouts.keep_alive_s,
    )


def _add_files(app: FastAPI, gateway: Gateway) -> None:
    """Files, batches of requests out of them, and stored responses."""
    timeout_s = gateway.settings.server.body_timeout_s

    def authenticate(request: Request) -> Key | Problem:
        return gateway.keyring.authenticate(dict(request.scope["headers"]), request.scope.get("server"))

    app.include_router(files_router(gateway.services.files, authenticate, timeout_s))
    app.include_router(_responses_router(gateway, authenticate))
    app.include_router(batches_router(gateway.services.batches, authenticate, timeout_s))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        text = f"There is no {request.url.path}; see /docs."
        return problem_response(problem(Failure.NOT_FOUND, text), request=request)
    if error.status_code == 405:
        text = f"{request.url.path} does not support {request.method}; see /docs."
        return problem_response(problem(Failure.METHOD_NOT_ALLOWED, text), error.headers, request=request)
    found = problem(Failure.INVALID_REQUEST, str(error.detail))
    return problem_response(msgspec.structs.replace(found, status=error.status_code), request=request)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:])
    return problem_response(
        problem(Failure.INVALID_REQUEST, f"{param}: {first['msg']}.", param=param or None)
    )


async def _on_bug(request: Request, error: Exception) -> Response:
    """The front door logs it; Starlette raises it once more after this answer."""
    return problem_response(internal(request.state.request_id), request=request)
