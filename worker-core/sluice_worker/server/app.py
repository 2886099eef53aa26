"""The worker's HTTP application: a dictionary of paths on plain ASGI, and one place where errors end.

/v1/chat/completions  /v1/completions  /v1/models  /v1/models/{id}
/generate  /v1/generate  /v1/generate_nobatch      the worker's own, see `native`
/tokenize  /detokenize
/health   200 while the engine process lives, loading or not
/ready    200 once requests are served
/model    what is loaded      /metrics  Prometheus
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec

from sluice_worker.async_engine import EngineStoppedError
from sluice_worker.errors import RequestError
from sluice_worker.server import metrics, sse
from sluice_worker.server.chat import chat_completions
from sluice_worker.server.completions import completions
from sluice_worker.server.errors import (
    ApiError,
    engine_unavailable,
    internal_error,
    invalid,
    method_not_allowed,
    model_not_found,
    path_not_found,
)
from sluice_worker.server.exchange import (
    ClientLeftError,
    Exchange,
    Message,
    Receive,
    Send,
    client_present,
)
from sluice_worker.server.native import generate, generate_alone, generate_whole
from sluice_worker.server.responses import ModelCard, ModelList, Status
from sluice_worker.server.service import Service
from sluice_worker.server.tokenization import detokenize, tokenize

Endpoint = Callable[[Exchange], Awaitable[None]]
BodyEndpoint = Callable[[Service, Exchange, bytes], Awaitable[None]]
GenerationEndpoint = Callable[[Service, Exchange, bytes, metrics.TokenMeter], Awaitable[None]]

_MODEL_PREFIX = "/v1/models/"
_log = logging.getLogger(__name__)


class WorkerApp:
    """An ASGI application for HTTP scopes. One instance a server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._routes: dict[str, dict[str, Endpoint]] = {
            "/v1/chat/completions": {"POST": self._generating("chat", chat_completions)},
            "/v1/completions": {"POST": self._generating("completions", completions)},
            "/generate": {"POST": self._generating("generate_whole", generate_whole)},
            "/v1/generate": {"POST": self._generating("generate", generate)},
            "/v1/generate_nobatch": {"POST": self._generating("generate_nobatch", generate_alone)},
            "/tokenize": {"POST": self._with_body(tokenize)},
            "/detokenize": {"POST": self._with_body(detokenize)},
            "/v1/models": {"GET": self._list_models},
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/model": {"GET": self._model},
            "/metrics": {"GET": self._metrics},
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request from beginning to end; nothing but cancellation escapes."""
        exchange = Exchange(scope, receive, send, self._service.new_id("req"))
        try:
            await self._endpoint(exchange)(exchange)
        except ClientLeftError:
            _log.debug("The client left during %s %s.", exchange.method, exchange.path)
        except Exception as error:
            await _tell(exchange, _api_error(error))

    def _endpoint(self, exchange: Exchange) -> Endpoint:
        methods = self._routes.get(exchange.path)
        if methods is None and exchange.path.startswith(_MODEL_PREFIX):
            methods = {"GET": self._one_model}
        if methods is None:
            raise path_not_found(exchange.method, exchange.path)
        endpoint = methods.get("GET" if exchange.method == "HEAD" else exchange.method)
        if endpoint is None:
            raise method_not_allowed(exchange.method, tuple(methods))
        return endpoint

    def _generating(self, name: str, endpoint: GenerationEndpoint) -> Endpoint:
        """Wrap an endpoint that generates: body, watching the client, and what is counted of it."""

        async def handle(exchange: Exchange) -> None:
            service = self._service
            arrived_s = service.clock()
            outcome = "cancelled"
            service.metrics.in_flight.inc()
            try:
                body = await exchange.read_body(service.max_body_bytes)
                async with client_present(exchange.receive):
                    await endpoint(service, exchange, body, service.metrics.meter(arrived_s, service.clock))
                outcome = "completed"
            except (ApiError, RequestError) as error:
                outcome = "failed" if _api_error(error).status >= 500 else "rejected"
                raise
            except ClientLeftError:
                raise
            except Exception:
                outcome = "failed"
                raise
            finally:
                service.metrics.in_flight.dec()
                service.metrics.requests.labels(name, outcome).inc()
                service.metrics.duration.observe(service.clock() - arrived_s)

        return handle

    def _with_body(self, endpoint: BodyEndpoint) -> Endpoint:
        """Wrap an endpoint that needs the body and not the engine."""

        async def handle(exchange: Exchange) -> None:
            body = await exchange.read_body(self._service.max_body_bytes)
            await endpoint(self._service, exchange, body)

        return handle

    async def _list_models(self, exchange: Exchange) -> None:
        await exchange.answer_json(ModelList(data=[self._card(name) for name in self._service.model.names]))

    async def _one_model(self, exchange: Exchange) -> None:
        name = exchange.path.removeprefix(_MODEL_PREFIX)
        if name not in self._service.model.names:
            raise model_not_found(name, self._service.model.names)
        await exchange.answer_json(self._card(name))

    def _card(self, name: str) -> ModelCard:
        return ModelCard(id=name, created=self._service.model.created)

    async def _health(self, exchange: Exchange) -> None:
        if not self._service.engine.healthy:
            raise engine_unavailable("The inference engine has stopped. The server is about to restart.")
        await exchange.answer_json(Status("ok"))

    async def _ready(self, exchange: Exchange) -> None:
        self._service.loaded_model()
        await exchange.answer_json(Status("ready"))

    async def _model(self, exchange: Exchange) -> None:
        info = self._service.loaded_model()
        await exchange.answer_json(msgspec.structs.replace(info, model=self._service.model.names[0]))

    async def _metrics(self, exchange: Exchange) -> None:
        await exchange.answer(self._service.metrics.page(), metrics.CONTENT_TYPE)


def _api_error(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case RequestError():
            return invalid(str(error), None, error.code)
        case EngineStoppedError():
            return engine_unavailable(str(error))
        case _:
            _log.error("A request failed because of a bug.", exc_info=error)
            return internal_error()


async def _tell(exchange: Exchange, error: ApiError) -> None:
    """A real status while there is none yet; afterwards an error event."""
    if exchange.status is None:
        await exchange.answer_error(error)
    else:
        await sse.break_off(exchange, error)
