"""The routing fields of an upload, and the refusal of every body that two parsers could read differently."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError

from sluice_gateway import multipart
from sluice_gateway.errors import Failure, Problem
from sluice_gateway.facts import BodyFacts

TYPE = b"multipart/form-data; boundary=b"


def field(name: str, value: bytes, more: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value


def form(*parts: bytes, boundary: bytes = b"b") -> bytes:
    return b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts) + b"--%b--\r\n" % boundary


MODEL = field("model", b"whisper")
SOUND = field("file", b"RIFF\r\n\r\n\x00\xff", '; filename="a.wav"\r\nContent-Type: audio/wav')


def decoded(body: bytes, content_type: bytes = TYPE) -> BodyFacts | Problem:
    return multipart.decode("audio_transcriptions", content_type, body)


def test_model_and_stream_are_read_wherever_they_are() -> None:
    stream = field("stream", b"true")
    for body in (form(MODEL, SOUND, stream), form(stream, SOUND, MODEL)):
        found = decoded(body)
        assert isinstance(found, BodyFacts)
        assert (found.model, found.stream) == ("whisper", True)


def test_files_do_not_count_as_prompt() -> None:
    body = form(MODEL, field("file", b"x" * 100_000, '; filename="a"'), field("prompt", b"y" * 400))
    found = decoded(body)
    assert isinstance(found, BodyFacts)
    assert 100 <= found.prompt_tokens_estimate < 200


def test_a_quoted_boundary_and_an_epilogue_are_fine() -> None:
    content_type = b'Multipart/Form-Data; charset=utf-8; boundary="b c:d"'
    body = form(MODEL, SOUND, boundary=b"b c:d") + b"whatever comes after"
    assert isinstance(decoded(body, content_type), BodyFacts)


def test_only_the_model_changes_when_it_is_replaced() -> None:
    body = form(SOUND, MODEL)
    assert multipart.with_model(TYPE, body, "größer") == body.replace(b"whisper", "größer".encode())


@pytest.mark.parametrize(
    "content_type",
    [
        b"", b"application/json", b"multipart/form-data", b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"x" * 71, b"multipart/form-data; boundary=b; boundary=c",
        b"multipart/form-data; boundary*=utf-8''b", b"multipart/form-data; boundary*0=b",
    ],
)  # fmt: skip
def test_another_content_type_is_a_415(content_type: bytes) -> None:
    found = decoded(form(MODEL, SOUND), content_type)
    assert isinstance(found, Problem)
    assert found.failure is Failure.BODY_ENCODING


@pytest.mark.parametrize(
    ("body", "param"),
    [(form(SOUND), "model"), (form(field("model", b""), SOUND), "model"), (form(MODEL), "file")],
)
def test_what_is_missing_is_named(body: bytes, param: str) -> None:
    found = decoded(body)
    assert isinstance(found, Problem)
    assert (found.status, found.param) == (400, param)


AMBIGUOUS = {
    "empty": b"",
    "a preamble": b"hello\r\n" + form(MODEL, SOUND),
    "no end": form(MODEL, SOUND)[:-6],
    "no end at all": b"--b\r\n" + MODEL,
    "ends in a delimiter": b"--b\r\n" + MODEL + b"\r\n--b\r\n",
    "a delimiter inside a part": form(MODEL, field("file", b"x\r\n--bc\r\ny", '; filename="a"')),
    "something after the closing delimiter": form(MODEL, SOUND)[:-2] + b"x\r\n",
    "two models": form(MODEL, SOUND, field("model", b"other")),
    "a model file": form(field("model", b"m", '; filename="m"'), SOUND),
    "a long model": form(field("model", b"m" * 2000), SOUND),
    "a model in Latin-1": form(field("model", b"\xe9"), SOUND),
    "an escaped name": form(field("mo\\del", b"m"), SOUND),
    "an extended name": form(b"Content-Disposition: form-data; name*=utf-8''model\r\n\r\nm", SOUND),
    "a continued name": form(b'Content-Disposition: form-data; name*0="mo"; name*1="del"\r\n\r\nm', SOUND),
    "two names": form(field("a", b"m", '; name="model"'), SOUND),
    "two dispositions": form(b'Content-Disposition: form-data; name="a"\r\n' + MODEL, SOUND),
    "no disposition": form(b"Content-Type: text/plain\r\n\r\nm", SOUND),
    "an attachment": form(b'Content-Disposition: attachment; name="model"\r\n\r\nm', SOUND),
    "a folded header": form(b'Content-Disposition: form-data;\r\n name="model"\r\n\r\nm', SOUND),
    "bare line feeds": form(MODEL, SOUND).replace(b"\r\n", b"\n"),
    "a bare line feed in a header": form(b"X: y\n" + MODEL, SOUND),
    "an encoded part": form(b"Content-Transfer-Encoding: base64\r\n" + field("model", b"bQ=="), SOUND),
    "a delimiter right after the headers": b"--b\r\n" + field("model", b"--b\r\n") + form(MODEL, SOUND),
    "an endless header": b"--b\r\nX: " + b"y" * 10_000 + form(MODEL, SOUND),
    "too many parts": form(MODEL, SOUND, *[field("x", b"")] * 1000),
}  # fmt: skip


@pytest.mark.parametrize("body", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    found = decoded(body)
    assert isinstance(found, Problem)
    assert (found.failure, found.status) == (Failure.INVALID_REQUEST, 400)


NASTY = st.lists(
    st.sampled_from([
        b"--b", b"\r\n--b", b"\r\n--b--", b"\r\n", b"\r", b"\n", b"-", b"b", b" ", b"\t", b'"', b"\\", b";",
        b"Content-Disposition: form-data", b'; name="model"', b"; name=model", b'; name="file"', b"\r\n\r\n",
        b'; filename="a"', MODEL, SOUND, b"--b\r\n", b"\x00", b"\xff",
    ]),
    max_size=12,
).map(b"".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(NASTY, st.booleans())
@example(b"", True)
def test_what_is_accepted_reads_the_same_in_another_parser(middle: bytes, inside: bool) -> None:
    body = form(MODEL, field("file", middle, '; filename="a"')) if inside else form(MODEL, SOUND, middle)
    found = decoded(body)
    if isinstance(found, Problem):
        assert found.status == 400
        return
    theirs = python_multipart_parts(body)
    assert [content for head, content in theirs if b'name="model"' in head] == [found.model.encode()]
    assert len(theirs) == len([*multipart.split(body, b"b")])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_content_that_is_free_of_the_boundary_is_never_touched(content: bytes, text: bytes) -> None:
    if b"--b" in content or b"--b" in text:
        return
    body = form(MODEL, field("prompt", text), field("file", content, '; filename="a"'))
    found = {part.name: body[part.start : part.end] for part in multipart.split(body, b"b")}
    assert found == {b"model": b"whisper", b"prompt": text, b"file": content}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=40))
def test_any_bytes_give_facts_or_a_problem(body: bytes, content_type: bytes) -> None:
    for form_type in (TYPE, content_type, b"multipart/form-data" + content_type):
        assert isinstance(decoded(b"--b\r\n" + body, form_type), BodyFacts | Problem)


def python_multipart_parts(body: bytes) -> list[tuple[bytes, bytes]]:
    """(head, content) of each part, as the parser behind Starlette and most engines reads them."""
    parts: list[tuple[bytearray, bytearray]] = []

    def add(which: int) -> Any:
        return lambda data, start, end: parts[-1][which].extend(data[start:end])

    parser = MultipartParser(
        b"b",
        {
            "on_part_begin": lambda: parts.append((bytearray(), bytearray())),
            "on_header_field": add(0),
            "on_header_value": add(0),
            "on_part_data": add(1),
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise AssertionError(f"accepted here, refused there: {body!r}") from error
    return [(bytes(head), bytes(content)) for head, content in parts]
