"""Digests that are equal where the content is: of records, of figures, of what was sent.

They are of a canonical encoding and not of a file's bytes, which differ between versions of whoever writes
it. A field at its default is left out, so that one added later does not change the digest of older records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from sluice_bench.metrics import Summary
from sluice_bench.records import RequestRecord
from sluice_bench.target import WireRequest

_PRIVATE_HEADERS = (b"host:", b"authorization:", b"x-api-key:")


def sha256(data: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def records_sha256(records: Iterable[RequestRecord]) -> str:
    """Of records, in the order given."""
    digest = hashlib.sha256()
    for record in records:
        kept = {
            field.name: value
            for field in msgspec.structs.fields(RequestRecord)
            if (value := getattr(record, field.name)) != field.default
        }
        digest.update(msgspec.msgpack.encode(kept))
    return digest.hexdigest()


def figures_json(summary: Summary) -> bytes:
    """Canonical JSON: the same figures are the same bytes on any machine."""
    return msgspec.json.encode(summary, order="deterministic")


def requests_sha256(requests: Iterable[WireRequest]) -> str:
    """Of what is sent, without host and credentials."""
    digest = hashlib.sha256()
    for request in requests:
        head, _, body = request.wire.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(_PRIVATE_HEADERS)]
        for part in (*lines, b"", body):
            digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()
