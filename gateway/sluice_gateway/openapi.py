"""What FastAPI does not serve, in `/openapi.json`: the data plane, whose paths come from the table of routes
and whose schemas from the structs that bodies are decoded into, and the plain paths.

A body is described as far as the gateway reads it; whatever else is in it is the engine's to judge, so
objects are open. Answers are the engine's too: what is described of them is the failure, which is ours.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from fastapi import FastAPI

from sluice_gateway import facts
from sluice_gateway.dialects.messages import facts as messages_facts
from sluice_gateway.dialects.responses.request import CreateRequest
from sluice_gateway.plain_paths import DESCRIBED, Description
from sluice_gateway.reference import REQUEST_HEADERS
from sluice_gateway.routes import ROUTES, Kind, Route

_JSON = "application/json"
_REF = "#/components/schemas/{name}"
_FAILURE = {_JSON: {"schema": {"$ref": _REF.format(name="Error")}}}
_TITLES: dict[Kind, str] = {
    "chat": "Chat completion",
    "completions": "Text completion",
    "embeddings": "Embeddings",
    "responses": "Create a response",
    "messages": "Anthropic message",
    "count_tokens": "Count a message's tokens",
    "tokenize": "Text to token ids",
    "detokenize": "Token ids to text",
    "rerank": "Rank documents",
    "score": "Score pairs of texts",
    "audio_transcriptions": "Speech to text",
    "audio_translations": "Speech to English text",
    "audio_speech": "Text to speech",
    "images_generations": "Make images",
    "images_edits": "Edit images",
    "images_variations": "Vary an image",
}
_STREAMED = frozenset({"chat", "completions", "responses", "messages"})
_STATUSES = {
    "400": "The request can never succeed as it is.",
    "401": "No key, or a wrong one.",
    "403": "The key may not use what was asked for.",
    "404": "No such model.",
    "429": "A limit, a full queue, or no time left; `retry-after` says when to come back.",
    "502": "The engine failed.",
    "503": "No engine can take the request now; `retry-after` says when to come back.",
}


def describe_front_door(app: FastAPI) -> None:
    """Have the application's own description include what the front door serves itself."""
    own = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = own()
            components = document.setdefault("components", {}).setdefault("schemas", {})
            components.update(_components())
            document["paths"] = {**_plain_paths(), **_paths(), **_merged(document["paths"])}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _merged(own: dict[str, Any]) -> dict[str, Any]:
    """The control plane's paths; a path that both planes have keeps the methods of both."""
    ours = _paths()
    return {path: {**ours.get(path, {}), **methods} for path, methods in own.items()}


def _paths() -> dict[str, Any]:
    return {route.path: {"post": _operation(route)} for route in ROUTES}


def _plain_paths() -> dict[str, Any]:
    return {plain.path: {"get": _plain_operation(plain)} for plain in DESCRIBED}


def _plain_operation(plain: Description) -> dict[str, Any]:
    schema = {"type": "object"} if plain.content_type == _JSON else _TEXT
    operation: dict[str, Any] = {
        "tags": [plain.tag],
        "summary": plain.summary,
        "operationId": "get" + plain.path.replace("/", "_").replace("{", "").replace("}", ""),
        "responses": {
            "200": {"description": "OK", "content": {plain.content_type: {"schema": schema}}},
            **{status: {"description": _STATUSES[status], "content": _FAILURE} for status in plain.failures},
            "default": {"description": "Any other failure.", "content": _FAILURE},
        },
    }
    if plain.path.endswith("{name}"):
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": _TEXT}]
    return operation


def _operation(route: Route) -> dict[str, Any]:
    error = _REF.format(name="AnthropicError" if route.family == "anthropic" else "Error")
    failure = {"application/json": {"schema": {"$ref": error}}}
    return {
        "tags": ["inference"],
        "summary": _TITLES[route.kind],
        "operationId": "post" + route.path.replace("/", "_"),
        "security": [{"bearer": []}, {"apiKey": []}, {}],
        "parameters": _parameters(),
        "requestBody": {"required": True, "content": _body(route)},
        "responses": {
            "200": {"description": "The engine's answer.", "content": _answer(route)},
            **{status: {"description": text, "content": failure} for status, text in _STATUSES.items()},
            "default": {"description": "Any other failure.", "content": failure},
        },
    }


def _parameters() -> list[dict[str, Any]]:
    """The gateway's own request headers, as the reference lists them."""
    found = []
    for written, meaning in REQUEST_HEADERS:
        name = written.strip("`").partition(":")[0].partition("`")[0]
        if name.lower().startswith("x-") and name.lower() not in ("x-api-key", "x-request-id"):
            schema = {"type": "string"}
            found.append({"name": name, "in": "header", "description": meaning, "schema": schema})
    return found


def _body(route: Route) -> dict[str, Any]:
    if route.multipart:
        return {"multipart/form-data": {"schema": {"$ref": _REF.format(name="Upload")}}}
    return {"application/json": {"schema": {"$ref": _REF.format(name=_struct_name(route.kind))}}}


def _answer(route: Route) -> dict[str, Any]:
    if route.kind == "audio_speech":
        return {"*/*": {}}
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if route.kind in _STREAMED:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return content


def _struct(kind: Kind) -> tuple[type[msgspec.Struct], tuple[str, ...]]:
    """What a body of this kind is decoded into, and the content fields of which one has to be there."""
    if kind in ("messages", "count_tokens"):
        return messages_facts.BODY, ("messages",)
    if kind == "responses":
        return CreateRequest, ()
    return facts.body_type(kind)


def _struct_name(kind: Kind) -> str:
    return "".join(word.capitalize() for word in kind.split("_")) + "Request"


def _components() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in {route.kind: None for route in ROUTES if not route.multipart}:
        struct, content = _struct(kind)
        _, schemas = msgspec.json.schema_components([_described(struct)], ref_template=_REF)
        own = schemas.pop("Described")
        found.update({name.lstrip("_"): schema for name, schema in schemas.items()})
        found[_struct_name(kind)] = _request(own, kind, content)
    found["Upload"] = _UPLOAD
    found["Error"] = _ERROR
    found["AnthropicError"] = _ANTHROPIC_ERROR
    return _without_underscores(found)


def _request(schema: dict[str, Any], kind: Kind, content: tuple[str, ...]) -> dict[str, Any]:
    required = ["model"]
    if len(content) == 1:
        required.append(content[0])
    if kind == "messages":
        required.append("max_tokens")
    properties = {
        name: {k: v for k, v in value.items() if k != "default"}
        for name, value in schema.get("properties", {}).items()
        if name != "extras"
    }
    properties["model"] = {"type": "string", "minLength": 1}
    if "messages" in content and len(content) == 1:
        properties["messages"] = {"type": "array", "minItems": 1, "items": {"type": "object"}}
    return {
        "title": _struct_name(kind),
        "description": _TITLES[kind] + ": what the gateway reads of the body. Other fields go to the engine.",
        "type": "object",
        "required": required,
        "properties": properties,
    }


def _described(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The struct with what is left undecoded (`Raw`) said as "anything", which a schema can hold."""
    fields = [
        (field.encode_name, Any if field.type is msgspec.Raw else field.type, None)
        for field in msgspec.structs.fields(struct)
    ]
    return msgspec.defstruct("Described", fields)


def _without_underscores(value: dict[str, Any]) -> dict[str, Any]:
    """References to private structs by the names that they are published under."""
    text = json.dumps(value).replace('"#/components/schemas/_', '"#/components/schemas/')
    found: dict[str, Any] = json.loads(text)
    return found


_TEXT: dict[str, Any] = {"type": "string"}
_NULLABLE: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_UPLOAD: dict[str, Any] = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {"type": "string", "minLength": 1},
        "file": {"type": "string", "format": "binary"},
        "image": {"type": "string", "format": "binary"},
    },
}
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": _NULLABLE, "code": _NULLABLE},
        }
    },
}
_ANTHROPIC_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": _TEXT, "message": _TEXT},
        },
        "request_id": _NULLABLE,
    },
}
