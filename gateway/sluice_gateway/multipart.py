"""The routing fields of an upload, found without copying the files around them.

Invariant: a body that is accepted reads the same in every conforming parser, so the model that a key is
checked for is the model that the engine runs. Whatever could be read in two ways is refused: a field that is
there twice, a delimiter inside a part, a folded or repeated header. The bytes themselves are never changed
here, but for `with_model`.

Source: RFC 2046 section 5.1.1 (delimiters) and RFC 7578 (form data). The body is searched with `bytes.find`,
which takes linear time; nothing is parsed that is not a part's head.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from sluice_gateway.errors import Failure, Problem, problem
from sluice_gateway.facts import BYTES_PER_TOKEN, NO_MODEL, BodyFacts
from sluice_gateway.routes import Kind

MAX_PARTS = 1000
_MAX_HEAD_BYTES = 8192
_MAX_FIELD_BYTES = 1024
_MAX_BOUNDARY_BYTES = 70

_FILES: dict[Kind, tuple[bytes, ...]] = {
    "audio_transcriptions": (b"file",),
    "audio_translations": (b"file",),
    "images_edits": (b"image", b"image[]"),
    "images_variations": (b"image",),
}
"""The part that holds what the engine works on; any of these names."""

_TYPE = re.compile(rb"\s*multipart/form-data\s*(?:;|$)", re.IGNORECASE)
_PARAMETER = re.compile(rb';\s*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]*))\s*')
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):(.*)", re.DOTALL)
_DELIMITER_END = re.compile(rb"(--)?[ \t]*(?:\r\n|\Z)")
_TRUE = frozenset({b"true", b"1", b"on", b"yes", b"t", b"y"})
_PLAIN_ENCODINGS = frozenset({b"7bit", b"8bit", b"binary"})


class Part(msgspec.Struct, frozen=True):
    """Where one part of a body is."""

    name: bytes
    is_file: bool
    start: int
    """First byte of its content."""
    end: int
    """One past its last byte."""


class MalformedError(ValueError):
    """The body is not form data that can be read in one way only; the message says why."""


def decode(kind: Kind, content_type: bytes, body: bytes) -> BodyFacts | Problem:
    """The facts in a `multipart/form-data` body, or what is wrong with it."""
    boundary = boundary_of(content_type)
    if boundary is None:
        return problem(
            Failure.BODY_ENCODING,
            "This path takes an upload: send the fields as 'multipart/form-data; boundary=...'.",
        )
    try:
        parts = [*split(body, boundary)]
        return _facts(kind, body, parts)
    except MalformedError as error:
        return problem(Failure.INVALID_REQUEST, f"The request body is not valid form data: {error}.")


def with_model(content_type: bytes, body: bytes, model: str) -> bytes:
    """The same body with another model, e.g. the one that an alias stands for. It has been decoded before."""
    boundary = boundary_of(content_type)
    assert boundary is not None
    part = _field([*split(body, boundary)], b"model")
    assert part is not None
    return b"%b%b%b" % (body[: part.start], model.encode(), body[part.end :])


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary of a `multipart/form-data` content type; `None` when it is not one, or not usable."""
    found = _TYPE.match(content_type)
    if found is None:
        return None
    parameters = _parameters(content_type[found.end() - 1 :]) if found.end() < len(content_type) else {}
    boundary = parameters.get(b"boundary", b"") if parameters is not None else b""
    if not 1 <= len(boundary) <= _MAX_BOUNDARY_BYTES or b"\r" in boundary or b"\n" in boundary:
        return None
    return boundary


def split(body: bytes, boundary: bytes) -> Iterator[Part]:
    """The parts of a body, in order. Raises `MalformedError`."""
    dash_boundary, delimiter = b"--" + boundary, b"\r\n--" + boundary
    if not body.startswith(dash_boundary):
        raise MalformedError("it does not begin with the boundary")
    position, is_last = _after_delimiter(body, len(dash_boundary))
    count = 0
    while not is_last:
        count += 1
        if count > MAX_PARTS:
            raise MalformedError(f"there are more than {MAX_PARTS} parts")
        head_end = body.find(b"\r\n\r\n", position, position + _MAX_HEAD_BYTES)
        if head_end < 0:
            raise MalformedError(f"part {count} has no end to its headers")
        start = head_end + 4
        end = body.find(delimiter, start)
        if end < 0 or body.startswith(dash_boundary, start):
            raise MalformedError("the closing boundary is missing, or does not begin a line of its own")
        name, is_file = _head(body[position:head_end], count)
        yield Part(name, is_file, start, end)
        position, is_last = _after_delimiter(body, end + len(delimiter))


def _after_delimiter(body: bytes, position: int) -> tuple[int, bool]:
    """Where a delimiter's line ends, and whether it closes the body."""
    found = _DELIMITER_END.match(body, position)
    if found is None:
        raise MalformedError("the boundary occurs inside a part; choose another")
    is_last = found[1] is not None
    if not is_last and found.end() == len(body):
        raise MalformedError("the closing boundary is missing")
    return found.end(), is_last


def _head(head: bytes, number: int) -> tuple[bytes, bool]:
    """Name of a part, and whether it is a file."""
    disposition: bytes | None = None
    for line in head.split(b"\r\n"):
        found = _HEADER.fullmatch(line)
        if found is None or b"\r" in line or b"\n" in line or b"\0" in line:
            raise MalformedError(f"part {number} has a malformed header")
        header, value = found[1].lower(), found[2].strip()
        if header == b"content-disposition":
            if disposition is not None:
                raise MalformedError(f"part {number} has two Content-Disposition headers")
            disposition = value
        if header == b"content-transfer-encoding" and value.lower() not in _PLAIN_ENCODINGS:
            raise MalformedError(f"part {number} is encoded; send it as it is")
    kind, _, _ = (disposition or b"").partition(b";")
    parameters = _parameters((disposition or b"")[len(kind) :])
    if kind.strip().lower() != b"form-data" or parameters is None or b"name" not in parameters:
        raise MalformedError(f"part {number} needs 'Content-Disposition: form-data; name=\"...\"'")
    return parameters[b"name"], b"filename" in parameters or b"filename*" in parameters


def _parameters(text: bytes) -> dict[bytes, bytes] | None:
    """`; name=value` pairs of a header; `None` when they are malformed, or could be read in two ways."""
    parameters: dict[bytes, bytes] = {}
    position, text = 0, text.rstrip(b"; \t")
    while position < len(text):
        found = _PARAMETER.match(text, position)
        if found is None:
            return None
        name, value = found[1].lower(), found[3] if found[2] is None else found[2]
        decides = name.startswith((b"name", b"boundary"))
        if name in parameters or (decides and (b"*" in name or b"\\" in value)):
            return None
        parameters[name] = value
        position = found.end()
    return parameters


def _facts(kind: Kind, body: bytes, parts: list[Part]) -> BodyFacts | Problem:
    model = _text(body, _field(parts, b"model"), "model")
    if not model:
        return NO_MODEL
    stream = _text(body, _field(parts, b"stream"), "stream")
    wanted = _FILES[kind]
    if not any(part.name in wanted for part in parts):
        name = wanted[0].decode()
        return problem(Failure.INVALID_REQUEST, f"You must provide '{name}': a file.", param=name)
    text_bytes = sum(part.end - part.start for part in parts if not part.is_file)
    return BodyFacts(
        model=model,
        stream=stream.lower().encode() in _TRUE,
        prompt_tokens_estimate=text_bytes // BYTES_PER_TOKEN + 1,
    )


def _field(parts: list[Part], name: bytes) -> Part | None:
    """The one part of that name."""
    found = [part for part in parts if part.name == name]
    if len(found) > 1 or (found and found[0].is_file):
        raise MalformedError(f"'{name.decode()}' must be there once, and not as a file")
    return found[0] if found else None


def _text(body: bytes, part: Part | None, name: str) -> str:
    if part is None:
        return ""
    if part.end - part.start > _MAX_FIELD_BYTES:
        raise MalformedError(f"'{name}' is longer than {_MAX_FIELD_BYTES} bytes")
    try:
        return body[part.start : part.end].decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"'{name}' is not UTF-8") from error
