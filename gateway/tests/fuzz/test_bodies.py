"""No body makes the gateway fail, whatever is in it, on neither of the two ways to the data plane."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from ..torture.visits import ENDPOINTS, Endpoint
from .bodies import bodies, deep
from .fuzzed_gateway import FuzzedGateway, fuzzing
from .raw_client import Answer, check, exchange, post

JSON_ENDPOINTS = [endpoint for endpoint in ENDPOINTS if not endpoint.multipart]


def ask_both_ways(gateway: FuzzedGateway, path: str, kind: bytes, body: bytes) -> Answer:
    found = []
    for target in (path, f"{path}?way=asgi"):
        answers = exchange(gateway.port, [post(target, body, b"content-type: " + kind)])
        assert len(answers) == 1, answers
        check(answers[0], path)
        found.append(answers[0])
    assert found[0].status == found[1].status
    return found[0]


@given(request=bodies())
@fuzzing()
def test_almost_sound_bodies(gateway: FuzzedGateway, request: tuple[Endpoint, bytes, bytes]) -> None:
    endpoint, kind, body = request
    ask_both_ways(gateway, endpoint.path, kind, body)
    gateway.check_nothing_stays()


@pytest.mark.parametrize("levels", [100, 1_100, 100_000])
@pytest.mark.parametrize("endpoint", JSON_ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_deep_nesting(gateway: FuzzedGateway, endpoint: Endpoint, levels: int) -> None:
    for body in deep(levels):
        answers = exchange(gateway.port, [post(endpoint.path, body, b"content-type: application/json")])
        assert len(answers) == 1
        check(answers[0], endpoint.path)
    gateway.check_nothing_stays()


@pytest.mark.parametrize("endpoint", JSON_ENDPOINTS, ids=lambda endpoint: endpoint.path)
def test_large_strings(gateway: FuzzedGateway, endpoint: Endpoint) -> None:
    """A megabyte of each sort, in the prompt and in the model's name."""
    sound = endpoint.body("m", False)
    for text in ("x" * 2**20, "é" * 2**19, '"\\' * 2**18):
        for name in sound:
            body = json.dumps({**sound, name: text}).encode()
            ask_both_ways(gateway, endpoint.path, b"application/json", body)
    gateway.check_nothing_stays()
