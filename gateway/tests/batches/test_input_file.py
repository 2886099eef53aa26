"""Which input files are run, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice_gateway.batches import input_file
from sluice_gateway.batches.input_file import MAX_ERRORS, MAX_REQUESTS, Checked

from .batch_server import jsonl, request_line

CHAT = "/v1/chat/completions"


def checked(folder: Path, content: bytes) -> Checked:
    path = folder / "in.jsonl"
    path.write_bytes(content)
    return input_file.check(path, CHAT, 1000)


def line(**changes: Any) -> bytes:
    return json.dumps(request_line("x", **changes)).encode()


BODY = {"model": "m", "messages": []}
MISTAKES = [
    (b"", "empty_file", None, None),
    (b" \n\n", "empty_file", None, None),
    (b"{", "invalid_json_line", 1, None),
    (b'{"a": 1}garbage', "invalid_json_line", 1, None),
    (b"\xff", "invalid_json_line", 1, None),
    (b'{"x":' + b"[" * 900, "invalid_json_line", 1, None),
    (b"[]", "invalid_type", 1, None),
    (line(custom_id=7), "invalid_type", 1, None),
    (line(custom_id=None), "missing_required_parameter", 1, "custom_id"),
    (line(custom_id=""), "missing_required_parameter", 1, "custom_id"),
    (line() + b"\n\n" + line(), "duplicate_custom_id", 3, "custom_id"),
    (line(method="GET"), "invalid_method", 1, "method"),
    (line(url="/v1/embeddings"), "invalid_url", 1, "url"),
    (line(url=None), "invalid_url", 1, "url"),
    (line(body=None), "missing_required_parameter", 1, "body"),
    (line(body=[]), "invalid_type", 1, "body"),
    (line(body={"messages": []}), "missing_required_parameter", 1, "body.model"),
    (line(body={"model": 3}), "invalid_type", 1, "body"),
    (line(body={**BODY, "stream": True}), "invalid_request", 1, "body.stream"),
    (line(body={**BODY, "user": "x" * 2000}), "line_too_long", 1, None),
]


@pytest.mark.parametrize(("content", "code", "number", "param"), MISTAKES)
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, content: bytes, code: str, number: int | None, param: str | None
) -> None:
    found = checked(tmp_path, content).errors
    assert [(error.code, error.line, error.param) for error in found] == [(code, number, param)]


def test_every_line_is_looked_at_until_there_are_many_mistakes(tmp_path: Path) -> None:
    assert len(checked(tmp_path, b"{\n" * 7 + line()).errors) == 7
    assert len(checked(tmp_path, b"{\n" * 1000).errors) == MAX_ERRORS


def test_a_batch_has_a_largest_size(tmp_path: Path) -> None:
    texts = [str(number) for number in range(MAX_REQUESTS)]
    assert checked(tmp_path, jsonl(texts)).errors == ()
    assert [error.code for error in checked(tmp_path, jsonl([*texts, "one more"])).errors] == [
        "too_many_tasks"
    ]


def test_the_model_is_known_if_there_is_one(tmp_path: Path) -> None:
    same = checked(tmp_path, jsonl(["a", "b"]))
    assert (same.total, same.model) == (2, "m")
    other = json.dumps(request_line("c", body={"model": "other", "messages": []})).encode()
    assert checked(tmp_path, jsonl(["a"]) + other).model is None
    for model in ("a\0b", "x" * 300):
        odd = checked(tmp_path, line(body={"model": model, "messages": []}))
        assert (odd.model, odd.errors) == (None, ())


def test_a_byte_order_mark_and_windows_lines_are_fine(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + jsonl(["a", "b"]).replace(b"\n", b"\r\n")
    assert checked(tmp_path, content).errors == ()
    assert [r.custom_id for r in input_file.requests(tmp_path / "in.jsonl", 1000)] == ["id-a", "id-b"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from([line(), line(custom_id="2"), b"", b"{", b"\xff", b" ", line(body=[])]), max_size=6
    )
)
def test_what_is_accepted_can_be_read_again(tmp_path_factory: Any, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("in")
    found = checked(folder, b"\n".join(lines))
    if not found.errors:
        read = [*input_file.requests(folder / "in.jsonl", 1000)]
        assert [request.index for request in read] == [*range(found.total)]
        assert all(json.loads(request.body)["model"] == "m" for request in read)
