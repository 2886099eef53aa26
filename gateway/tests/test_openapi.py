"""The description at `/openapi.json` has every path that is served, and is a valid one."""

from __future__ import annotations

import jsonschema
import pytest

from sluice_gateway.routes import ROUTES

from .serving import ECHO, serving, settings_of


async def test_every_data_plane_path_is_described() -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        document = (await served.http.get("/openapi.json")).json()
    inference = {path for path, methods in document["paths"].items() if "inference" in _tags(methods)}
    assert inference == {route.path for route in ROUTES}
    assert document["paths"]["/v1/models"]["get"]["tags"] == ["models"]


def _tags(methods: dict[str, dict[str, list[str]]]) -> set[str]:
    return {tag for operation in methods.values() for tag in operation.get("tags", ())}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/score"])
async def test_schemas_resolve_and_tell_good_bodies_from_bad(path: str) -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        document = (await served.http.get("/openapi.json")).json()
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator({**body, "components": document["components"]})
    good = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "input": "Hi"}
    assert validator.is_valid({**good, "x_engine": {"unknown": True}})
    assert not validator.is_valid({**good, "model": 3})
    assert not validator.is_valid({"input": "Hi"})
