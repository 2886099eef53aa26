"""Requests on their way to a server that speaks OpenAI's API."""

from __future__ import annotations

import pytest

from sluice_engines.adapter import ClientRequest
from sluice_engines.openai_compatible import OpenAICompatibleAdapter
from sluice_router.types import EngineLoad

BODY = b'{"model": "m",  "messages": []}'


def request(**changes: object) -> ClientRequest:
    return ClientRequest(**{"kind": "chat", "path": "/v1/chat/completions", "body": BODY, **changes})


@pytest.mark.parametrize(
    ("base_url", "origin", "path"),
    [
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001", "/v1/chat/completions"),
        ("http://127.0.0.1:8001/v1", "http://127.0.0.1:8001", "/v1/chat/completions"),
        ("https://api.example.com/openai/v1/", "https://api.example.com", "/openai/v1/chat/completions"),
        ("https://example.com/proxy", "https://example.com", "/proxy/v1/chat/completions"),
        ("http+unix:///run/engine.sock", "http+unix:///run/engine.sock", "/v1/chat/completions"),
    ],
)
def test_base_urls_work_with_and_without_a_path(base_url, origin, path):
    prepared = OpenAICompatibleAdapter().prepare(request(), base_url, None)

    assert (prepared.base_url, prepared.path) == (origin, path)


def test_the_clients_bytes_go_on_unchanged():
    prepared = OpenAICompatibleAdapter().prepare(request(), "http://e", None)

    assert prepared.method == "POST"
    assert prepared.body is BODY


def test_the_clients_credentials_are_replaced_by_the_engines_own():
    headers = (
        (b"Authorization", b"Bearer client"),
        (b"X-Api-Key", b"client"),
        (b"cookie", b"session=client"),
        (b"Content-Length", b"9"),
        (b"X-Request-Id", b"abc"),
    )

    prepared = OpenAICompatibleAdapter().prepare(request(headers=headers), "http://e", "engine-secret")

    assert prepared.headers == ((b"x-request-id", b"abc"), (b"authorization", b"Bearer engine-secret"))


def test_an_engine_without_a_key_gets_no_credential():
    prepared = OpenAICompatibleAdapter().prepare(
        request(headers=((b"authorization", b"Bearer client"),)), "http://e", None
    )

    assert prepared.headers == ()


def test_its_load_is_unknown_not_zero():
    assert OpenAICompatibleAdapter().parse_load({"/metrics": b"anything"}) == EngineLoad()


def test_it_refuses_options_it_does_not_have():
    with pytest.raises(ValueError, match="no options, but was given: speed"):
        OpenAICompatibleAdapter({"speed": 1})
