"""Reading an upload as it comes: small fields are kept, the file's bytes are handed on piece by piece.

Invariant: never more than one chunk of the file is in memory. What is wrong with the form is a
`MalformedError`, whose message is for the client.
"""

from __future__ import annotations

import re

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from sluice_gateway.multipart import MalformedError

_MAX_PARTS = 32
_MAX_FIELD_BYTES = 1024
_MAX_NAME_CHARACTERS = 255
_PATH = re.compile(r"^.*[/\\]", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class UploadForm:
    """One `multipart/form-data` body with one file, called `file`."""

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        """The other fields."""
        self.filename: str | None = None
        """Without a path. `None` until the file has begun."""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_to_header_name,
                "on_header_value": self._add_to_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": self._add_content,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )
        self._pieces: list[bytes] = []
        self._parts = 0
        self._header_name = self._header_value = self._disposition = b""
        self._field: str | None = None
        """The field that is being read; `None` within the file."""
        self._value = b""
        self._is_complete = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The file's bytes in a piece of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MalformedError(f"{error}") from error
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """The body has ended."""
        if not self._is_complete:
            raise MalformedError("the closing boundary is missing")

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise MalformedError(f"there are more than {_MAX_PARTS} parts")
        self._disposition = b""

    def _add_to_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_to_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _begin_content(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not name:
            raise MalformedError("a part needs 'Content-Disposition: form-data; name=\"...\"'")
        if name == "file":
            if self.filename is not None:
                raise MalformedError("'file' is there twice; send one upload a file")
            self.filename = _plain_name(options.get(b"filename", b""))
            self._field = None
        elif name in self.fields:
            raise MalformedError(f"'{name[:64]}' is there twice")
        else:
            self._field, self._value = name, b""

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._pieces.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _MAX_FIELD_BYTES:
            raise MalformedError(f"'{self._field[:64]}' is longer than {_MAX_FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._is_complete = True


def _plain_name(filename: bytes) -> str:
    """What a client calls its file, without folders and control characters."""
    name = _PATH.sub("", filename.decode("utf-8", "replace"))
    return _CONTROL.sub("", name)[:_MAX_NAME_CHARACTERS] or "upload"
