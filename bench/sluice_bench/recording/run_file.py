"""A run as a parquet file: one row a request, everything else in the file's metadata.

Stamps are nanoseconds since the run's start; a stream's chunks are three lists, the first of gaps, because
gaps are small and pack to a few bytes a token. What is unknown is null. The only module that needs pyarrow;
whoever does not touch run files should not pay for importing it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sluice_bench.recording.run_record import SCHEMA, RunMeta, RunRecord
from sluice_bench.records import Chunk, Failure, RequestRecord, TokenSource

_META = b"sluice.run"
_FIGURES = b"sluice.figures"
_STAMPS = (
    "scheduled_ns",
    "dispatched_ns",
    "connected_ns",
    "written_ns",
    "headers_ns",
    "first_byte_ns",
    "first_choice_ns",
    "first_token_ns",
    "first_answer_ns",
    "last_token_ns",
    "end_ns",
)
_SMALL: Mapping[str, pa.DataType] = {
    "index": pa.int32(),
    "shard": pa.int16(),
    "stream": pa.bool_(),
    "status": pa.int16(),
    "reused_connection": pa.bool_(),
    "n_reads": pa.int32(),
    "n_events": pa.int32(),
    "n_choices": pa.int16(),
    "asked_tokens": pa.int32(),
    "prompt_tokens": pa.int32(),
    "output_tokens": pa.int32(),
    "cached_tokens": pa.int32(),
    "text_bytes": pa.int32(),
}
_WORDS = ("item", "phase", "failure", "message", "token_source", "finish_reason", "backend")
_CHUNKS: Mapping[str, pa.DataType] = {
    "chunk_gap_ns": pa.list_(pa.int64()),
    "chunk_tokens": pa.list_(pa.int32()),
    "chunk_bytes": pa.list_(pa.int32()),
}
_DIGEST = "text_sha256"


class BadRunFile(Exception):
    """Not a run file that this version can read; the message says why."""


def write_run(run: RunRecord, path: Path) -> None:
    """Write a run, the folder included; a reader never sees half a file. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        name: [values(record) for record in run.requests] for name, values in _columns(run.meta.start_ns)
    }
    metadata = {_META: msgspec.json.encode(run.meta), _FIGURES: run.figures}
    table = pa.table(columns, schema=_schema().with_metadata(metadata))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(
            table,
            unfinished,
            compression="zstd",
            use_dictionary=list(_WORDS),
            column_encoding={f"{name}.list.element": "DELTA_BINARY_PACKED" for name in _CHUNKS},
            write_statistics=False,
        )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_run(path: Path) -> RunRecord:
    """The run in a file. Raises `BadRunFile` or `OSError`."""
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise BadRunFile(f"{path} is not a parquet file: {error}") from error
    metadata = table.schema.metadata or {}
    meta = _meta(path, metadata)
    missing = [name for name in _schema().names if name not in table.column_names]
    if missing or _FIGURES not in metadata:
        raise BadRunFile(f"{path} lacks {', '.join(missing) or 'its figures'}")
    rows: Iterable[dict[str, Any]] = table.to_pylist()
    requests = tuple(_record(row, meta.start_ns) for row in rows)
    return RunRecord(meta=meta, requests=requests, figures=metadata[_FIGURES])


def _meta(path: Path, metadata: Mapping[bytes, bytes]) -> RunMeta:
    raw = metadata.get(_META)
    if raw is None:
        raise BadRunFile(f"{path} is a parquet file, but not of a run")
    try:
        schema = msgspec.json.decode(raw, type=_Version).schema
        if schema > SCHEMA:
            raise BadRunFile(
                f"{path} has schema {schema} and this version reads up to {SCHEMA}; use a newer sluice-bench"
            )
        return msgspec.json.decode(raw, type=RunMeta)
    except msgspec.DecodeError as error:
        raise BadRunFile(f"{path} does not describe its run: {error}") from error


class _Version(msgspec.Struct):
    schema: int


def _schema() -> pa.Schema:
    types = {
        **_SMALL,
        **{name: pa.int64() for name in _STAMPS},
        **{name: pa.string() for name in _WORDS},
        _DIGEST: pa.binary(32),
        **_CHUNKS,
    }
    return pa.schema(list(types.items()))


def _columns(start_ns: int) -> list[tuple[str, Callable[[RequestRecord], object]]]:
    """Name of each column, and what it holds of a record."""

    def field(name: str) -> Callable[[RequestRecord], object]:
        return lambda record: getattr(record, name)

    def stamp(name: str) -> Callable[[RequestRecord], object]:
        return lambda record: None if (at := getattr(record, name)) is None else at - start_ns

    def word(name: str) -> Callable[[RequestRecord], object]:
        return lambda record: None if (value := getattr(record, name)) is None else str(value)

    return [
        *((name, field(name)) for name in _SMALL),
        *((name, stamp(name)) for name in _STAMPS),
        *((name, word(name)) for name in _WORDS),
        (_DIGEST, lambda record: bytes.fromhex(record.text_sha256) or None),
        ("chunk_gap_ns", _gaps),
        ("chunk_tokens", lambda record: [chunk.n_tokens for chunk in record.chunks]),
        ("chunk_bytes", lambda record: [chunk.n_bytes for chunk in record.chunks]),
    ]


def _gaps(record: RequestRecord) -> list[int]:
    """Between arrivals; the first since the request's schedule."""
    arrivals = [record.scheduled_ns, *(chunk.arrived_ns for chunk in record.chunks)]
    return [later - earlier for earlier, later in pairwise(arrivals)]


def _record(row: dict[str, Any], start_ns: int) -> RequestRecord:
    stamps: dict[str, Any] = {name: None if row[name] is None else row[name] + start_ns for name in _STAMPS}
    return RequestRecord(
        **{name: row[name] for name in _SMALL},
        **stamps,
        item=row["item"],
        phase=row["phase"],
        failure=None if row["failure"] is None else Failure(row["failure"]),
        message=row["message"],
        token_source=TokenSource(row["token_source"]),
        finish_reason=row["finish_reason"],
        backend=row["backend"],
        text_sha256=(row[_DIGEST] or b"").hex(),
        chunks=_chunks(row, row["scheduled_ns"] + start_ns),
    )


def _chunks(row: dict[str, Any], scheduled_ns: int) -> tuple[Chunk, ...]:
    gaps: Sequence[int] = row["chunk_gap_ns"]
    stamps = list(accumulate(gaps, initial=scheduled_ns))[1:]
    return tuple(map(Chunk, stamps, row["chunk_tokens"], row["chunk_bytes"]))
