"""Same seed, same bytes; no shared prompt beginnings; nothing sent that was not asked for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sluice_bench.target import Target, WireRequest
from sluice_bench.workload import Asking, Shape, chat_requests, random_token_prompts, token_requests

TARGET = Target(host="127.0.0.1", port=8000)
SHORT = Shape(prompt_words=96, output_tokens=64)
LONG = Shape(prompt_words=768, output_tokens=256)


def body(request: WireRequest) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(request.wire.partition(b"\r\n\r\n")[2])
    return decoded


def test_a_workload_is_the_same_bytes_everywhere() -> None:
    requests = chat_requests(TARGET, SHORT, Asking(model="m"), 50, seed=3)
    digest = hashlib.sha256(b"".join(request.wire for request in requests)).hexdigest()
    assert digest == "6498ce2893c65bedc4842e17022448db8355bc07dbde46b67771107a70198021"


def test_no_two_prompts_begin_alike() -> None:
    requests = chat_requests(TARGET, LONG, Asking(model="m"), 200, seed=1)
    beginnings = {body(request)["messages"][0]["content"][:16] for request in requests}
    assert len(beginnings) == 200


def test_prompt_lengths_are_as_asked() -> None:
    (request,) = chat_requests(TARGET, LONG, Asking(model="m"), 1, seed=1)
    words = body(request)["messages"][0]["content"].split()
    assert abs(len(words) - LONG.prompt_words) <= 4
    assert body(request)["max_tokens"] == request.asked_tokens == 256


def test_a_plain_request_has_no_streaming_fields_and_no_extensions() -> None:
    (request,) = chat_requests(TARGET, SHORT, Asking(model="m", stream=False), 1, seed=1)
    assert set(body(request)) == {"model", "messages", "max_tokens", "temperature"}


def test_headers_and_key_are_sent() -> None:
    asking = Asking(model="m", api_key="sk-1", headers=(("X-Backend", "echo"),))
    (request,) = chat_requests(TARGET, SHORT, asking, 1, seed=1)
    assert b"\r\nAuthorization: Bearer sk-1\r\n" in request.wire
    assert b"\r\nX-Backend: echo\r\n" in request.wire


def test_token_prompts_have_exact_lengths_and_ids() -> None:
    prompts = random_token_prompts(3, 20, 300, 400, seed=1)
    requests = token_requests(TARGET, prompts, 8, Asking(model="m", ignore_eos=True))
    sent = [body(request) for request in requests]
    assert [len(fields["prompt"]) for fields in sent] == [20, 20, 20]
    assert all(300 <= token < 400 for fields in sent for token in fields["prompt"])
    assert all(fields["ignore_eos"] and fields["max_tokens"] == 8 for fields in sent)
