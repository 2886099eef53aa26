"""Everything that the description at `/openapi.json` allows, and much that it forbids, over real sockets: no
failure of the gateway's, no hang, and every answer as the description promises.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import given
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from ..torture.visitor import is_error
from .fuzzed_gateway import ADMIN, FuzzedGateway, fuzzing

PATIENCE_S = 15.0
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
HEADERS = {"authorization": f"Bearer {ADMIN}"}


def try_out(
    gateway: FuzzedGateway, operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode
) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @fuzzing(0.05)
    def ask(case: schemathesis.Case[Any]) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "m"  # any other is refused before much is read
        answer = case.call(base_url=gateway.url, headers=HEADERS, timeout=PATIENCE_S)
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400 and operation.method != "head":
            assert is_error(answer.content, operation.path), answer.content
        gateway.check_nothing_stays()

    # An operation without parameters cannot be asked wrongly.
    with suppress(Unsatisfiable):
        ask()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_operation(gateway: FuzzedGateway, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 40
    for operation in operations:
        try_out(gateway, operation, mode)
