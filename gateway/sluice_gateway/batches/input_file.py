"""A batch's input: one request a line, checked as a whole before the first of them runs.

Invariant: what `check` has accepted, `requests` reads without an error, in the same order and numbering.
Blank lines are no requests. Both work on the file as it lies on disk and keep one line in memory.

Source: OpenAI's Batch API guide, "Prepare your batch file".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from sluice_gateway.batches.tables import LineError

MAX_REQUESTS = 50_000
MAX_ERRORS = 100
"""Mistakes that are listed; a file that is wrong throughout would fill the store."""

_MAX_MODEL_CHARACTERS = 256
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ABSENT = msgspec.Raw(b"null")


class LineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a batch."""

    index: int
    """From 0, over all requests of the file."""
    custom_id: str
    body: bytes


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file that has been read to its end."""

    total: int
    model: str | None
    """The one that all requests ask for, if they do, and if it can be shown."""
    errors: tuple[LineError, ...]
    """Empty: the batch can run."""


class _Line(msgspec.Struct):
    custom_id: str | None = None
    method: str | None = None
    url: str | None = None
    body: msgspec.Raw = _ABSENT


class _Body(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None


_LINE = msgspec.json.Decoder(_Line)
_BODY = msgspec.json.Decoder(_Body)


def check(path: Path, endpoint: str, max_line_bytes: int) -> Checked:
    """Read the whole file. Raises `OSError` when it cannot be read."""
    errors: list[LineError] = []
    seen: set[str] = set()
    models: set[str] = set()
    total = 0
    for number, line in _lines(path, max_line_bytes):
        total += 1
        if total > MAX_REQUESTS:
            errors.append(_error("too_many_tasks", f"A batch may have {MAX_REQUESTS} requests.", line=number))
            break
        found = _mistake(line, number, endpoint, max_line_bytes, seen, models)
        if found is not None:
            errors.append(found)
            if len(errors) >= MAX_ERRORS:
                break
    if total == 0:
        errors.append(_error("empty_file", "The input file has no requests."))
    model = models.pop() if len(models) == 1 else ""
    shown = model if model.isprintable() and len(model) <= _MAX_MODEL_CHARACTERS else ""
    return Checked(total=total, model=shown or None, errors=tuple(errors))


def requests(path: Path, max_line_bytes: int) -> Iterator[LineRequest]:
    """The requests of a file that has been checked. Raises `OSError` when it cannot be read."""
    for index, (_, line) in enumerate(_lines(path, max_line_bytes)):
        fields = _LINE.decode(line)
        yield LineRequest(index=index, custom_id=fields.custom_id or "", body=bytes(fields.body))


def _lines(path: Path, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line); one that is too long is cut after its first byte too many, and the last."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(max_line_bytes + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if line.strip():
                yield number, line
            if len(line) > max_line_bytes and not line.endswith(b"\n"):
                return


def _mistake(
    line: bytes, number: int, endpoint: str, max_line_bytes: int, seen: set[str], models: set[str]
) -> LineError | None:
    """The first thing that is wrong with a line. Notes its custom id and model."""
    if len(line) > max_line_bytes:
        text = f"This line is longer than {max_line_bytes} bytes."
        return _error("line_too_long", text, line=number)
    try:
        fields = _LINE.decode(line)
    except msgspec.ValidationError as error:
        return _error("invalid_type", f"{error}.", line=number)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _error("invalid_json_line", "This line is not parseable as valid JSON.", line=number)
    return _wrong_envelope(fields, number, endpoint, seen) or _wrong_body(fields.body, number, models)


def _wrong_envelope(fields: _Line, number: int, endpoint: str, seen: set[str]) -> LineError | None:
    custom_id = fields.custom_id
    if not custom_id:
        return _required("custom_id", number)
    if custom_id in seen:
        return _error("duplicate_custom_id", "This 'custom_id' is there twice.", "custom_id", number)
    seen.add(custom_id)
    if fields.method != "POST":
        return _error("invalid_method", "'method' must be 'POST'.", "method", number)
    if fields.url != endpoint:
        return _error("invalid_url", f"'url' must be the batch's endpoint, '{endpoint}'.", "url", number)
    return None


def _wrong_body(raw: msgspec.Raw, number: int, models: set[str]) -> LineError | None:
    if raw is _ABSENT:
        return _required("body", number)
    try:
        body = _BODY.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _error("invalid_type", f"{error}.", "body", number)
    if not body.model:
        return _required("body.model", number)
    if body.stream:
        return _error("invalid_request", "'stream' is not possible in a batch.", "body.stream", number)
    models.add(body.model)
    return None


def _required(param: str, number: int) -> LineError:
    return _error("missing_required_parameter", f"Missing required parameter: '{param}'.", param, number)


def _error(code: str, message: str, param: str | None = None, line: int | None = None) -> LineError:
    return LineError(code=code, message=message, param=param, line=line)
